//! All operations, or none.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::iter::Enumerate;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;

use super::race::{CombinatorOptions, EndedOperation, Entered, Race, RaceEvent, with_dropped};
use crate::error::{BoxError, Error, Gathered};
use crate::operation::{Operation, OperationFuture, option};
use crate::panics::{Held, HeldEach};
use crate::step::StepContext;
use crate::undo::{CompensationPolicy, Rollback};

/// Runs all operations side by side, and gives their values in the operations' order. No
/// operations: success at once.
///
/// When one fails, the others are told to stop and awaited for the grace, and what all of them have
/// done is undone in the reverse of the order of registration, the one that failed included.
///
/// # Errors
///
/// The first failure, with the first 31 of the others attached in the operations' order and all counted
/// ([`Error::related_total`]), the error of the rollback behind them, and as metadata `completed` and `failed` (how many operations were)
/// and `dropped_handlers` (how many were dropped when the grace was over):
///
/// - the operation's own error, or [`ErrorCode::Panic`](crate::ErrorCode::Panic) when it, or the
///   clock, panicked
/// - [`ErrorCode::Timeout`](crate::ErrorCode::Timeout),
///   [`ErrorCode::Canceled`](crate::ErrorCode::Canceled): cancelled before the first poll, no
///   operation is called
/// - [`ErrorCode::Validation`](crate::ErrorCode::Validation) for a concurrency of 0
/// - [`ErrorCode::Clock`](crate::ErrorCode::Clock) when there is a timeout and the clock cannot
///   wait
///
/// What could not be undone is staged on the context's scope.
///
/// # Cancel safety
///
/// Dropping the future drops the operations where they are; what they have staged is on the
/// context's scope.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{BoxError, StepContext, combinators::when_all};
///
/// let context = StepContext::new("booking");
/// let operations = ["seat", "meal"].map(|what| {
///     move |step: StepContext| async move {
///         step.register_compensation(move || async move { println!("cancel the {what}") });
///         Ok::<_, BoxError>(what.len())
///     }
/// });
/// assert_eq!(when_all(&context, operations).await?, [4, 4]);
/// assert_eq!(context.scope().clear(), 2);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn when_all<I: IntoIterator>(context: &StepContext, operations: I) -> WhenAll<I::Item> {
    WhenAll {
        context: context.clone(),
        operations: operations.into_iter().collect(),
        concurrency: None,
        options: CombinatorOptions::default(),
    }
}

/// Operations that have not started, made by [`when_all`]. Awaiting it starts them.
///
/// | option | default |
/// | --- | --- |
/// | [`concurrency`](WhenAll::concurrency) | all at once |
/// | [`compensation`](WhenAll::compensation) | sequential, in reverse, one attempt |
/// | [`timeout`](WhenAll::timeout) | never |
/// | [`grace`](WhenAll::grace) | 5 seconds |
/// | [`cancellation`](WhenAll::cancellation) | that of the context alone |
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{BoxError, StepContext, combinators::when_all};
///
/// let context = StepContext::new("squares");
/// let squares = (0..5).map(|n| move |_: StepContext| async move { Ok::<_, BoxError>(n * n) });
/// assert_eq!(when_all(&context, squares).concurrency(2).await?, [0, 1, 4, 9, 16]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "operations do nothing unless they are awaited"]
pub struct WhenAll<O> {
    context: StepContext,
    operations: HeldEach<O>,
    concurrency: Option<usize>,
    options: CombinatorOptions,
}

impl<O> WhenAll<O> {
    /// How many operations may run at once. Default: all; 0 is
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation).
    pub fn concurrency(mut self, operations: usize) -> Self {
        self.concurrency = Some(operations);
        self
    }

    option!(compensation: options.compensation);
    option!(timeout: options.timeout);
    option!(grace: options.grace);
    option!(cancellation: options.cancellation);
}

impl<O, F, T, E> IntoFuture for WhenAll<O>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Vec<T>, Error>;
    type IntoFuture = OperationFuture<Self, RunningAll<O, F, T, E>>;

    fn into_future(self) -> Self::IntoFuture {
        OperationFuture::new(self)
    }
}

impl<O, F, T, E> Operation for WhenAll<O>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Vec<T>, Error>;
    type Running = RunningAll<O, F, T, E>;
    const COUNTED: bool = true;

    fn start(self) -> Self::Running {
        let mut running = RunningAll {
            rollback: None,
            race: None,
            refused: None,
            waiting: Vec::new().into_iter().enumerate(),
            values: Vec::new(),
            failures: FailedOperations::default(),
            compensation: self.options.compensation.clone(),
        };
        running.refused = running.begin(self).err();
        running
    }

    fn poll(running: Pin<&mut Self::Running>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        running.get_mut().poll(cx)
    }
}

/// All operations between the first poll and the result.
#[expect(missing_debug_implementations, reason = "nobody can name it")]
pub struct RunningAll<O, F, T, E> {
    /// Before the race, which hands the scope over when the rollback has put back what it holds.
    rollback: Option<(Error, Rollback)>,
    race: Option<Race<Entered<O, F, T, E>>>,
    refused: Option<Error>,
    waiting: Enumerate<vec::IntoIter<Held<O>>>,
    values: Vec<Option<Held<T>>>,
    failures: FailedOperations,
    compensation: CompensationPolicy,
}

impl<O, F, T, E> Unpin for RunningAll<O, F, T, E> {}

impl<O, F, T, E> RunningAll<O, F, T, E>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    fn begin(&mut self, all: WhenAll<O>) -> Result<(), Error> {
        all.options.compensation.check()?;
        if all.concurrency == Some(0) {
            return Err(Error::validation("a concurrency of 0 runs nothing"));
        }
        let operations: Vec<_> = all.operations.take().into_iter().map(Held::new).collect();
        if operations.is_empty() {
            return Ok(());
        }
        let mut race = Race::new(&all.context, "the operations", &all.options, None)?;
        self.values.resize_with(operations.len(), || None);
        self.waiting = operations.into_iter().enumerate();
        let most = all.concurrency.unwrap_or(usize::MAX);
        for (index, operation) in self.waiting.by_ref().take(most) {
            race.add(index, |step| Entered::new(step, index, operation));
        }
        self.race = Some(race);
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<T>, Error>> {
        let Some(race) = &mut self.race else {
            return Poll::Ready(self.refused.take().map_or(Ok(Vec::new()), Err));
        };
        while self.rollback.is_none() {
            match ready!(race.poll_next(cx)) {
                RaceEvent::Ended(EndedOperation { index, step, result }) => {
                    drop(step);
                    match result {
                        Ok(value) => self.values[index] = Some(value),
                        Err(error) => {
                            self.failures.add(index, error);
                            race.stop();
                        }
                    }
                    if self.failures.first.is_none() {
                        if let Some((index, operation)) = self.waiting.next() {
                            race.add(index, |step| Entered::new(step, index, operation));
                        }
                    }
                }
                RaceEvent::Over(error) => {
                    self.failures.first.get_or_insert(error);
                }
                RaceEvent::Dropped(dropped) => self.failures.dropped = dropped,
                RaceEvent::AllEnded => {
                    let FailedOperations { first, others, count, .. } = &mut self.failures;
                    let Some(error) = first.take() else {
                        let values = std::mem::take(&mut self.values);
                        let values = values.into_iter().flatten().filter_map(Held::take);
                        return Poll::Ready(Ok(values.collect()));
                    };
                    let error = error
                        .with_gathered(std::mem::take(others))
                        .with_metadata("completed", self.values.iter().flatten().count())
                        .with_metadata("failed", *count);
                    self.rollback = Some((error, race.roll_back(&self.compensation)));
                }
            }
        }
        let Some((error, rollback)) = &mut self.rollback else { return Poll::Pending };
        let undone = ready!(Pin::new(rollback).poll(cx));
        let error = error.clone().with_related(undone.err().map(Error::from));
        Poll::Ready(Err(with_dropped(error, self.failures.dropped)))
    }
}

/// What has gone wrong so far.
#[derive(Default)]
struct FailedOperations {
    first: Option<Error>,
    others: Gathered,
    count: usize,
    dropped: usize,
}

impl FailedOperations {
    fn add(&mut self, index: usize, error: Error) {
        self.count += 1;
        match &self.first {
            None => self.first = Some(error),
            Some(_) => drop(self.others.add(index as u64, error)),
        }
    }
}

impl<O> fmt::Debug for WhenAll<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WhenAll")
            .field("context", &self.context)
            .field("operations", &self.operations.len())
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}
