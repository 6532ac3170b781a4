//! The first operation that succeeds.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::held::Held;
use super::race::{Ended, Event, Race, enter, with_dropped};
use crate::cancellation::CancellationToken;
use crate::diagnostics::COUNTERS;
use crate::error::{BoxError, Error, ErrorCode, Gathered};
use crate::step::StepContext;
use crate::undo::{CompensationPolicy, RollbackReport};

/// Runs all operations side by side until one succeeds.
///
/// The others are told to stop and awaited for the grace; what they have done is undone, whether
/// they failed or succeeded later. The winner's compensations are staged on the context's scope.
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
/// let raced = when_any(&context, mirrors).run().await?;
/// assert_eq!((raced.index(), raced.into_value()), (1, "near"));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn when_any<I: IntoIterator>(context: &StepContext, operations: I) -> WhenAny<I::Item> {
    WhenAny {
        context: context.clone(),
        operations: operations.into_iter().collect(),
        compensation: CompensationPolicy::default(),
        timeout: None,
        grace: Duration::from_secs(5),
        cancellation: CancellationToken::never(),
    }
}

/// The options of [`when_any`].
///
/// | option | default |
/// | --- | --- |
/// | [`compensation`](WhenAny::compensation) | sequential, in reverse, one attempt |
/// | [`timeout`](WhenAny::timeout) | never |
/// | [`grace`](WhenAny::grace) | 5 seconds |
/// | [`cancellation`](WhenAny::cancellation) | that of the context alone |
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use watershed::{BoxError, ErrorCode, StepContext, combinators::when_any};
///
/// let context = StepContext::new("lookup");
/// let slow = |_: StepContext| std::future::pending::<Result<(), BoxError>>();
/// let raced = when_any(&context, [slow]).timeout(Duration::from_millis(1)).grace(Duration::ZERO);
/// assert_eq!(raced.run().await.unwrap_err().code(), ErrorCode::Timeout);
/// # });
/// ```
#[must_use = "the operations are started by `run`"]
pub struct WhenAny<O> {
    context: StepContext,
    operations: Vec<O>,
    compensation: CompensationPolicy,
    timeout: Option<Duration>,
    grace: Duration,
    cancellation: CancellationToken,
}

impl<O> WhenAny<O> {
    /// How the losers are undone. Default: one after another in reverse, one attempt, by the
    /// context's clock.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_any};
    ///
    /// let context = StepContext::new("one");
    /// let one = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]);
    /// assert_eq!(one.compensation(watershed::CompensationPolicy::parallel()).run().await?.into_value(), 7);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn compensation(mut self, policy: CompensationPolicy) -> Self {
        self.compensation = policy;
        self
    }

    /// One absolute deadline until there is a winner, by the context's clock, from the first poll.
    /// Default: never.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_any};
    ///
    /// let context = StepContext::new("one");
    /// let one = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]);
    /// assert_eq!(one.timeout(std::time::Duration::from_secs(60)).run().await?.into_value(), 7);
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
    /// use watershed::{BoxError, StepContext, combinators::when_any};
    ///
    /// let context = StepContext::new("one");
    /// let one = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]);
    /// assert_eq!(one.grace(std::time::Duration::ZERO).run().await?.into_value(), 7);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// A token that stops the operations as long as there is no winner, beside that of the context.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_any};
    ///
    /// let context = StepContext::new("one");
    /// let one = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]);
    /// assert_eq!(one.cancellation(watershed::CancellationToken::never()).run().await?.into_value(), 7);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    /// Runs the operations until one has won and the others are undone.
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
    /// use watershed::{BoxError, StepContext, combinators::when_any};
    ///
    /// let context = StepContext::new("one");
    /// let one = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]);
    /// assert_eq!(one.run().await?.into_value(), 7);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub async fn run<T, E, F>(self) -> Result<Raced<T>, Error>
    where
        O: FnOnce(StepContext) -> F,
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let result = self.race().await.map_err(Lost::into_error);
        COUNTERS.count_operation(&result);
        result
    }

    pub(super) async fn race<T, E, F>(self) -> Result<Raced<T>, Lost>
    where
        O: FnOnce(StepContext) -> F,
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let mut lost = Lost::default();
        if self.operations.is_empty() {
            lost.ending = Some(Error::validation("there is no operation to win"));
            return Err(lost);
        }
        if let Err(error) = self.compensation.check() {
            lost.ending = Some(error);
            return Err(lost);
        }
        let operations: Vec<_> = self.operations.into_iter().map(Held::new).collect();
        let (token, what) = (&self.cancellation, "the operations");
        let mut race = match Race::new(&self.context, what, token, self.timeout, self.grace) {
            Ok(race) => race,
            Err(error) => {
                lost.ending = Some(error);
                return Err(lost);
            }
        };
        for (index, operation) in operations.into_iter().enumerate() {
            race.add(index, |step| enter(step, index, operation));
        }
        let mut winner = None;
        loop {
            match race.next().await {
                Event::Ended(Ended { index, step, result: Ok(value) })
                    if winner.is_none() && lost.ending.is_none() =>
                {
                    step.keep_in(self.context.scope());
                    winner = Some((index, value));
                    race.stop();
                }
                Event::Ended(Ended { index, result, .. }) => {
                    if let Err(error) = result {
                        lost.add(index, error);
                    }
                }
                Event::Over(error) => lost.ending = Some(error),
                Event::Dropped(dropped) => lost.dropped = dropped,
                Event::AllEnded => break,
            }
        }
        let rollback = race.roll_back(&self.compensation).await;
        let won = winner.and_then(|(index, value)| Some((index, value.take()?)));
        if let Some((index, value)) = won {
            return Ok(Raced { value, index, dropped: lost.dropped, rollback });
        }
        lost.rollback = rollback.err();
        Err(lost)
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

/// The outcome of a race that somebody has won.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{BoxError, StepContext, combinators::when_any};
///
/// let context = StepContext::new("lookup");
/// let raced = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]).run().await?;
/// assert_eq!((raced.value(), raced.index()), (&7, 0));
/// assert!(raced.rollback().is_ok());
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Raced<T> {
    value: T,
    index: usize,
    dropped: usize,
    rollback: Result<RollbackReport, Error>,
}

impl<T> Raced<T> {
    /// What the winner returned.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_any};
    ///
    /// let context = StepContext::new("one");
    /// let raced = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]).run().await?;
    /// assert_eq!(raced.value(), &7);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// What the winner returned, by value.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_any};
    ///
    /// let context = StepContext::new("one");
    /// let raced = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]).run().await?;
    /// assert_eq!(raced.into_value(), 7);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }

    /// The position of the winner among the operations.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_any};
    ///
    /// let context = StepContext::new("one");
    /// let raced = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]).run().await?;
    /// assert_eq!(raced.index(), 0);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many losers were dropped when the grace was over.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_any};
    ///
    /// let context = StepContext::new("one");
    /// let raced = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]).run().await?;
    /// assert_eq!(raced.dropped(), 0);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// How undoing the losers went. What failed is staged on the context's scope.
    ///
    /// # Errors
    ///
    /// The rollback's error, when compensations failed.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::when_any};
    ///
    /// let context = StepContext::new("one");
    /// let raced = when_any(&context, [async |_: StepContext| Ok::<_, BoxError>(7)]).run().await?;
    /// assert_eq!(raced.rollback().unwrap().succeeded(), 0);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn rollback(&self) -> Result<&RollbackReport, &Error> {
        self.rollback.as_ref()
    }
}
