//! Operations side by side.
//!
//! Each of them is a step inside the step of the race, so whatever becomes of an operation (it
//! ends, it is dropped when the grace is over, or the whole race is) its compensations are on the
//! race's scope afterwards: there they are undone, or from there they go to the scope of the
//! context. The race, and not the operation, owns the step: it tells those that still run to stop
//! without telling the one that has won.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::stream::{FuturesUnordered, Stream};
use pin_project_lite::pin_project;

use crate::cancellation::CancellationToken;
use crate::clock::Alarm;
use crate::diagnostics::COUNTERS;
use crate::error::{BoxError, Error, ErrorCode};
use crate::operation::{DEFAULT_GRACE, Exceeded, Limits};
use crate::outcome::Contained;
use crate::panics::{self, Held};
use crate::step::{ChildStep, StepContext};
use crate::undo::{CompensationPolicy, Rollback};

/// Operations that may end before the executor has its thread back.
const ENDED_PER_POLL: usize = 128;

/// What all combinators can be told.
#[derive(Clone, Debug)]
pub(super) struct CombinatorOptions {
    pub(super) compensation: CompensationPolicy,
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) cancellation: CancellationToken,
}

impl Default for CombinatorOptions {
    fn default() -> Self {
        Self {
            compensation: CompensationPolicy::default(),
            timeout: None,
            grace: DEFAULT_GRACE,
            cancellation: CancellationToken::never(),
        }
    }
}

/// How an operation ended.
pub(super) struct EndedOperation<T> {
    pub(super) index: usize,
    /// Its step, with what it has staged.
    pub(super) step: ChildStep,
    pub(super) result: Result<Held<T>, Error>,
}

/// What happened next.
pub(super) enum RaceEvent<T> {
    Ended(EndedOperation<T>),
    /// The operations were told to stop because the race is to end.
    Over(Error),
    /// The grace is over; so many operations were dropped.
    Dropped(usize),
    AllEnded,
}

/// The index of an operation and what it returned; nothing if it was told to stop before it began.
type RaceOutcome<T> = (usize, Option<Result<Held<T>, Error>>);

pub(super) struct Race<F> {
    context: StepContext,
    /// What errors call it, such as "the operations".
    what: &'static str,
    limits: Limits,
    grace: Duration,
    running: Pin<Box<FuturesUnordered<F>>>,
    /// The steps of those that run, by their index. They end when the operations are gone.
    steps: BTreeMap<usize, ChildStep>,
    /// Where everything ends that the operations stage; the last to go.
    step: ChildStep,
    /// How long operations that were told to stop are still awaited: not at all without a clock.
    stopping: Option<Alarm>,
    /// The limits matter no more.
    decided: bool,
    budget: usize,
}

type RaceSettle<T, E> = fn(Result<T, E>) -> Result<Held<T>, Error>;

pin_project! {
    /// An operation in a race: called when it is first polled, unless its step was told to stop by
    /// then.
    pub(super) struct Entered<O, F, T, E> {
        index: usize,
        waiting: Option<(StepContext, Held<O>)>,
        #[pin]
        running: Option<Contained<F, RaceSettle<T, E>>>,
        // Why it could not be called.
        refused: Option<Error>,
    }
}

impl<O, F, T, E> Entered<O, F, T, E>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    pub(super) fn new(step: StepContext, index: usize, operation: Held<O>) -> Self {
        Self { index, waiting: Some((step, operation)), running: None, refused: None }
    }

    /// An operation that is called now.
    pub(super) fn called(index: usize, make: impl FnOnce() -> F) -> Self {
        let mut entered = Self { index, waiting: None, running: None, refused: None };
        match Contained::call("the operation", make, settle::<T, E> as RaceSettle<T, E>) {
            Ok(running) => entered.running = Some(running),
            Err(error) => entered.refused = Some(error),
        }
        entered
    }
}

fn settle<T, E: Into<BoxError>>(result: Result<T, E>) -> Result<Held<T>, Error> {
    match result {
        Ok(value) => Ok(Held::new(value)),
        Err(error) => Err(Error::from_error(ErrorCode::Unspecified, error)),
    }
}

impl<O, F, T, E> Future for Entered<O, F, T, E>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = RaceOutcome<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let index = *this.index;
        if let Some((step, operation)) = this.waiting.take() {
            if step.cancellation().is_cancelled() {
                return Poll::Ready((index, None));
            }
            let Some(operation) = operation.take() else { return Poll::Ready((index, None)) };
            let called = Self::called(index, move || operation(step));
            this.running.set(called.running);
            *this.refused = called.refused;
        }
        if let Some(error) = this.refused.take() {
            return Poll::Ready((index, Some(Err(error))));
        }
        let Some(running) = this.running.as_pin_mut() else { return Poll::Pending };
        running.poll(cx).map(|result| (index, Some(result)))
    }
}

impl<F> Race<F> {
    /// The timeout counts from now, unless there is a deadline that did so before. One that is to
    /// end already does not begin.
    pub(super) fn new(
        context: &StepContext,
        what: &'static str,
        options: &CombinatorOptions,
        deadline: Option<&Limits>,
    ) -> Result<Self, Error> {
        let step = ChildStep::new(context, None, &options.cancellation);
        let token = step.outer_token().clone();
        let limits = match deadline {
            Some(deadline) => deadline.under(token),
            None => Limits::new(context.clock(), token, options.timeout)?,
        };
        let exceeded = panics::contain(|| limits.exceeded())
            .map_err(|message| Error::panic("the clock", &message))?;
        if let Some(exceeded) = exceeded {
            return Err(exceeded.into_error(what));
        }
        Ok(Self {
            context: context.clone(),
            what,
            limits,
            grace: options.grace,
            running: Box::pin(FuturesUnordered::new()),
            steps: BTreeMap::new(),
            step,
            stopping: None,
            decided: false,
            budget: ENDED_PER_POLL,
        })
    }

    /// Adds an operation, which is given a step of its own.
    pub(super) fn add(&mut self, index: usize, operation: impl FnOnce(StepContext) -> F) {
        let step = ChildStep::new(self.step.context(), None, &CancellationToken::never());
        self.running.push(operation(step.step()));
        self.steps.insert(index, step);
    }

    /// Tells the operations that run to stop, and the limits not to matter any more.
    pub(super) fn stop(&mut self) {
        if std::mem::replace(&mut self.decided, true) {
            return;
        }
        self.steps.values().for_each(ChildStep::cancel);
        let clock = self.context.clock();
        self.stopping = panics::contain(|| Alarm::grace(clock, self.grace)).ok();
        if self.stopping.is_none() {
            COUNTERS.contained_panics.add(1);
        }
    }

    /// Asks the limits, unless they matter no more, and stops if the race is to end.
    fn over(&mut self, ask: impl FnOnce(&mut Limits) -> Option<Exceeded>) -> Option<Error> {
        if self.decided {
            return None;
        }
        let error = match panics::contain(|| ask(&mut self.limits)) {
            Ok(exceeded) => exceeded?.into_error(self.what),
            Err(message) => Error::panic("the clock", &message),
        };
        self.stop();
        Some(error)
    }

    /// Undoes everything that is on the scope of the race. What fails stays there, and goes to the
    /// scope of the context with the race.
    pub(super) fn roll_back(&self, policy: &CompensationPolicy) -> Rollback {
        // Under no token: what was told to stop is undone all the same.
        self.step.context().roll_back(policy)
    }
}

impl<T, F: Future<Output = RaceOutcome<T>>> Race<F> {
    /// Waits for the next thing to happen.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<RaceEvent<T>> {
        loop {
            // Asked first: an operation that fails because it was told to stop is not the cause.
            if let Some(error) = self.over(|limits| limits.exceeded()) {
                return Poll::Ready(RaceEvent::Over(error));
            }
            if self.budget == 0 {
                self.budget = ENDED_PER_POLL;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Poll::Ready(outcome) = self.running.as_mut().poll_next(cx) else { break };
            let Some((index, result)) = outcome else { return Poll::Ready(RaceEvent::AllEnded) };
            self.budget -= 1;
            if let (Some(step), Some(result)) = (self.steps.remove(&index), result) {
                return Poll::Ready(RaceEvent::Ended(EndedOperation { index, step, result }));
            }
        }
        self.budget = ENDED_PER_POLL;
        let waited = |limits: &mut Limits| match limits.poll_exceeded(cx) {
            Poll::Ready(exceeded) => Some(exceeded),
            Poll::Pending => None,
        };
        if let Some(error) = self.over(waited) {
            return Poll::Ready(RaceEvent::Over(error));
        }
        if !self.decided {
            return Poll::Pending;
        }
        if let Some(grace) = &mut self.stopping {
            let passed = panics::contain(|| grace.poll(cx));
            ready!(passed.unwrap_or_else(|_| {
                COUNTERS.contained_panics.add(1);
                Poll::Ready(())
            }));
        }
        let dropped = self.running.len();
        panics::drop_contained(|| self.running = Box::pin(FuturesUnordered::new()));
        self.steps.clear();
        Poll::Ready(RaceEvent::Dropped(dropped))
    }
}

/// Says how many operations were dropped when the grace was over. What an operation that failed
/// says of those within it does not count here.
pub(super) fn with_dropped(error: Error, dropped: usize) -> Error {
    let error = error.without_metadata("dropped_handlers");
    if dropped > 0 { error.with_metadata("dropped_handlers", dropped) } else { error }
}

/// Whoever still works for an operation hears that the race is gone.
impl<F> Drop for Race<F> {
    fn drop(&mut self) {
        self.steps.values().for_each(ChildStep::cancel);
    }
}
