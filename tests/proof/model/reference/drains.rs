//! Operations with a timeout, and drains: what they are told of, as it happens.

use std::sync::Arc;
use std::time::Duration;

use watershed::{Commit, Error, ErrorCode, Letter, OnFailure};

use super::super::program::{Drain, Order, Policy};
use super::{
    Call, Cause, Ended, Failed, Frame, FrameId, Kind, Model, ROOT, Run, Source, Stage, labels,
    reported,
};

impl Model {
    pub fn open_timeout(&mut self, parent: FrameId, after: Duration, policy: Policy) -> FrameId {
        let due = self.now() + after;
        self.frames.push(Frame::new(parent, Kind::Timeout { due }, policy));
        self.frames.len() - 1
    }

    /// The operation was dropped before its end.
    pub fn operation_dropped(&mut self, id: FrameId) {
        if matches!(self.frames[id].kind, Kind::Timeout { due } if self.now() >= due) {
            self.begin_rolling(id);
        }
    }

    pub fn operation_ended(
        &mut self,
        id: FrameId,
        ended: Option<bool>,
        result: &Result<(), Error>,
        cancelled: bool,
    ) {
        let rolling = self.frames[id].stage == Stage::Rolling;
        let Kind::Timeout { due } = self.frames[id].kind else { return };
        let code = result.as_ref().err().map(Error::code);
        let legal = match (ended, code) {
            (Some(succeeded), None) => succeeded,
            (Some(succeeded), Some(ErrorCode::Unspecified)) => !succeeded,
            (None, Some(ErrorCode::Timeout)) => self.now() >= due,
            // Both may happen at once: then nothing was run.
            (None, Some(ErrorCode::Canceled)) => {
                let frame = &self.frames[id];
                cancelled && frame.succeeded == 0 && frame.given_up.is_empty()
            }
            _ => false,
        };
        self.must(legal, || format!("an operation that came to {ended:?} gave {result:?}"));
        if let (true, Some(ErrorCode::Timeout), Err(error)) = (rolling, code, result) {
            if let Some(error) = error.related().first() {
                self.check_frame_rollback(id, None, &reported(error));
            } else {
                let nothing = self.frames[id].given_up.is_empty();
                self.must(nothing, || "a timeout hides what could not be undone".into());
                let runs = self.frames[id].policy.order != Order::None;
                let left = self.staged(id);
                self.must(!runs || left.is_empty(), || format!("{left:?} were not undone"));
            }
        }
        self.close(id);
    }

    // Drains.

    pub fn open_drain(
        &mut self,
        parent: FrameId,
        plan: &Arc<Drain>,
        token: watershed::CancellationToken,
    ) -> FrameId {
        if parent == ROOT {
            self.numbers.drains += 1;
        } else {
            self.numbers.nested_drains += 1;
        }
        let run = Run {
            plan: Arc::clone(plan),
            started: self.now(),
            token,
            stopped_outside: None,
            shut_down_at: None,
            calls_after_cancel: 0,
            failures: Vec::new(),
            cause_at: None,
            dropping: false,
            sources: vec![Source::default(); plan.sources.len()],
        };
        self.frames.push(Frame::new(parent, Kind::Drain(Box::new(run)), plan.policy));
        self.frames.len() - 1
    }

    pub(super) fn run(&mut self, drain: FrameId) -> &mut Run {
        match &mut self.frames[drain].kind {
            Kind::Drain(run) => run,
            _ => unreachable!("a drain"),
        }
    }

    pub(super) fn failures(&self, drain: FrameId) -> &[Failed] {
        match &self.frames[drain].kind {
            Kind::Drain(run) => &run.failures,
            _ => &[],
        }
    }

    pub(super) fn call(&mut self, message: FrameId) -> &mut Call {
        match &mut self.frames[message].kind {
            Kind::Message(call) => call,
            _ => unreachable!("a message"),
        }
    }

    /// It is polled for the first time.
    pub fn drain_began(&mut self, drain: FrameId) {
        let now = self.now();
        self.run(drain).started = now;
    }

    /// Its token was cancelled by another task: between two polls.
    pub fn cancelled_outside(&mut self, drain: FrameId) {
        let now = self.now();
        let open = self.frames[drain].stage == Stage::Open;
        if open && !self.run(drain).token.is_cancelled() {
            self.numbers.cancellations += 1;
            let run = self.run(drain);
            run.stopped_outside.get_or_insert(now);
            run.cause_at.get_or_insert(now);
        }
    }

    /// Its shutdown token was cancelled by another task: between two polls.
    pub fn shut_down(&mut self, drain: FrameId) {
        let now = self.now();
        if self.frames[drain].stage == Stage::Open {
            self.numbers.shutdowns += 1;
            self.run(drain).shut_down_at.get_or_insert(now);
        }
    }

    pub fn taken(&mut self, drain: FrameId, source: usize, index: usize) {
        let over = self.frames[drain].stage == Stage::Over;
        let state = &mut self.run(drain).sources[source];
        let expected = state.taken;
        state.taken += 1;
        self.must(!over && index == expected, || format!("took message {index} of {source}"));
    }

    pub fn put_back(&mut self, drain: FrameId, source: usize) {
        self.run(drain).sources[source].put_back += 1;
    }

    pub fn source_broke(&mut self, drain: FrameId, source: usize, panics: bool) {
        self.numbers.faults += 1;
        let cause = if panics { Cause::SourcePanic(source) } else { Cause::Fault(source) };
        self.failed(drain, cause, true);
    }

    pub(super) fn failed(&mut self, drain: FrameId, cause: Cause, ends: bool) {
        let at = self.now();
        let run = self.run(drain);
        let stopped_before = run.stopped_outside.is_some();
        let stopping = run.is_stopping(at);
        run.failures.push(Failed { cause, at, ends, stopped_before, stopping });
        if ends {
            run.cause_at.get_or_insert(at);
        }
    }

    /// Rules 2.1 to 2.3 and 3.2 to 3.5: whether a handler may be called now.
    pub fn called(&mut self, drain: FrameId, source: usize, index: usize) -> FrameId {
        self.world.note(format!("call {source}/{index}"));
        self.numbers.messages += 1;
        let now = self.now();
        let message = self.frames.len();
        let over = self.frames[drain].stage == Stage::Over;
        let run = self.run(drain);
        let plan = Arc::clone(&run.plan);
        let active: usize = run.sources.iter().map(|source| source.active.len()).sum();
        let state = &run.sources[source];
        let same = state.active.clone();
        let mut wrong = None;
        let mut refuse = |refuse: bool, why: &str| {
            if refuse {
                wrong.get_or_insert_with(|| format!("called {source}/{index}, but {why}"));
            }
        };
        refuse(over, "the drain is over");
        refuse(run.dropping, "handlers were dropped");
        refuse(run.failures.iter().any(|failed| failed.ends), "it has a reason to end");
        refuse(run.stopped_outside.is_some(), "it was told to stop");
        refuse(run.shut_down_at.is_some(), "it was shut down");
        let deadline = plan.timeout.map(|timeout| run.started + timeout);
        refuse(deadline.is_some_and(|deadline| now >= deadline), "its deadline has passed");
        if run.token.is_cancelled() {
            run.calls_after_cancel += 1;
        }
        refuse(run.calls_after_cancel >= plan.quantum, "it was told to stop, a turn ago");
        refuse(active >= plan.concurrency, "too many handlers run");
        let most = match plan.keys {
            None => 1,
            Some(_) => plan.per_source.unwrap_or(plan.concurrency),
        };
        refuse(same.len() >= most, "too many of its source run");
        if plan.keys.is_none() {
            refuse(state.taken != index + 1, "it was not the one taken last");
        }
        run.sources[source].active.push(message);
        if let Some(keys) = plan.keys {
            let key_of = |other: FrameId| match &self.frames[other].kind {
                Kind::Message(call) => call.index % keys,
                _ => usize::MAX,
            };
            refuse(same.iter().any(|other| key_of(*other) == index % keys), "its key is busy");
        }
        // Order within a source, or within a key.
        let earlier = self.frames.iter().any(|frame| match &frame.kind {
            Kind::Message(call) if call.drain == drain && call.source == source => {
                let same_key = plan.keys.is_none_or(|keys| call.index % keys == index % keys);
                same_key && call.index >= index
            }
            _ => false,
        });
        refuse(earlier, "a later one was called before");
        if let Some(wrong) = wrong {
            self.wrong(wrong);
        }
        let call = Call { drain, source, index, at: now, end: None };
        self.frames.push(Frame::new(drain, Kind::Message(call), plan.policy));
        message
    }

    /// The handler of a message has ended, or was dropped.
    pub fn handler_ended(&mut self, message: FrameId, end: Ended) {
        self.world.note(format!("handler: {end:?}"));
        let now = self.now();
        let drain = self.frames[message].parent;
        let plan = Arc::clone(&self.run(drain).plan);
        let alone = plan.on_failure == OnFailure::Continue;
        let call = self.call(message);
        call.end = Some(end);
        let (source, at) = (call.source, call.at);
        let due = plan.message_timeout.map(|timeout| at + timeout);
        self.must(due.is_none_or(|due| now <= due), || "a handler outlived its timeout".into());
        let timed_out = end == Ended::Dropped && due.is_some_and(|due| now >= due);
        let cause = match end {
            Ended::Succeeded => None,
            Ended::Failed => Some(Cause::Handler(message)),
            Ended::Panicked => Some(Cause::HandlerPanic(message)),
            Ended::Dropped => timed_out.then_some(Cause::MessageTimeout(message)),
        };
        match cause {
            None if end == Ended::Dropped => {
                self.numbers.handlers_dropped += 1;
                self.run(drain).dropping = true;
                self.close(message);
            }
            None => {
                if plan.commit == Commit::Message {
                    self.commit(message);
                }
                self.close(message);
                self.run(drain).sources[source].succeeded += 1;
            }
            Some(cause) => {
                self.numbers.faults += 1;
                self.close(message);
                self.failed(drain, cause, !alone);
                // While the drain ends, too; one that was told to stop is no dead letter.
                if alone {
                    self.begin_rolling(message);
                    return;
                }
            }
        }
        self.run(drain).sources[source].active.retain(|active| *active != message);
    }

    /// Rule 3.8: a message was rolled back alone.
    pub fn dead_letter<M>(&mut self, drain: FrameId, failed: &Letter<M>, panics: bool) {
        self.numbers.dead_letters += 1;
        let cause = self.classify(drain, failed.error());
        let listed = |failure: &&mut Failed| Some(failure.cause) == cause && !failure.ends;
        let Some(failure) = self.run(drain).failures.iter_mut().find(listed) else {
            return self.wrong(format!("a dead letter of {}", failed.error()));
        };
        let failed_by = failure.cause;
        let Some(message) = failed_by.message() else {
            return self.wrong("a dead letter without a message");
        };
        let position = self.run(drain).failures.iter().position(|other| Some(other.cause) == cause);
        self.run(drain).failures.remove(position.unwrap_or_default());
        let undone = match failed.rollback() {
            Ok(report) => report,
            Err(failure) => failure.report(),
        };
        self.check_frame_rollback(message, Some(undone.succeeded()), &labels(undone));
        self.close(message);
        // What is left is no longer the drain's.
        self.frames[message].parent = self.frames[drain].parent;
        let source = self.call(message).source;
        let state = &mut self.run(drain).sources[source];
        state.active.retain(|active| *active != message);
        if panics {
            // The drain ends with both, and the message goes back.
            state.refused += 1;
            self.numbers.faults += 1;
            self.failed(drain, failed_by, true);
            self.failed(drain, Cause::DeadLetterPanic(message), true);
        } else {
            state.rolled_back += 1;
        }
    }

    pub fn drain_dropped(&mut self, drain: FrameId) {
        self.numbers.drops += 1;
        self.check_sources(drain);
        self.close(drain);
    }
}
