//! The future over all tasks of a group.
//!
//! A poll takes over the tasks that have arrived, drives those that were woken, and looks at the
//! board. Once the board has a cause to stop, the tasks have been told, and the wait goes on until
//! all of them have ended or the grace is over. Then the result is made, and what the tasks have
//! staged is rolled back if that was asked for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::{FuturesUnordered, StreamExt};

use super::members::Members;
use super::report::GroupReport;
use super::task::InPlace;
use crate::clock::Alarm;
use crate::error::{Error, ErrorCode};
use crate::operation::Limits;
use crate::panics;
use crate::step::ChildStep;
use crate::undo::Rollback;

/// Tasks that may end in one poll before the executor has its thread back.
const TASKS_PER_POLL: usize = 128;

/// The future of [`WaitGroup::wait`](super::WaitGroup::wait) and
/// [`ErrGroup::wait`](super::ErrGroup::wait).
///
/// # Cancel safety
///
/// Dropping it after its first poll ends the group: tasks in place are dropped where they are,
/// tasks on an executor hear it by their token. Every compensation is staged on the context's
/// scope.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::group::WaitGroup;
/// use watershed::{BoxError, StepContext};
///
/// let group = WaitGroup::new(&StepContext::new("orders"));
/// group.go("mail", async |_| Ok::<_, BoxError>(()))?;
/// let mut wait = group.wait();
/// assert_eq!((&mut wait).await?.succeeded(), 1);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a group's tasks do nothing unless it is awaited"]
pub struct GroupWait<'g, 'a> {
    members: &'g Members<'a>,
    stage: Stage<'a>,
}

enum Stage<'a> {
    /// Not polled so far.
    Waiting,
    Running(Box<Running<'a>>),
    RollingBack(Box<RollingBack>),
    Ended,
}

struct Running<'a> {
    tasks: FuturesUnordered<InPlace<'a>>,
    limits: Limits,
    grace: Option<Alarm>,
}

struct RollingBack {
    error: Error,
    rollback: Rollback,
    /// Behind the rollback, which puts back what it holds before the scope is handed over.
    _child: ChildStep,
}

impl<'g, 'a> GroupWait<'g, 'a> {
    pub(super) fn new(members: &'g Members<'a>) -> Self {
        Self { members, stage: Stage::Waiting }
    }

    fn begin(&mut self) -> Result<(), Error> {
        let Members { board, context, settings, .. } = self.members;
        let token = context.cancellation().clone();
        let limits = Limits::new(context.clock(), token, settings.timeout)?;
        if let Some(policy) = &settings.roll_back {
            policy.check()?;
        }
        board.begin()?;
        let running = Running { tasks: FuturesUnordered::new(), limits, grace: None };
        self.stage = Stage::Running(Box::new(running));
        Ok(())
    }

    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<Result<GroupReport, Error>> {
        if let Stage::Waiting = self.stage {
            self.begin()?;
        }
        if let Stage::Running(running) = &mut self.stage {
            ready!(running.poll_tasks(self.members, cx));
            let result = self.end();
            let child = self.members.take_child();
            match result {
                Ok(report) => return Poll::Ready(Ok(report)),
                Err(error) => self.roll_back(error, child)?,
            }
        }
        let Stage::RollingBack(rolling) = &mut self.stage else {
            return Poll::Ready(Err(Error::new(
                ErrorCode::Unspecified,
                "the wait had ended already",
            )));
        };
        let result = ready!(Pin::new(&mut rolling.rollback).poll(cx));
        Poll::Ready(Err(rolling.error.clone().with_related(result.err().map(Error::from))))
    }

    /// Ends the group, drops what is left of it, and makes its result.
    fn end(&mut self) -> Result<GroupReport, Error> {
        let board = &self.members.board;
        board.end();
        self.members.discard();
        self.stage = Stage::Ended;
        board.abort();
        board.result()
    }

    /// Begins the rollback, or returns the error where there is to be none.
    fn roll_back(&mut self, error: Error, child: Option<ChildStep>) -> Result<(), Error> {
        let policy = &self.members.settings.roll_back;
        let (Some(policy), Some(child)) = (policy, child) else { return Err(error) };
        let rollback = child.context().roll_back(policy);
        self.stage = Stage::RollingBack(Box::new(RollingBack { error, rollback, _child: child }));
        Ok(())
    }

    /// Ends the group for a panic of the clock, which keeps no other error from being told.
    fn break_off(&mut self, panic: Error) -> Result<GroupReport, Error> {
        match &self.stage {
            Stage::Waiting | Stage::Ended => Err(panic),
            Stage::Running(_) => {
                self.members.board.break_off(panic);
                let result = self.end();
                drop(self.members.take_child());
                result
            }
            Stage::RollingBack(rolling) => Err(rolling.error.clone().with_related([panic])),
        }
    }

    /// Ends the group wherever it is. What is staged goes to the context's scope.
    fn close(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        if let Stage::Waiting | Stage::Ended = stage {
            return;
        }
        self.members.board.end();
        drop(stage);
        self.members.discard();
        drop(self.members.take_child());
    }
}

impl<'a> Running<'a> {
    /// Until every task has ended, or the grace is over.
    fn poll_tasks(&mut self, members: &Members<'a>, cx: &mut Context<'_>) -> Poll<()> {
        let board = &members.board;
        if board.is_to_go_on() {
            if let Some(exceeded) = self.limits.exceeded() {
                board.stop_for(exceeded.into_error("the group"));
            }
        }
        self.tasks.extend(members.arrivals());
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
            let clock = members.context.clock();
            if let (Some(grace), None) = (members.settings.grace, &self.grace) {
                self.grace = Some(Alarm::grace(clock, grace));
            }
            if let Some(grace) = &mut self.grace {
                if grace.poll(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
        } else if let Poll::Ready(exceeded) = self.limits.poll_exceeded(cx) {
            board.stop_for(exceeded.into_error("the group"));
        }
        let more = left == 0 || members.has_arrivals();
        if more || !board.wait(news, cx.waker().clone()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Future for GroupWait<'_, '_> {
    type Output = Result<GroupReport, Error>;

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

impl Drop for GroupWait<'_, '_> {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for GroupWait<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Waiting => "waiting",
            Stage::Running(_) => "running",
            Stage::RollingBack(_) => "rolling back",
            Stage::Ended => "ended",
        };
        f.debug_struct("GroupWait").field("stage", &stage).field("group", self.members).finish()
    }
}
