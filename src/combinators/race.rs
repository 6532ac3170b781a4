//! Operations side by side.
//!
//! All of them are children of one step, so whatever becomes of an operation (it ends, it is
//! dropped when the grace is over, or the whole race is) its compensations are on that step's scope
//! afterwards: there they are undone, or from there they go to the scope of the context.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::stream::{FuturesUnordered, Stream};

use crate::cancellation::CancellationToken;
use crate::clock::Sleep;
use crate::compensation::{CompensationPolicy, CompensationScope, Rollback};
use crate::context::{ChildStep, StepContext};
use crate::error::{BoxError, Error, ErrorCode};
use crate::limits::{Exceeded, Limits};
use crate::outcome::Contained;
use crate::panics;

/// How an operation ended.
pub(super) struct Ended<T> {
    pub(super) index: usize,
    /// Its step, with what it has staged.
    pub(super) step: ChildStep,
    pub(super) result: Result<T, Error>,
}

/// What happened next.
pub(super) enum Event<T> {
    Ended(Ended<T>),
    /// The operations were told to stop because the race is to end.
    Exceeded(Exceeded),
    /// The grace is over; so many operations were dropped.
    Dropped(usize),
    AllEnded,
}

pub(super) struct Race<F> {
    context: StepContext,
    step: ChildStep,
    limits: Limits,
    grace: Duration,
    running: Pin<Box<FuturesUnordered<F>>>,
    /// How long operations that were told to stop are still awaited.
    stopping: Option<Sleep>,
    /// The limits matter no more.
    decided: bool,
}

/// Starts an operation as a child of `parent` when it is first polled.
pub(super) async fn enter<T, E, F>(
    parent: StepContext,
    index: usize,
    operation: impl FnOnce(StepContext) -> F,
) -> Ended<T>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    let step = ChildStep::new(&parent, None, &CancellationToken::never());
    let call = || operation(step.step());
    let settle = |result: Result<T, E>| {
        result.map_err(|error| Error::from_error(ErrorCode::Unspecified, error))
    };
    let result = match Contained::call("the operation", call, settle) {
        Ok(running) => running.await,
        Err(error) => Err(error),
    };
    Ended { index, step, result }
}

impl<T, F: Future<Output = Ended<T>>> Race<F> {
    /// The timeout counts from now.
    pub(super) fn new(
        context: &StepContext,
        token: &CancellationToken,
        timeout: Option<Duration>,
        grace: Duration,
    ) -> Self {
        let step = ChildStep::new(context, None, token);
        let limits = Limits::new(context.clock(), step.outer_token().clone(), timeout);
        Self {
            context: context.clone(),
            step,
            limits,
            grace,
            running: Box::pin(FuturesUnordered::new()),
            stopping: None,
            decided: false,
        }
    }

    /// The parent of the operations.
    pub(super) fn step(&self) -> StepContext {
        self.step.step()
    }

    /// Where everything ends that the operations stage.
    fn scope(&self) -> &CompensationScope {
        self.step.scope()
    }

    pub(super) fn add(&mut self, operation: F) {
        self.running.push(operation);
    }

    pub(super) fn exceeded(&self) -> Option<Exceeded> {
        self.limits.exceeded()
    }

    /// Tells the operations that run to stop, and the limits not to matter any more.
    pub(super) fn stop(&mut self) {
        self.decided = true;
        if self.stopping.is_none() {
            self.step.cancel();
            let clock = self.context.clock();
            self.stopping = Some(clock.sleep_until(clock.now() + self.grace));
        }
    }

    /// Waits for the next thing to happen.
    pub(super) async fn next(&mut self) -> Event<T> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event<T>> {
        // Asked first: an operation that fails because it was told to stop is not the cause.
        if let (false, Some(exceeded)) = (self.decided, self.limits.exceeded()) {
            self.stop();
            return Poll::Ready(Event::Exceeded(exceeded));
        }
        match self.running.as_mut().poll_next(cx) {
            Poll::Ready(Some(ended)) => return Poll::Ready(Event::Ended(ended)),
            Poll::Ready(None) => return Poll::Ready(Event::AllEnded),
            Poll::Pending => {}
        }
        if !self.decided {
            if let Poll::Ready(exceeded) = self.limits.poll_exceeded(cx) {
                self.stop();
                return Poll::Ready(Event::Exceeded(exceeded));
            }
        }
        let Some(grace) = &mut self.stopping else { return Poll::Pending };
        ready!(grace.as_mut().poll(cx));
        let dropped = self.running.len();
        panics::drop_contained(|| self.running = Box::pin(FuturesUnordered::new()));
        Poll::Ready(Event::Dropped(dropped))
    }

    /// Undoes everything that is on the scope of the race. What fails stays there, and goes to the
    /// scope of the context with the race.
    pub(super) fn roll_back(&self, policy: &CompensationPolicy) -> Rollback {
        let policy = policy.clone().clock_or(self.context.clock());
        self.scope().run_compensation(&policy, CancellationToken::never())
    }
}
