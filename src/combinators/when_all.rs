//! All operations, or none.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::held::Held;
use super::race::{Ended, Event, Race, enter, with_dropped};
use crate::cancellation::CancellationToken;
use crate::diagnostics::COUNTERS;
use crate::error::{BoxError, Error, Gathered};
use crate::step::StepContext;
use crate::undo::CompensationPolicy;

/// Runs all operations side by side, and gives their values in the operations' order.
///
/// When one fails, the others are told to stop and awaited for the grace, and what all of them have
/// done is undone in the reverse of the order of registration, the one that failed included.
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
/// assert_eq!(when_all(&context, operations).run().await?, [4, 4]);
/// assert_eq!(context.scope().clear(), 2);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn when_all<I: IntoIterator>(context: &StepContext, operations: I) -> WhenAll<I::Item> {
    WhenAll {
        context: context.clone(),
        operations: operations.into_iter().collect(),
        concurrency: None,
        compensation: CompensationPolicy::default(),
        timeout: None,
        grace: Duration::from_secs(5),
        cancellation: CancellationToken::never(),
    }
}

/// The options of [`when_all`].
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
/// let squares = when_all(&context, squares).concurrency(2);
/// assert_eq!(squares.run().await?, [0, 1, 4, 9, 16]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "the operations are started by `run`"]
pub struct WhenAll<O> {
    context: StepContext,
    operations: Vec<O>,
    concurrency: Option<usize>,
    compensation: CompensationPolicy,
    timeout: Option<Duration>,
    grace: Duration,
    cancellation: CancellationToken,
}

impl<O> WhenAll<O> {
    /// How many operations may run at once, at least 1. Default: all.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_all};
    ///
    /// let context = StepContext::new("one");
    /// let one = when_all(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]);
    /// assert_eq!(one.concurrency(1).run().await?, [7]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn concurrency(mut self, operations: usize) -> Self {
        self.concurrency = Some(operations);
        self
    }

    /// How the operations are undone when one has failed. Default: one after another in reverse,
    /// one attempt, by the context's clock.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_all};
    ///
    /// let context = StepContext::new("one");
    /// let one = when_all(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]);
    /// assert_eq!(one.compensation(watershed::CompensationPolicy::parallel()).run().await?, [7]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn compensation(mut self, policy: CompensationPolicy) -> Self {
        self.compensation = policy;
        self
    }

    /// One absolute deadline for all operations, by the context's clock, from the first poll.
    /// Default: never.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_all};
    ///
    /// let context = StepContext::new("one");
    /// let one = when_all(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]);
    /// assert_eq!(one.timeout(std::time::Duration::from_secs(60)).run().await?, [7]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long operations that were told to stop are awaited before they are dropped, by the
    /// context's clock. Default: 5 seconds.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_all};
    ///
    /// let context = StepContext::new("one");
    /// let one = when_all(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]);
    /// assert_eq!(one.grace(std::time::Duration::ZERO).run().await?, [7]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// A token that stops the operations, beside that of the context.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_all};
    ///
    /// let context = StepContext::new("one");
    /// let one = when_all(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]);
    /// assert_eq!(one.cancellation(watershed::CancellationToken::never()).run().await?, [7]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    /// Runs the operations. No operations: success at once.
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
    /// let context = StepContext::new("one");
    /// let one = when_all(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]);
    /// assert_eq!(one.run().await?, [7]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub async fn run<T, E, F>(self) -> Result<Vec<T>, Error>
    where
        O: FnOnce(StepContext) -> F,
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let result = self.all().await;
        COUNTERS.count_operation(&result);
        result
    }

    async fn all<T, E, F>(self) -> Result<Vec<T>, Error>
    where
        O: FnOnce(StepContext) -> F,
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        self.compensation.check()?;
        if self.concurrency == Some(0) {
            return Err(Error::validation("a concurrency of 0 runs nothing"));
        }
        let count = self.operations.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let operations: Vec<_> = self.operations.into_iter().map(Held::new).collect();
        let (token, what) = (&self.cancellation, "the operations");
        let mut race = Race::new(&self.context, what, token, self.timeout, self.grace)?;
        let most = self.concurrency.unwrap_or(usize::MAX);
        let mut waiting = operations.into_iter().enumerate();
        for (index, operation) in waiting.by_ref().take(most) {
            race.add(index, |step| enter(step, index, operation));
        }
        let mut values: Vec<Option<Held<T>>> =
            std::iter::repeat_with(|| None).take(count).collect();
        let mut failures = Failures::default();
        loop {
            match race.next().await {
                Event::Ended(Ended { index, step, result }) => {
                    drop(step);
                    match result {
                        Ok(value) => values[index] = Some(value),
                        Err(error) => {
                            failures.add(index, error);
                            race.stop();
                        }
                    }
                    if failures.first.is_none() {
                        if let Some((index, operation)) = waiting.next() {
                            race.add(index, |step| enter(step, index, operation));
                        }
                    }
                }
                Event::Over(error) => {
                    failures.first.get_or_insert(error);
                }
                Event::Dropped(dropped) => failures.dropped = dropped,
                Event::AllEnded => break,
            }
        }
        let Some(error) = failures.first else {
            return Ok(values.into_iter().flatten().filter_map(Held::take).collect());
        };
        let completed = values.iter().flatten().count();
        let rollback = race.roll_back(&self.compensation).await;
        let error = error
            .with_gathered(failures.others)
            .with_related(rollback.err())
            .with_metadata("completed", completed)
            .with_metadata("failed", failures.count);
        Err(with_dropped(error, failures.dropped))
    }
}

/// What has gone wrong so far.
#[derive(Default)]
struct Failures {
    first: Option<Error>,
    others: Gathered,
    count: usize,
    dropped: usize,
}

impl Failures {
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
