//! Where the tasks of a group post how they ended, and the wait reads it.

use std::sync::Arc;
use std::task::Waker;

use super::report::GroupReport;
use crate::cancellation::{CancellationSource, CancellationToken};
use crate::diagnostics::COUNTERS;
use crate::error::{Error, Gathered};
use crate::lock::Lock;
use crate::panics;

/// How a task ended.
pub(super) enum Ended {
    Succeeded,
    Failed(Error),
    /// The group dropped it; with the panic of its destructor.
    Dropped(Option<Error>),
}

pub(super) struct Board {
    /// Whether the first failure stops the group.
    fail_fast: bool,
    /// The token of the group's context.
    outer: CancellationToken,
    /// Tells the tasks to stop.
    stop: CancellationSource,
    /// Tells tasks on an executor that their grace is over.
    abort: CancellationSource,
    state: Lock<State>,
}

#[derive(Default)]
struct State {
    report: GroupReport,
    /// The number of the next task: its place in the order of the additions.
    next: u64,
    /// Why the group stops, once it does.
    cause: Option<Error>,
    /// Every other failure, by the number of its task.
    failures: Gathered,
    /// An error that belongs to no task, behind those of all tasks.
    last: Option<Error>,
    awaited: bool,
    ended: bool,
    waiter: Option<Waker>,
    /// Grows with everything that whoever waits has to hear of.
    news: u64,
}

impl State {
    fn tell(&mut self) -> Option<Waker> {
        self.news += 1;
        self.waiter.take()
    }
}

impl Board {
    pub(super) fn new(
        fail_fast: bool,
        outer: CancellationToken,
        stop: CancellationSource,
    ) -> Arc<Self> {
        let abort = CancellationSource::new();
        Arc::new(Self { fail_fast, outer, stop, abort, state: Lock::default() })
    }

    /// Counts a task in and gives it its number.
    pub(super) fn admit(&self) -> Result<u64, Error> {
        let mut state = self.state.lock();
        if state.ended {
            return Err(Error::validation("the group has ended"));
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

    /// Notes how a task ended. What it staged has been handed over before.
    pub(super) fn post(&self, number: u64, ended: Ended) {
        // The context was cancelled before this task ended, whether or not the wait has seen it:
        // that stops the group, and not a task that fails because of it.
        let cancelled = self.outer.is_cancelled() && !matches!(ended, Ended::Dropped(_));
        let counter = match &ended {
            Ended::Succeeded => &COUNTERS.tasks_succeeded,
            Ended::Failed(_) => &COUNTERS.tasks_failed,
            Ended::Dropped(_) => &COUNTERS.tasks_dropped,
        };
        counter.add(1);
        let (waiter, stops, unkept) = {
            let mut state = self.state.lock();
            let mut unkept = None;
            let mut stops = cancelled && state.cause.is_none();
            if stops {
                state.cause = Some(self.outer.error());
            }
            match ended {
                Ended::Succeeded => state.report.succeeded += 1,
                Ended::Failed(error) if self.fail_fast && state.cause.is_none() => {
                    state.report.failed += 1;
                    state.cause = Some(error);
                    stops = true;
                }
                Ended::Failed(error) => {
                    state.report.failed += 1;
                    unkept = state.failures.add(number, error);
                }
                Ended::Dropped(panicked) => {
                    state.report.dropped += 1;
                    unkept = panicked.and_then(|error| state.failures.add(number, error));
                }
            }
            (state.tell(), stops, unkept)
        };
        drop(unkept);
        if stops {
            self.stop.cancel();
        }
        panics::wake_each(waiter);
    }

    /// Stops the group for this reason, unless it has one already.
    pub(super) fn stop_for(&self, cause: Error) {
        let (waiter, unused) = {
            let mut state = self.state.lock();
            let unused = if state.cause.is_none() && !state.ended {
                state.cause = Some(cause);
                None
            } else {
                Some(cause)
            };
            (state.tell(), unused)
        };
        drop(unused);
        self.stop.cancel();
        panics::wake_each(waiter);
    }

    /// Lets whoever waits look again.
    pub(super) fn wake(&self) {
        let waiter = self.state.lock().tell();
        panics::wake_each(waiter);
    }

    pub(super) fn report(&self) -> GroupReport {
        self.state.lock().report
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// What ends a task on an executor after the grace.
    pub(super) fn abort_token(&self) -> CancellationToken {
        self.abort.token()
    }
}

/// What the wait does.
impl Board {
    /// Begins a wait. There is one at a time, and none after the end.
    pub(super) fn begin(&self) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state.ended {
            return Err(Error::validation("the group has ended"));
        }
        if std::mem::replace(&mut state.awaited, true) {
            return Err(Error::validation("the group is being awaited already"));
        }
        Ok(())
    }

    /// Whether tasks are still to be waited for and nothing has stopped the group. Forgets the waker
    /// of the last poll: tasks that are polled in this one need not wake it.
    pub(super) fn is_to_go_on(&self) -> bool {
        let (goes_on, old) = {
            let mut state = self.state.lock();
            let report = state.report;
            let done = report.additions > 0 && report.outstanding() == 0;
            (state.cause.is_none() && !done, state.waiter.take())
        };
        panics::drop_each(old);
        goes_on
    }

    pub(super) fn news(&self) -> u64 {
        self.state.lock().news
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state.lock().cause.is_some()
    }

    /// Notes an error that belongs to no task: the cause, or behind those of all tasks.
    pub(super) fn break_off(&self, error: Error) {
        let old = {
            let mut state = self.state.lock();
            if state.cause.is_none() {
                state.cause.replace(error)
            } else {
                state.last.replace(error)
            }
        };
        drop(old);
    }

    /// Ends the group if all of its tasks have ended.
    pub(super) fn end_if_done(&self) -> bool {
        let mut state = self.state.lock();
        state.ended |= state.report.outstanding() == 0;
        state.ended
    }

    /// Waits for news, unless there were some since `before`.
    pub(super) fn wait(&self, before: u64, waker: Waker) -> bool {
        let old = {
            let mut state = self.state.lock();
            if state.news != before {
                return false;
            }
            state.waiter.replace(waker)
        };
        panics::drop_each(old);
        true
    }

    /// Ends the group: no task is admitted from now on, and those that are left are told to stop.
    pub(super) fn end(&self) {
        let (left, old) = {
            let mut state = self.state.lock();
            state.ended = true;
            (state.report.outstanding() > 0, state.waiter.take())
        };
        panics::drop_each(old);
        if left {
            self.stop.cancel();
        }
    }

    /// The grace is over for tasks on an executor.
    pub(super) fn abort(&self) {
        self.abort.cancel();
    }

    /// The result of a group that has ended: the first cause with the others attached in the order
    /// of their tasks.
    pub(super) fn result(&self) -> Result<GroupReport, Error> {
        let (report, cause, mut failures, last) = {
            let mut state = self.state.lock();
            let failures = std::mem::take(&mut state.failures);
            (state.report, state.cause.take(), failures, state.last.take())
        };
        let error = match cause.or_else(|| failures.take_first()) {
            Some(cause) => cause,
            // Tasks that never began, because the token was cancelled while others ran.
            None if report.dropped > 0 => Error::canceled(),
            None => return Ok(report),
        };
        // A nested group may have counted its own.
        let mut error = error.without_metadata("dropped_tasks").without_metadata("detached_tasks");
        error = error.with_metadata("succeeded", report.succeeded);
        error = error.with_metadata("failed", report.failed);
        if report.dropped > 0 {
            error = error.with_metadata("dropped_tasks", report.dropped);
        }
        if report.outstanding() > 0 {
            error = error.with_metadata("detached_tasks", report.outstanding());
        }
        Err(error.with_gathered(failures).with_related(last))
    }
}
