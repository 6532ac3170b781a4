//! What a drain says at its end, beside what happened.

use std::collections::BTreeMap;

use watershed::{Commit, Error, ErrorCode, FanInReport};

use super::super::program::Order;
use super::{Broke, Cause, Ended, FrameId, Kind, Model, Source, Stage};

impl Model {
    /// Which failure an error tells of.
    pub(super) fn classify(&self, drain: FrameId, error: &Error) -> Option<Cause> {
        let source = || error.source_name()?.strip_prefix("source ")?.parse::<usize>().ok();
        let message = || {
            let (source, number) = (source()?, error.message_number()?);
            self.frames.iter().position(|frame| match &frame.kind {
                Kind::Message(call) => {
                    call.drain == drain && call.source == source && call.index as u64 + 1 == number
                }
                _ => false,
            })
        };
        let text = error.to_string();
        match error.code() {
            ErrorCode::Handler => error.downcast_ref().map(|Broke(frame)| Cause::Handler(*frame)),
            ErrorCode::Source => source().map(Cause::Fault),
            ErrorCode::Panic if text.contains("the source") => source().map(Cause::SourcePanic),
            ErrorCode::Panic if text.contains("the dead letters") => {
                let failures = self.failures(drain).iter().map(|failed| failed.cause);
                failures.rev().find(|cause| matches!(cause, Cause::DeadLetterPanic(_)))
            }
            ErrorCode::Panic => message().map(Cause::HandlerPanic),
            ErrorCode::Timeout if error.source_name().is_some() => {
                message().map(Cause::MessageTimeout)
            }
            ErrorCode::Timeout => Some(Cause::Timeout),
            ErrorCode::Canceled => Some(Cause::Canceled),
            _ => None,
        }
    }

    pub fn drain_ended(
        &mut self,
        drain: FrameId,
        result: &Result<FanInReport, Error>,
        rest: &[usize],
    ) {
        self.world.note(format!("drain: {}", result.is_ok()));
        match result {
            Ok(report) => self.check_success(drain, report, rest),
            Err(error) => self.check_failure(drain, error),
        }
        self.check_sources(drain);
        if result.is_ok() {
            self.numbers.succeeded += 1;
            // One that is nested in a message is final when the message is (4.3).
            if self.run(drain).plan.commit == Commit::Pipeline && !self.is_in_message(drain) {
                self.commit(drain);
            }
        }
        self.close(drain);
    }

    pub(super) fn is_in_message(&self, frame: FrameId) -> bool {
        let mut outer = self.frames[frame].parent;
        loop {
            match self.frames[outer].kind {
                Kind::Root => return false,
                Kind::Message(_) => return true,
                Kind::Drain(_) | Kind::Timeout { .. } => outer = self.frames[outer].parent,
            }
        }
    }

    /// Rules 2.1 and 2.6: what was taken was handled, or put back.
    pub(super) fn check_sources(&mut self, drain: FrameId) {
        let ordered = self.run(drain).plan.keys.is_some();
        let mut called = BTreeMap::<usize, usize>::new();
        for frame in &self.frames {
            match &frame.kind {
                Kind::Message(call) if call.drain == drain => {
                    *called.entry(call.source).or_default() += 1;
                }
                _ => {}
            }
        }
        for source in 0..self.run(drain).sources.len() {
            let Source { taken, put_back, refused, .. } = self.run(drain).sources[source];
            let called = called.get(&source).copied().unwrap_or_default();
            let most = usize::from(ordered);
            // A message whose letter could not be stored was handled as well.
            let held = put_back.saturating_sub(if ordered { refused } else { 0 });
            self.must(held <= most && taken == called + held, || {
                format!(
                    "{taken} messages of {source} were taken, {called} handled, {put_back} put back"
                )
            });
        }
    }

    /// Rules 3.1 and 3.3: also where it was told to stop, or its time was over, at the very end.
    pub(super) fn check_success(&mut self, drain: FrameId, report: &FanInReport, rest: &[usize]) {
        let now = self.now();
        let run = self.run(drain);
        let mut wrong = Vec::new();
        if run.failures.iter().any(|failed| !matches!(failed.cause, Cause::MessageTimeout(_))) {
            wrong.push("something had failed");
        }
        // What has ended by the poll that would have seen it has succeeded.
        if run.stopped_outside.is_some_and(|at| at < now) {
            wrong.push("it was told to stop");
        }
        if run.plan.timeout.is_some_and(|timeout| now > run.started + timeout) {
            wrong.push("its time was over");
        }
        if run.dropping || run.sources.iter().any(|source| !source.active.is_empty()) {
            wrong.push("handlers had not ended");
        }
        // Rule 3.9: a drain that was shut down succeeds with what it did.
        let shut_down = run.shut_down_at.is_some();
        if !shut_down && rest.iter().any(|left| *left > 0) {
            wrong.push("sources had not ended");
        }
        if !shut_down && run.sources.iter().any(|source| !source.ended) {
            wrong.push("a source was not polled to its end");
        }
        let sources =
            report.sources().iter().zip(&run.sources).all(|(told, own)| {
                (told.handled(), told.failed()) == (own.succeeded, own.rolled_back)
            });
        if !sources || report.sources().len() != run.sources.len() {
            wrong.push("the report counts wrongly");
        }
        if report.elapsed() != now.since(run.started) {
            wrong.push("the report has another time");
        }
        for wrong in wrong {
            self.wrong(format!("the drain succeeded, but {wrong}: {report:?}"));
        }
    }

    pub fn source_ended(&mut self, drain: FrameId, source: usize) {
        let state = &mut self.run(drain).sources[source];
        let twice = std::mem::replace(&mut state.ended, true);
        self.must(!twice, || "a source was polled after its end".into());
    }

    /// Rules 3.2 to 3.6: the first cause is the cause, and nothing is lost.
    pub(super) fn check_failure(&mut self, drain: FrameId, error: &Error) {
        let now = self.now();
        let listed: Vec<_> = std::iter::once(error).chain(error.related()).collect();
        let listed: Vec<_> = listed.into_iter().map(|error| self.classify(drain, error)).collect();
        let dropped_handlers = self.frames.iter().enumerate().filter(|(id, frame)| {
            let listed = listed.contains(&Some(Cause::MessageTimeout(*id)));
            let dropped =
                matches!(&frame.kind, Kind::Message(call) if call.end == Some(Ended::Dropped));
            frame.parent == drain && dropped && !listed && frame.stage != Stage::Rolling
        });
        let unfinished = self.frames.iter().enumerate().filter(|(id, frame)| {
            let rolling = frame.stage == Stage::Rolling && frame.policy.order != Order::None;
            let left = |id: usize| self.staged(id).iter().any(|id| !frame.given_up.contains(id));
            frame.parent == drain && rolling && left(*id)
        });
        let dropped = [dropped_handlers.count(), unfinished.count()];
        let told = ["dropped_handlers", "dropped_rollbacks"].map(|key| {
            error.metadata(key).map_or(0, |count| count.parse::<usize>().unwrap_or(usize::MAX))
        });
        let run = self.run(drain);
        let mut wrong = Vec::new();
        let top = listed[0];
        let first = run.failures.iter().find(|failed| failed.ends);
        let deadline = run.deadline();
        let top_legal = match top {
            Some(Cause::Timeout) => {
                let before = first.is_some_and(|first| deadline.is_some_and(|at| first.at < at));
                deadline.is_some_and(|deadline| now >= deadline) && !before
            }
            Some(Cause::Canceled) => {
                run.token.is_cancelled()
                    && first
                        .is_none_or(|first| first.stopped_before || run.stopped_outside.is_none())
            }
            Some(cause) => {
                first.is_some_and(|first| first.cause == cause && (!first.stopped_before))
            }
            None => false,
        };
        if !top_legal {
            wrong.push(format!("it is not the first: {:?}", first.map(|first| first.cause)));
        }
        for (index, cause) in listed.iter().enumerate() {
            let known = run.failures.iter().any(|failed| Some(failed.cause) == *cause);
            let own = index == 0 && matches!(cause, Some(Cause::Timeout | Cause::Canceled));
            if !known && !own || listed[..index].contains(cause) {
                wrong.push(format!("{cause:?} is told, and did not happen, or once"));
            }
        }
        for failed in &run.failures {
            // The letter's error is attached to the message's.
            let may_be_dropped =
                matches!(failed.cause, Cause::MessageTimeout(_) | Cause::DeadLetterPanic(_));
            if !may_be_dropped && !listed.contains(&Some(failed.cause)) {
                wrong.push(format!("{:?} is not told", failed.cause));
            }
        }
        if told != dropped {
            wrong.push(format!("{told:?} handlers and rollbacks are dropped, not {dropped:?}"));
        }
        let handled: u64 = run.sources.iter().map(|source| source.succeeded).sum();
        if error.metadata("handled") != Some(&handled.to_string()) {
            wrong.push("the count of handled messages is wrong".into());
        }
        let cause_at = [run.cause_at, deadline].into_iter().flatten().min();
        if cause_at.is_some_and(|at| now > at.max(run.started) + run.plan.grace) {
            wrong.push("it has outlived its grace".into());
        }
        if top == Some(Cause::Timeout) {
            self.numbers.timeouts += 1;
        }
        for wrong in wrong {
            self.wrong(format!("the drain gave {error:?}, but {wrong}"));
        }
    }
}
