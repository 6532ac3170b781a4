//! What the wait of a group does with the board: it begins, looks, waits for news, and makes the
//! result.

use std::task::Waker;

use super::board::{Board, check_limit};
use super::report::GroupReport;
use crate::error::{Error, Failure};
use crate::panics;

/// How a group has ended.
pub(super) type GroupVerdict<T> = Result<GroupReport<T>, Failure<GroupReport<T>>>;

impl<T> Board<T> {
    /// Whether nobody else awaits the group, or has.
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

    pub(super) fn check(&self) -> Result<(), Error> {
        self.state.lock().permits.limit().map_or(Ok(()), check_limit)
    }

    /// Whether tasks are still to be waited for and nothing has stopped the group. Forgets the waker
    /// of the last poll: tasks that are polled in this one need not wake it.
    pub(super) fn is_to_go_on(&self) -> bool {
        let (goes_on, old) = {
            let mut state = self.state.lock();
            let report = &state.report;
            let idle = report.additions > 0 && report.outstanding() == 0;
            let done = idle && state.is_complete();
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

    /// Ends the group if all of its tasks have ended, and none can come.
    pub(super) fn end_if_done(&self) -> bool {
        let mut state = self.state.lock();
        state.ended |= state.report.outstanding() == 0 && state.is_complete();
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
        let (left, cause, old) = {
            let mut state = self.state.lock();
            state.ended = true;
            (state.report.outstanding() > 0, state.cause.clone(), state.waiter.take())
        };
        panics::drop_each(old);
        if left {
            self.tell_to_stop(cause);
        }
    }

    /// The grace is over for tasks on an executor.
    pub(super) fn abort(&self) {
        self.abort.cancel();
    }

    /// The result of a group that has ended: the first cause with the others attached in the order
    /// of their tasks.
    pub(super) fn result(&self) -> GroupVerdict<T> {
        let (report, values, cause, mut failures, last) = {
            let mut state = self.state.lock();
            let failures = std::mem::take(&mut state.failures);
            let values = std::mem::take(&mut state.values);
            (state.report.clone(), values, state.cause.take(), failures, state.last.take())
        };
        let dropped = report.dropped;
        let report = report.with_values(values.in_order());
        let error = match cause.or_else(|| failures.take_first()) {
            Some(cause) => cause,
            // Tasks that never began, because the token was cancelled while others ran.
            None if dropped > 0 => self.outer.error(),
            None => return Ok(report),
        };
        Err(Failure::new(error.with_gathered(failures).with_related(last), report))
    }
}
