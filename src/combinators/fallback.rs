//! One tier of strategies after another.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::held::Held;
use super::race::with_dropped;
use super::when_any::{Raced, when_any};
use crate::diagnostics::COUNTERS;
use crate::error::{BoxError, Error, ErrorCode, Gathered};
use crate::execution::ExecutionPolicy;
use crate::step::StepContext;
use crate::undo::RollbackReport;

/// Tries tiers in their order: the strategies of one tier run side by side, the first that succeeds
/// wins, and only when all of a tier have failed and what they did is undone does the next tier
/// start.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{BoxError, StepContext, combinators::fallback};
///
/// let context = StepContext::new("price");
/// let reached = fallback(&context)
///     .tier("cache")
///     .strategy("memory", async |_| Err::<u32, _>("not there"))
///     .strategy("disk", async |_| Err("not there"))
///     .tier("origin")
///     .strategy("http", async |_| Ok::<_, BoxError>(42))
///     .run()
///     .await?;
/// assert_eq!((reached.tier(), reached.strategy(), reached.value()), ("origin", "http", &42));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn fallback<'a, T>(context: &StepContext) -> Fallback<'a, T> {
    Fallback { context: context.clone(), tiers: Vec::new(), policy: ExecutionPolicy::new() }
}

type Name = Cow<'static, str>;
type BoxOperation<'a, T> = Box<dyn FnOnce(StepContext) -> BoxOutcome<'a, T> + Send + 'a>;
type BoxOutcome<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// The tiers of [`fallback`]. Strategies must be [`Send`].
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{ErrorCode, StepContext, combinators::fallback};
///
/// let context = StepContext::new("price");
/// let tiers = fallback(&context)
///     .tier("cache")
///     .strategy("memory", async |_| Err::<u32, _>("not there"));
/// let error = tiers.run().await.unwrap_err();
/// assert_eq!(error.code(), ErrorCode::Aggregate);
/// assert_eq!(error.related()[0].metadata("strategy"), Some("memory"));
/// # });
/// ```
#[must_use = "the strategies are started by `run`"]
pub struct Fallback<'a, T> {
    context: StepContext,
    tiers: Vec<Tier<'a, T>>,
    policy: ExecutionPolicy,
}

struct Tier<'a, T> {
    name: Name,
    strategies: Vec<(Name, Held<BoxOperation<'a, T>>)>,
}

impl<'a, T: 'a> Fallback<'a, T> {
    /// Begins another tier, to which the strategies that follow belong.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::fallback};
    ///
    /// let context = StepContext::new("price");
    /// let tiers = fallback(&context).tier("cache").strategy("constant", async |_| Ok::<_, BoxError>(42));
    /// let reached = tiers.run().await?;
    /// assert_eq!(reached.tier(), "cache");
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn tier(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.tiers.push(Tier { name: name.into(), strategies: Vec::new() });
        self
    }

    /// Adds a strategy to the tier begun last, or to a tier without a name.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::fallback};
    ///
    /// let context = StepContext::new("price");
    /// let tiers = fallback(&context).strategy("constant", async |_| Ok::<_, BoxError>(42));
    /// let reached = tiers.run().await?;
    /// assert_eq!(reached.strategy(), "constant");
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn strategy<O, F, E>(mut self, name: impl Into<Cow<'static, str>>, operation: O) -> Self
    where
        O: FnOnce(StepContext) -> F + Send + 'a,
        F: Future<Output = Result<T, E>> + Send + 'a,
        E: Into<BoxError> + 'a,
    {
        let boxed: BoxOperation<'a, T> = Box::new(move |step| {
            let running = operation(step);
            Box::pin(async move {
                let result = running.await;
                result.map_err(|error| Error::from_error(ErrorCode::Unspecified, error))
            })
        });
        if self.tiers.is_empty() {
            self = self.tier("");
        }
        if let Some(tier) = self.tiers.last_mut() {
            tier.strategies.push((name.into(), Held::new(boxed)));
        }
        self
    }

    /// How losers and failed tiers are undone, and how long a strategy that is to stop is awaited.
    /// A tier is tried once, whatever the policy says of retries.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::fallback};
    ///
    /// let context = StepContext::new("price");
    /// let tiers = fallback(&context).policy(watershed::ExecutionPolicy::new()).strategy("constant", async |_| Ok::<_, BoxError>(42));
    /// let reached = tiers.run().await?;
    /// assert_eq!(reached.into_value(), 42);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn policy(mut self, policy: ExecutionPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Runs the tiers until a strategy has won.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::Validation`]: there is no strategy at all
    /// - [`ErrorCode::Aggregate`]: all have failed; the first 31 of their errors are attached in
    ///   order, each with its `tier` and `strategy` as metadata, and the others counted
    /// - [`ErrorCode::Canceled`] when the context's token is cancelled: no further tier starts, and
    ///   the metadata has the `tier` that was its last, and `dropped_handlers` if its strategies
    ///   had to be dropped. A strategy that says so of itself has failed like any other.
    /// - what undoing a tier failed with ends the fallback as well, and is attached last: effects
    ///   of a tier that cannot be undone are not covered up by the next
    /// - [`ErrorCode::Panic`] when the clock panicked
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the strategies where they are; what they have staged is on the
    /// context's scope.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::fallback};
    ///
    /// let context = StepContext::new("price");
    /// let tiers = fallback(&context).strategy("constant", async |_| Ok::<_, BoxError>(42));
    /// let reached = tiers.run().await?;
    /// assert_eq!(reached.into_value(), 42);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub async fn run(self) -> Result<Reached<T>, Error> {
        let result = self.reach().await;
        COUNTERS.count_operation(&result);
        result
    }

    async fn reach(self) -> Result<Reached<T>, Error> {
        let Self { context, tiers, policy } = self;
        let mut failures = Gathered::default();
        for Tier { name: tier, strategies } in tiers {
            let (names, operations): (Vec<_>, Vec<_>) = strategies.into_iter().unzip();
            if names.is_empty() {
                continue;
            }
            let race = when_any(&context, operations.into_iter().filter_map(Held::take));
            let race = race.compensation(policy.compensation.clone()).grace(policy.grace);
            let lost = match race.race().await {
                Ok(raced) => {
                    let strategy = names[raced.index()].clone();
                    return Ok(Reached { raced, tier, strategy });
                }
                Err(lost) => lost,
            };
            failures.append(lost.failures, |index, error| {
                let name = usize::try_from(index).ok().and_then(|index| names.get(index));
                let error = error.with_metadata("tier", &tier);
                match name {
                    Some(name) => error.with_metadata("strategy", name),
                    None => error,
                }
            });
            if lost.ending.is_none() && lost.rollback.is_none() {
                continue;
            }
            let error = lost.ending.unwrap_or_else(nobody).with_metadata("tier", &tier);
            let error = with_dropped(error, lost.dropped);
            return Err(error.with_gathered(failures).with_related(lost.rollback));
        }
        if failures.is_empty() {
            return Err(Error::validation("there is no strategy to try"));
        }
        Err(nobody().with_gathered(failures))
    }
}

fn nobody() -> Error {
    Error::new(ErrorCode::Aggregate, "no strategy succeeded")
}

impl<T> fmt::Debug for Fallback<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiers: Vec<_> =
            self.tiers.iter().map(|tier| (&tier.name, tier.strategies.len())).collect();
        f.debug_struct("Fallback").field("context", &self.context).field("tiers", &tiers).finish()
    }
}

/// What a fallback has reached.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{BoxError, StepContext, combinators::fallback};
///
/// let context = StepContext::new("price");
/// let tiers = fallback(&context).strategy("constant", async |_| Ok::<_, BoxError>(42));
/// let reached = tiers.run().await?;
/// assert_eq!((reached.strategy(), reached.value()), ("constant", &42));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Reached<T> {
    raced: Raced<T>,
    tier: Name,
    strategy: Name,
}

impl<T> Reached<T> {
    /// What the strategy returned.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::fallback};
    ///
    /// let context = StepContext::new("price");
    /// let tiers = fallback(&context).strategy("constant", async |_| Ok::<_, BoxError>(42));
    /// let reached = tiers.run().await?;
    /// assert_eq!(reached.value(), &42);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn value(&self) -> &T {
        self.raced.value()
    }

    /// What the strategy returned, by value.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::fallback};
    ///
    /// let context = StepContext::new("price");
    /// let tiers = fallback(&context).strategy("constant", async |_| Ok::<_, BoxError>(42));
    /// let reached = tiers.run().await?;
    /// assert_eq!(reached.into_value(), 42);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn into_value(self) -> T {
        self.raced.into_value()
    }

    /// The tier of the strategy that won.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::fallback};
    ///
    /// let context = StepContext::new("price");
    /// let tiers = fallback(&context).tier("cache").strategy("constant", async |_| Ok::<_, BoxError>(42));
    /// let reached = tiers.run().await?;
    /// assert_eq!(reached.tier(), "cache");
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn tier(&self) -> &str {
        &self.tier
    }

    /// The strategy that won.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::fallback};
    ///
    /// let context = StepContext::new("price");
    /// let tiers = fallback(&context).strategy("constant", async |_| Ok::<_, BoxError>(42));
    /// let reached = tiers.run().await?;
    /// assert_eq!(reached.strategy(), "constant");
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn strategy(&self) -> &str {
        &self.strategy
    }

    /// How undoing the other strategies of the tier went. What failed is staged on the context's
    /// scope.
    ///
    /// # Errors
    ///
    /// The rollback's error, when compensations failed.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{BoxError, StepContext, combinators::fallback};
    ///
    /// let context = StepContext::new("price");
    /// let tiers = fallback(&context).strategy("constant", async |_| Ok::<_, BoxError>(42));
    /// let reached = tiers.run().await?;
    /// assert!(reached.rollback().is_ok());
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn rollback(&self) -> Result<&RollbackReport, &Error> {
        self.raced.rollback()
    }
}
