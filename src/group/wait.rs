//! The future over all tasks of a group.
//!
//! A poll takes over the tasks that have arrived, drives those that were woken, and looks at the
//! board. Once the board has a cause to stop, the tasks have been told, and the wait goes on until
//! all of them have ended or the grace is over. Then the result is made, and what the tasks have
//! staged is rolled back if that was asked for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::stream::{FuturesUnordered, StreamExt};

use super::report::GroupReport;
use super::shared::{GroupShared, RollBack};
use super::task::InPlace;
use super::verdict::GroupVerdict;
use crate::clock::Alarm;
use crate::error::{Error, ErrorCode, Failure};
use crate::operation::Limits;
use crate::panics;
use crate::step::ChildStep;
use crate::undo::Rollback;

/// Tasks that may end in one poll before the executor has its thread back.
const TASKS_PER_POLL: usize = 128;

/// The wait for a group. Dropping it ends the group.
pub(super) struct GroupWait<'a, T> {
    shared: Arc<GroupShared<'a, T>>,
    stage: WaitStage<'a, T>,
}

enum WaitStage<'a, T> {
    /// Somebody else awaits the group, or has.
    Refused(Error),
    /// Not polled so far.
    Waiting,
    Running(Box<RunningGroup<'a>>),
    RollingBack(Box<RollingBack<T>>),
    Ended,
}

struct RunningGroup<'a> {
    tasks: FuturesUnordered<InPlace<'a>>,
    limits: Limits,
    grace: Option<Alarm>,
}

struct RollingBack<T> {
    error: Error,
    report: GroupReport<T>,
    rollback: Rollback,
    /// Behind the rollback, which puts back what it holds before the scope is handed over.
    _step: ChildStep,
}

impl<'a, T> GroupWait<'a, T> {
    pub(super) fn new(shared: Arc<GroupShared<'a, T>>) -> Self {
        let stage = shared.board.begin().map_or_else(WaitStage::Refused, |()| WaitStage::Waiting);
        Self { shared, stage }
    }

    fn begin(&mut self) -> Result<(), Error> {
        let GroupShared { board, context, settings, .. } = &*self.shared;
        let timeout = {
            let settings = settings.lock();
            if let Some(roll_back) = &settings.roll_back {
                roll_back.policy.check()?;
                if roll_back.late {
                    let message = "`roll_back` is said before tasks are added";
                    return Err(Error::validation(message));
                }
            }
            settings.timeout
        };
        board.check()?;
        let limits = Limits::new(context.clock(), context.cancellation().clone(), timeout)?;
        let running = RunningGroup { tasks: FuturesUnordered::new(), limits, grace: None };
        self.stage = WaitStage::Running(Box::new(running));
        Ok(())
    }

    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<GroupVerdict<T>> {
        if let WaitStage::Waiting = self.stage {
            if let Err(error) = self.begin() {
                self.close();
                return Poll::Ready(Err(self.refused(error)));
            }
        }
        if let WaitStage::Running(running) = &mut self.stage {
            ready!(running.poll_tasks(&self.shared, cx));
            let result = self.end();
            match (result, self.shared.take_roll_back()) {
                (Err(failure), Some(roll_back)) => self.roll_back(failure, roll_back),
                (result, _) => return Poll::Ready(result),
            }
        }
        match &mut self.stage {
            WaitStage::RollingBack(rolling) => {
                let result = ready!(Pin::new(&mut rolling.rollback).poll(cx));
                let report = std::mem::take(&mut rolling.report);
                let error = rolling.error.clone();
                let error = error.with_related(result.err().map(Error::from));
                Poll::Ready(Err(Failure::new(error, report)))
            }
            WaitStage::Refused(error) => {
                let error = error.clone();
                Poll::Ready(Err(self.refused(error)))
            }
            _ => {
                let error = Error::new(ErrorCode::Unspecified, "the wait had ended already");
                Poll::Ready(Err(self.refused(error)))
            }
        }
    }

    /// The wait says no more than how many tasks there are.
    fn refused(&self, error: Error) -> Failure<GroupReport<T>> {
        Failure::new(error, self.shared.board.report().with_values(Vec::new()))
    }

    /// Ends the group, drops what is left of it, and makes its result.
    fn end(&mut self) -> GroupVerdict<T> {
        let board = &self.shared.board;
        board.end();
        self.shared.discard();
        self.stage = WaitStage::Ended;
        board.abort();
        board.result()
    }

    fn roll_back(&mut self, failure: Failure<GroupReport<T>>, roll_back: RollBack) {
        let RollBack { policy, step, .. } = roll_back;
        let (error, report) = failure.into_parts();
        let rollback = step.context().roll_back(&policy);
        let rolling = RollingBack { error, report, rollback, _step: step };
        self.stage = WaitStage::RollingBack(Box::new(rolling));
    }

    /// Ends the group for a panic of the clock, which keeps no other error from being told.
    fn break_off(&mut self, panic: Error) -> GroupVerdict<T> {
        match &mut self.stage {
            WaitStage::Running(_) => {
                self.shared.board.break_off(panic);
                let result = self.end();
                drop(self.shared.take_roll_back());
                result
            }
            WaitStage::RollingBack(rolling) => {
                let report = std::mem::take(&mut rolling.report);
                Err(Failure::new(rolling.error.clone().with_related([panic]), report))
            }
            _ => Err(self.refused(panic)),
        }
    }

    /// Ends the group wherever it is. What is staged goes to the context's scope.
    fn close(&mut self) {
        let stage = std::mem::replace(&mut self.stage, WaitStage::Ended);
        if let WaitStage::Refused(_) | WaitStage::Ended = stage {
            return;
        }
        self.shared.board.end();
        drop(stage);
        self.shared.end();
    }
}

impl<'a> RunningGroup<'a> {
    /// Until every task has ended, or the grace is over.
    fn poll_tasks<T>(&mut self, shared: &GroupShared<'a, T>, cx: &mut Context<'_>) -> Poll<()> {
        let board = &shared.board;
        if board.is_to_go_on() {
            if let Some(exceeded) = self.limits.exceeded() {
                board.stop_for(exceeded.into_error("the group"));
            }
        }
        self.tasks.extend(shared.arrivals());
        let mut left = TASKS_PER_POLL;
        while left > 0 && self.tasks.poll_next_unpin(cx) == Poll::Ready(Some(())) {
            left -= 1;
        }
        // Read before the looks below: whatever comes after them is news.
        let news = board.news();
        if board.end_if_done() {
            return Poll::Ready(());
        }
        if board.is_stopping() {
            // The clock is somebody else's code: not under the lock.
            let grace = shared.settings.lock().grace;
            if let (Some(grace), None) = (grace, &self.grace) {
                self.grace = Some(Alarm::grace(shared.context.clock(), grace));
            }
            if let Some(grace) = &mut self.grace {
                if grace.poll(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
        } else if let Poll::Ready(exceeded) = self.limits.poll_exceeded(cx) {
            board.stop_for(exceeded.into_error("the group"));
        }
        let more = left == 0 || shared.has_arrivals();
        if more || !board.wait(news, cx.waker().clone()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// Nothing is pinned but boxes.
impl<T> Unpin for GroupWait<'_, T> {}

impl<T> Future for GroupWait<'_, T> {
    type Output = GroupVerdict<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What may panic here outside the tasks and the rollback is the clock.
        let result = match panics::contain(|| self.poll_stage(cx)) {
            Ok(poll) => ready!(poll),
            Err(message) => self.break_off(Error::panic("the clock", &message)),
        };
        self.close();
        Poll::Ready(result)
    }
}

impl<T> Drop for GroupWait<'_, T> {
    fn drop(&mut self) {
        self.close();
    }
}
