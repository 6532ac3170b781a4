//! The first operation that succeeds.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::race::{CombinatorOptions, EndedOperation, Entered, Race, RaceEvent, with_dropped};
use super::winner::Winner;
use crate::error::{BoxError, Error, ErrorCode, Gathered};
use crate::operation::{Limits, Operation, OperationFuture, option};
use crate::panics::{Held, HeldEach};
use crate::step::StepContext;
use crate::undo::Rollback;

/// Runs all operations side by side until one succeeds.
///
/// The others are told to stop and awaited for the grace; what they have done is undone, whether
/// they failed or succeeded later. The winner's compensations are staged on the context's scope.
///
/// # Errors
///
/// - [`ErrorCode::Validation`]: there are no operations
/// - [`ErrorCode::Aggregate`]: all failed; the first 31 of their errors are attached in the
///   operations' order, and the others counted ([`Error::related_total`])
/// - [`ErrorCode::Canceled`]: all were cancelled, or the token was before there was a winner;
///   before the first poll, no operation is called
/// - [`ErrorCode::Timeout`], [`ErrorCode::Clock`] when there is a timeout and the clock cannot
///   wait, [`ErrorCode::Panic`] when it panicked
///
/// Everything the operations did is undone then; an error of the rollback is attached last, and
/// what could not be undone is staged on the context's scope. The metadata `dropped_handlers`
/// says how many operations were dropped when the grace was over, if any were.
///
/// # Cancel safety
///
/// Dropping the future drops the operations where they are; what they have staged is on the
/// context's scope.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{StepContext, combinators::when_any};
///
/// let context = StepContext::new("lookup");
/// let mirrors = ["down", "near", "far"].map(|mirror| {
///     move |_: StepContext| async move {
///         if mirror == "down" { Err("no connection") } else { Ok(mirror) }
///     }
/// });
/// let winner = when_any(&context, mirrors).await?;
/// assert_eq!((winner.index(), winner.into_value()), (1, "near"));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn when_any<I: IntoIterator>(context: &StepContext, operations: I) -> WhenAny<I::Item> {
    WhenAny {
        context: context.clone(),
        operations: operations.into_iter().collect(),
        options: CombinatorOptions::default(),
    }
}

/// Operations that have not started, made by [`when_any`]. Awaiting it starts them.
///
/// | option | default |
/// | --- | --- |
/// | [`compensation`](WhenAny::compensation) | sequential, in reverse, one attempt |
/// | [`timeout`](WhenAny::timeout), until there is a winner | never |
/// | [`grace`](WhenAny::grace) | 5 seconds |
/// | [`cancellation`](WhenAny::cancellation), until there is a winner | that of the context alone |
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use watershed::{BoxError, ErrorCode, StepContext, combinators::when_any};
///
/// let context = StepContext::new("lookup");
/// let slow = |_: StepContext| std::future::pending::<Result<(), BoxError>>();
/// let any = when_any(&context, [slow]).timeout(Duration::from_millis(1)).grace(Duration::ZERO);
/// assert_eq!(any.await.unwrap_err().code(), ErrorCode::Timeout);
/// # });
/// ```
#[must_use = "operations do nothing unless they are awaited"]
pub struct WhenAny<O> {
    context: StepContext,
    operations: HeldEach<O>,
    options: CombinatorOptions,
}

impl<O> WhenAny<O> {
    option!(compensation: options.compensation);
    option!(timeout: options.timeout);
    option!(grace: options.grace);
    option!(cancellation: options.cancellation);
}

impl<O, F, T, E> IntoFuture for WhenAny<O>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Winner<T>, Error>;
    type IntoFuture = OperationFuture<Self, AnyRunning<O, F, T, E>>;

    fn into_future(self) -> Self::IntoFuture {
        OperationFuture::new(self)
    }
}

impl<O, F, T, E> Operation for WhenAny<O>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Winner<T>, Error>;
    type Running = AnyRunning<O, F, T, E>;
    const COUNTED: bool = true;

    fn start(self) -> Self::Running {
        let Self { context, operations, options } = self;
        AnyRunning::start(&context, operations.take(), options, None)
    }

    fn poll(running: Pin<&mut Self::Running>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        running.get_mut().poll(cx).map(|result| result.map_err(Lost::into_error))
    }
}

/// Operations of which one can win, between the first poll and the result.
#[expect(missing_debug_implementations, reason = "nobody can name it")]
pub struct AnyRunning<O, F, T, E> {
    context: StepContext,
    /// Before the race, which hands the scope over when the rollback has put back what it holds.
    rollback: Option<Rollback>,
    race: Option<Race<Entered<O, F, T, E>>>,
    winner: Option<(usize, Held<T>)>,
    lost: Lost,
    options: CombinatorOptions,
}

impl<O, F, T, E> Unpin for AnyRunning<O, F, T, E> {}

impl<O, F, T, E> AnyRunning<O, F, T, E>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    pub(super) fn start(
        context: &StepContext,
        operations: impl IntoIterator<Item = O>,
        options: CombinatorOptions,
        deadline: Option<&Limits>,
    ) -> Self {
        let operations: Vec<_> = operations.into_iter().map(Held::new).collect();
        let mut running = Self {
            context: context.clone(),
            rollback: None,
            race: None,
            winner: None,
            lost: Lost::default(),
            options,
        };
        running.lost.ending = running.begin(operations, deadline).err();
        running
    }

    fn begin(&mut self, operations: Vec<Held<O>>, deadline: Option<&Limits>) -> Result<(), Error> {
        if operations.is_empty() {
            return Err(Error::validation("there is no operation to win"));
        }
        self.options.compensation.check()?;
        let mut race = Race::new(&self.context, "the operations", &self.options, deadline)?;
        for (index, operation) in operations.into_iter().enumerate() {
            race.add(index, |step| Entered::new(step, index, operation));
        }
        self.race = Some(race);
        Ok(())
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Winner<T>, Lost>> {
        let Self { context, rollback, race, winner, lost, options } = self;
        let Some(race) = race else { return Poll::Ready(Err(std::mem::take(lost))) };
        while rollback.is_none() {
            match ready!(race.poll_next(cx)) {
                RaceEvent::Ended(EndedOperation { index, step, result: Ok(value) })
                    if winner.is_none() && lost.ending.is_none() =>
                {
                    step.keep_in(context.scope());
                    *winner = Some((index, value));
                    race.stop();
                }
                RaceEvent::Ended(EndedOperation { index, result, .. }) => {
                    if let Err(error) = result {
                        lost.add(index, error);
                    }
                }
                RaceEvent::Over(error) => lost.ending = Some(error),
                RaceEvent::Dropped(dropped) => lost.dropped = dropped,
                RaceEvent::AllEnded => *rollback = Some(race.roll_back(&options.compensation)),
            }
        }
        let Some(rollback) = rollback else { return Poll::Pending };
        let undone = ready!(Pin::new(rollback).poll(cx)).map_err(Error::from);
        let won = winner.take().and_then(|(index, value)| Some((index, value.take()?)));
        if let Some((index, value)) = won {
            return Poll::Ready(Ok(Winner::new(value, index, lost.dropped, undone)));
        }
        lost.rollback = undone.err();
        Poll::Ready(Err(std::mem::take(lost)))
    }
}

/// A race that nobody has won.
#[derive(Default)]
pub(super) struct Lost {
    /// Why it ended before all operations had.
    pub(super) ending: Option<Error>,
    /// Those of the operations, by their index.
    pub(super) failures: Gathered,
    /// One of them is no cancellation.
    failed: bool,
    pub(super) rollback: Option<Error>,
    /// Operations that were dropped when the grace was over.
    pub(super) dropped: usize,
}

impl Lost {
    fn add(&mut self, index: usize, error: Error) {
        self.failed |= error.code() != ErrorCode::Canceled;
        drop(self.failures.add(index as u64, error));
    }

    fn into_error(self) -> Error {
        let error = self.ending.unwrap_or_else(|| {
            if self.failed {
                Error::new(ErrorCode::Aggregate, "no operation succeeded")
            } else {
                Error::canceled()
            }
        });
        let error = with_dropped(error, self.dropped);
        error.with_gathered(self.failures).with_related(self.rollback)
    }
}

impl<O> fmt::Debug for WhenAny<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WhenAny")
            .field("context", &self.context)
            .field("operations", &self.operations.len())
            .finish_non_exhaustive()
    }
}
