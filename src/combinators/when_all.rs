//! All operations, or none.

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::held::Held;
use super::race::{Ended, Event, Race, enter, with_dropped};
use crate::cancellation::CancellationToken;
use crate::compensation::CompensationPolicy;
use crate::context::StepContext;
use crate::diagnostics::COUNTERS;
use crate::error::{BoxError, Error};

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
/// use std::num::NonZeroUsize;
/// use watershed::{BoxError, StepContext, combinators::when_all};
///
/// let context = StepContext::new("squares");
/// let squares = (0..5).map(|n| move |_: StepContext| async move { Ok::<_, BoxError>(n * n) });
/// let squares = when_all(&context, squares).concurrency(NonZeroUsize::new(2).unwrap());
/// assert_eq!(squares.run().await?, [0, 1, 4, 9, 16]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "the operations are started by `run`"]
pub struct WhenAll<O> {
    context: StepContext,
    operations: Vec<O>,
    concurrency: Option<NonZeroUsize>,
    compensation: CompensationPolicy,
    timeout: Option<Duration>,
    grace: Duration,
    cancellation: CancellationToken,
}

impl<O> WhenAll<O> {
    /// How many operations may run at once. Default: all.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_all};
    ///
    /// let context = StepContext::new("one");
    /// let one = when_all(&context, [|_: StepContext| async { Ok::<_, BoxError>(7) }]);
    /// assert_eq!(one.concurrency(std::num::NonZeroUsize::MIN).run().await?, [7]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn concurrency(mut self, operations: NonZeroUsize) -> Self {
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
    /// let one = when_all(&context, [|_: StepContext| async { Ok::<_, BoxError>(7) }]);
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
    /// let one = when_all(&context, [|_: StepContext| async { Ok::<_, BoxError>(7) }]);
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
    /// let one = when_all(&context, [|_: StepContext| async { Ok::<_, BoxError>(7) }]);
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
    /// let one = when_all(&context, [|_: StepContext| async { Ok::<_, BoxError>(7) }]);
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
    /// The first failure, with the others attached in the operations' order, the error of the
    /// rollback behind them, and as metadata `completed` and `failed` (how many operations were)
    /// and `dropped_handlers` (how many were dropped when the grace was over):
    ///
    /// - the operation's own error, or [`ErrorCode::Panic`](crate::ErrorCode::Panic) when it, or the
    ///   clock, panicked
    /// - [`ErrorCode::Timeout`](crate::ErrorCode::Timeout),
    ///   [`ErrorCode::Canceled`](crate::ErrorCode::Canceled): cancelled before the first poll, no
    ///   operation is called
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
    /// let one = when_all(&context, [|_: StepContext| async { Ok::<_, BoxError>(7) }]);
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
        let count = self.operations.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let operations: Vec<_> = self.operations.into_iter().map(Held::new).collect();
        let (token, what) = (&self.cancellation, "the operations");
        let mut race = Race::new(&self.context, what, token, self.timeout, self.grace)?;
        let most = self.concurrency.map_or(usize::MAX, NonZeroUsize::get);
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
        failures.others.sort_by_key(|(index, _)| *index);
        let related: Vec<_> = failures.others.into_iter().map(|(_, error)| error).collect();
        let rollback = race.roll_back(&self.compensation).await;
        let error = error
            .with_related(related)
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
    others: Vec<(usize, Error)>,
    count: usize,
    dropped: usize,
}

impl Failures {
    fn add(&mut self, index: usize, error: Error) {
        self.count += 1;
        match &self.first {
            None => self.first = Some(error),
            Some(_) => self.others.push((index, error)),
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
