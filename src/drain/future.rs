//! What a drain is for its future: not started, running, or over.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::report::FanInReport;
use super::running::RunningDrain;
use super::start::Start;
use super::types::{DrainTypes, Drains};
use crate::error::{Error, Failure};
use crate::operation::{Operation, Output};
use crate::panics;

/// A drain that has not been polled.
#[expect(missing_debug_implementations, reason = "nobody can name it")]
pub struct Unstarted<C: DrainTypes>(Option<Start<C>>);

impl<C: DrainTypes> Unstarted<C> {
    pub(super) fn new(start: Start<C>) -> Self {
        Self(Some(start))
    }
}

impl<C: DrainTypes> Drop for Unstarted<C> {
    fn drop(&mut self) {
        if let Some(start) = self.0.take() {
            start.let_go();
        }
    }
}

/// A drain from its first poll to its result.
#[expect(missing_debug_implementations, reason = "nobody can name it")]
pub struct StartedDrain<C: DrainTypes> {
    running: Option<Box<RunningDrain<C>>>,
    /// Why it could not start.
    failed: Option<Error>,
}

/// Dropped before its result, a drain lets go of everything as at its end.
impl<C: DrainTypes> Drop for StartedDrain<C> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // What drops it was noted when it began: here nothing is known of its types.
            let drop_early = running.drop_early;
            drop_early(running);
        }
    }
}

impl<C: DrainTypes> Unpin for StartedDrain<C> {}

impl<C: Drains> Operation for Unstarted<C> {
    type Output = Result<FanInReport, Failure<FanInReport>>;
    type Running = StartedDrain<C>;

    fn start(mut self) -> StartedDrain<C> {
        let start = self.0.take();
        match panics::contain(|| start.map(|start| Box::new(RunningDrain::start(start)))) {
            Ok(running) => StartedDrain { running, failed: None },
            Err(message) => StartedDrain { running: None, failed: Some(blame(&message)) },
        }
    }

    fn poll(mut started: Pin<&mut StartedDrain<C>>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(running) = &mut started.running else {
            return Poll::Ready(match started.failed.take() {
                Some(error) => Output::over(error),
                None => Ok(FanInReport::default()),
            });
        };
        let span = running.span.clone();
        let polled = panics::contain(|| span.in_scope(|| running.poll(cx)));
        let result = match polled {
            Ok(polled) => ready!(polled),
            Err(message) => Err(blame(&message)),
        };
        match started.running.take() {
            Some(running) => Poll::Ready(running.finish(result)),
            None => Poll::Pending,
        }
    }
}

/// What may panic outside a turn is the clock, or a source that is asked for its name.
fn blame(message: &str) -> Error {
    Error::panic("the clock or a source", message)
}
