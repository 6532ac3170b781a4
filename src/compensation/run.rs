//! One action on its way, over all its attempts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::CompensationPolicy;
use super::action::BoxAttempt;
use super::columns::Columns;
use super::report::FailedAction;
use crate::clock::Sleep;
use crate::diagnostics::{COUNTERS, trace};
use crate::error::Error;
use crate::panics;

/// Runs actions that were taken out of a scope, the last one first. An action stays among those
/// taken while it runs, so that it can go back.
pub(super) struct Run {
    policy: Arc<CompensationPolicy>,
    pub(super) taken: Columns,
    /// The column whose last action is running.
    current: Option<usize>,
    attempt: Option<BoxAttempt>,
    pause: Option<Sleep>,
    attempts: u32,
}

impl Run {
    pub(super) fn new(policy: Arc<CompensationPolicy>) -> Self {
        let taken = Columns::default();
        Self { policy, taken, current: None, attempt: None, pause: None, attempts: 0 }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    /// Turns to the last action of those taken.
    pub(super) fn start(&mut self) {
        self.current = self.taken.find_last();
        self.attempts = 0;
    }

    /// Takes out what was taken and not started.
    pub(super) fn take_rest(&mut self) -> Columns {
        if self.taken.len() == usize::from(self.is_busy()) {
            return Columns::default();
        }
        let Some(column) = self.current else { return std::mem::take(&mut self.taken) };
        let mut running = Columns::default();
        self.taken.move_last(column, &mut running);
        self.current = running.find_last();
        std::mem::replace(&mut self.taken, running)
    }

    /// Stops in the middle; the action stays among those taken.
    pub(super) fn abandon(&mut self) {
        panics::drop_each(self.attempt.take());
        panics::drop_each(self.pause.take());
        self.current = None;
    }

    /// Polls the action that runs until it has succeeded, and is gone, or failed for good.
    pub(super) fn poll_action(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<Failed>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let Err(error) = ready!(self.poll_attempt(cx)) else { return Poll::Ready(Ok(())) };
            if let Some(failed) = self.pause_or_give_up(error) {
                return Poll::Ready(Err(failed));
            }
            if self.pause.is_none() {
                // Between attempts that do not wait, others get their turn.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// What becomes of an attempt that failed: a pause, another attempt at once, or the end.
    #[cold]
    fn pause_or_give_up(&mut self, error: Error) -> Option<Box<Failed>> {
        let column = self.current?;
        match self.policy.retry.wait_after_error(self.attempts, &error) {
            Some(wait) if wait.is_zero() => None,
            Some(wait) => {
                self.pause = Some(self.policy.sleep(wait));
                None
            }
            None => Some(Box::new(self.give_up(column, error))),
        }
    }

    fn give_up(&mut self, column: usize, error: Error) -> Failed {
        self.current = None;
        let (label, registered_at) = self.taken.describe(column);
        trace::compensated(|| (label.clone(), registered_at), self.attempts, Some(&error));
        let mut action = Columns::default();
        self.taken.move_last(column, &mut action);
        let failure = FailedAction { label, registered_at, attempts: self.attempts, error };
        Failed { action, failure }
    }

    /// Polls the attempt that runs, or the next one. The action is gone when it has succeeded.
    fn poll_attempt(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { taken, current, attempt, attempts, .. } = self;
        let Some(column) = *current else { return Poll::Ready(Ok(())) };
        let mut result = Poll::Pending;
        // All of the user's code at once: the attempt, its destructor and that of the action.
        let contained = panics::contain(|| {
            let running = attempt.get_or_insert_with(|| {
                *attempts += 1;
                taken.attempt(column)
            });
            result = running.as_mut().poll(cx);
            if result.is_ready() {
                *attempt = None;
            }
            if let Poll::Ready(Ok(())) = result {
                trace::compensated(|| taken.describe(column), *attempts, None);
                *current = None;
                taken.drop_last(column);
            }
        });
        if let Err(message) = contained {
            if result.is_pending() {
                panics::drop_each(self.attempt.take());
                return Poll::Ready(Err(Error::panic("the compensation", &message)));
            }
            // It had done its work: a destructor that panics afterwards does not undo that.
            COUNTERS.contained_panics.add(1);
            if matches!(result, Poll::Ready(Ok(()))) && self.current.take().is_some() {
                trace::compensated(|| self.taken.describe(column), self.attempts, None);
                panics::drop_contained(|| self.taken.drop_last(column));
            }
        }
        result
    }
}

/// An action that failed for good, and how.
pub(super) struct Failed {
    pub(super) action: Columns,
    pub(super) failure: FailedAction,
}

/// A run of one action, for rollbacks that run many at once.
impl Future for Run {
    type Output = Result<(), Box<Failed>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_action(cx)
    }
}
