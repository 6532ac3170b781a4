//! Where the tasks of a group post how they ended, and the wait reads it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::permits::{Permit, Permits};
use super::report::{GroupReport, Values};
use crate::cancellation::{CancellationSource, CancellationToken};
use crate::diagnostics::COUNTERS;
use crate::drain::OnFailure;
use crate::error::{Error, ErrorCode, Gathered};
use crate::lock::Lock;
use crate::panics;

/// How a task ended.
pub(super) enum EndedTask<T> {
    Succeeded(T),
    Failed(Error),
    /// The group dropped it; with the panic of its destructor.
    Dropped(Option<Error>),
}

pub(super) struct Board<T> {
    /// The token of the group's context.
    pub(super) outer: CancellationToken,
    /// Tells the tasks to stop.
    pub(super) stop: CancellationSource,
    /// Tells tasks on an executor that their grace is over.
    pub(super) abort: CancellationSource,
    pub(super) state: Lock<BoardState<T>>,
}

pub(super) struct BoardState<T> {
    pub(super) report: GroupReport,
    pub(super) values: Values<T>,
    /// What a failure does to the others.
    pub(super) on_failure: OnFailure,
    pub(super) permits: Permits,
    /// The number of the next task: its place in the order of the additions.
    next: u64,
    /// Those who can add tasks.
    pub(super) handles: usize,
    /// No task is admitted any more.
    pub(super) closed: bool,
    /// Why the group stops, once it does.
    pub(super) cause: Option<Error>,
    /// Every other failure, by the number of its task.
    pub(super) failures: Gathered,
    /// An error that belongs to no task, behind those of all tasks.
    pub(super) last: Option<Error>,
    pub(super) awaited: bool,
    pub(super) ended: bool,
    pub(super) waiter: Option<Waker>,
    /// Grows with everything that whoever waits has to hear of.
    pub(super) news: u64,
}

impl<T> BoardState<T> {
    pub(super) fn tell(&mut self) -> Option<Waker> {
        self.news += 1;
        self.waiter.take()
    }

    /// Whether no task can come any more that would be run.
    pub(super) fn is_complete(&self) -> bool {
        self.closed || self.handles == 0 || self.cause.is_some()
    }
}

impl<T> Board<T> {
    /// With one handle.
    pub(super) fn new(outer: CancellationToken) -> Arc<Self> {
        let state = BoardState {
            report: GroupReport::default(),
            values: Values::default(),
            on_failure: OnFailure::default(),
            permits: Permits::default(),
            next: 0,
            handles: 1,
            closed: false,
            cause: None,
            failures: Gathered::default(),
            last: None,
            awaited: false,
            ended: false,
            waiter: None,
            news: 0,
        };
        let (stop, abort) = (CancellationSource::new(), CancellationSource::new());
        Arc::new(Self { outer, stop, abort, state: Lock::new(state) })
    }

    /// Counts a task in and gives it its number; one that `needs_room` only where it can begin now.
    pub(super) fn admit(&self, needs_room: bool) -> Result<u64, Error> {
        let mut state = self.state.lock();
        if state.ended {
            return Err(Error::validation("the group has ended"));
        }
        if state.closed {
            return Err(Error::validation("the group is closed"));
        }
        if let Some(limit) = state.permits.limit() {
            check_limit(limit)?;
            if needs_room && state.report.outstanding() >= limit as u64 {
                let message = "as many tasks as may run at once are there";
                return Err(Error::new(ErrorCode::ChannelFull, message));
            }
        }
        state.report.additions += 1;
        state.next += 1;
        let number = state.next;
        drop(state);
        COUNTERS.tasks_added.add(1);
        Ok(number)
    }

    /// Takes back the addition of a task that nobody wanted to run.
    pub(super) fn retract(&self) {
        let waiter = {
            let mut state = self.state.lock();
            state.report.additions -= 1;
            state.tell()
        };
        COUNTERS.tasks_dropped.add(1);
        panics::wake_each(waiter);
    }

    /// Ready when a task may begin.
    pub(super) fn poll_permit(&self, permit: &mut Permit, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let (may_begin, unused) = self.state.lock().permits.ask(permit, waker);
        panics::drop_each(unused);
        if may_begin { Poll::Ready(()) } else { Poll::Pending }
    }

    /// A task does not run any more, or never will.
    pub(super) fn give_back(&self, permit: Permit) {
        let (next, unused) = self.state.lock().permits.give_back(permit);
        panics::drop_each(unused);
        panics::wake_each(next);
    }

    /// So many tasks may run at once.
    pub(super) fn set_limit(&self, limit: usize) {
        let woken = self.state.lock().permits.set_limit(limit);
        panics::wake_each(woken);
    }

    /// Notes how a task ended. What it staged has been handed over before.
    pub(super) fn post(&self, number: u64, ended: EndedTask<T>) {
        // The context was cancelled before this task ended, whether or not the wait has seen it:
        // that stops the group, and not a task that fails because of it.
        let cancelled = self.outer.is_cancelled() && !matches!(ended, EndedTask::Dropped(_));
        let counter = match &ended {
            EndedTask::Succeeded(_) => &COUNTERS.tasks_succeeded,
            EndedTask::Failed(_) => &COUNTERS.tasks_failed,
            EndedTask::Dropped(_) => &COUNTERS.tasks_dropped,
        };
        counter.add(1);
        let (mut unkept, mut late, mut stops) = (None, None, None);
        let waiter = {
            let mut state = self.state.lock();
            let state = &mut *state;
            if cancelled && state.cause.is_none() {
                stops = Some(self.outer.error());
                state.cause.clone_from(&stops);
            }
            match ended {
                EndedTask::Succeeded(value) => {
                    state.report.succeeded += 1;
                    if state.ended {
                        late = Some(value);
                    } else {
                        state.values.keep(number, value);
                    }
                }
                EndedTask::Failed(error)
                    if state.on_failure == OnFailure::Abort && state.cause.is_none() =>
                {
                    state.report.failed += 1;
                    stops = Some(error.clone());
                    state.cause = Some(error);
                }
                EndedTask::Failed(error) => {
                    state.report.failed += 1;
                    unkept = state.failures.add(number, error);
                }
                EndedTask::Dropped(panicked) => {
                    state.report.dropped += 1;
                    unkept = panicked.and_then(|error| state.failures.add(number, error));
                }
            }
            state.tell()
        };
        drop(unkept);
        panics::drop_each(late);
        if let Some(cause) = stops {
            self.tell_to_stop(Some(cause));
        }
        panics::wake_each(waiter);
    }

    /// Tells every task to stop. Those that wait for a permit are let through to hear it.
    pub(super) fn tell_to_stop(&self, cause: Option<Error>) {
        match cause {
            Some(cause) => self.stop.cancel_with(cause),
            None => self.stop.cancel(),
        }
        let woken = self.state.lock().permits.open();
        panics::wake_each(woken);
    }

    /// Stops the group for this reason, unless it has one already.
    pub(super) fn stop_for(&self, cause: Error) {
        let (waiter, unused) = {
            let mut state = self.state.lock();
            let unused = if state.cause.is_none() && !state.ended {
                state.cause = Some(cause.clone());
                None
            } else {
                Some(cause.clone())
            };
            (state.tell(), unused)
        };
        drop(unused);
        self.tell_to_stop(Some(cause));
        panics::wake_each(waiter);
    }

    /// No task is admitted any more.
    pub(super) fn close(&self) {
        let waiter = {
            let mut state = self.state.lock();
            state.closed = true;
            state.tell()
        };
        panics::wake_each(waiter);
    }

    /// Lets whoever waits look again.
    pub(super) fn wake(&self) {
        let waiter = self.state.lock().tell();
        panics::wake_each(waiter);
    }

    pub(super) fn add_handle(&self) {
        self.state.lock().handles += 1;
    }

    /// A handle is gone. Whether nobody is left who could add tasks or await them.
    pub(super) fn drop_handle(&self) -> bool {
        let (waiter, alone) = {
            let mut state = self.state.lock();
            state.handles -= 1;
            let last = state.handles == 0;
            (last.then(|| state.tell()).flatten(), last && !state.awaited)
        };
        panics::wake_each(waiter);
        alone
    }

    pub(super) fn report(&self) -> GroupReport {
        self.state.lock().report.clone()
    }

    pub(super) fn on_failure(&self) -> OnFailure {
        self.state.lock().on_failure
    }

    pub(super) fn set_on_failure(&self, on_failure: OnFailure) {
        self.state.lock().on_failure = on_failure;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// What ends a task on an executor after the grace.
    pub(super) fn abort_token(&self) -> CancellationToken {
        self.abort.token()
    }
}

pub(super) fn check_limit(limit: usize) -> Result<(), Error> {
    if limit == 0 {
        return Err(Error::validation("`concurrency` must not be 0"));
    }
    Ok(())
}
