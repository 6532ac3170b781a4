//! One tier of strategies after another.

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;

use super::race::{CombinatorOptions, with_dropped};
use super::when_any::{AnyRunning, Lost};
use super::winner::{Name, Winner};
use crate::cancellation::CancellationToken;
use crate::error::{BoxError, Error, ErrorCode, Gathered};
use crate::operation::{Limits, Operation, OperationFuture, option};
use crate::panics::Held;
use crate::step::StepContext;

type BoxOperation<'a, T> = Box<dyn FnOnce(StepContext) -> BoxOutcome<'a, T> + Send + 'a>;
type BoxOutcome<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Tiers of strategies, tried in their order: the strategies of one tier run side by side, the first
/// that succeeds wins, and only when all of a tier have failed and what they did is undone does the
/// next tier start. Strategies must be [`Send`]. Awaiting it starts it.
///
/// | option | default |
/// | --- | --- |
/// | [`compensation`](Fallback::compensation) | sequential, in reverse, one attempt |
/// | [`timeout`](Fallback::timeout), of all tiers | never |
/// | [`grace`](Fallback::grace) | 5 seconds |
/// | [`cancellation`](Fallback::cancellation) | that of the context alone |
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
/// use watershed::{BoxError, ErrorCode, StepContext, combinators::Fallback};
///
/// let context = StepContext::new("price");
/// let cache = Fallback::new(&context)
///     .tier("cache")
///     .strategy("memory", async |_| Err::<u32, _>("not there"))
///     .strategy("disk", async |_| Err("not there"));
/// let error = cache.await.unwrap_err();
/// assert_eq!(error.code(), ErrorCode::Aggregate);
/// assert_eq!(error.related()[0].metadata("strategy"), Some("memory"));
///
/// let price = Fallback::new(&context)
///     .tier("cache")
///     .strategy("memory", async |_| Err::<u32, _>("not there"))
///     .tier("origin")
///     .strategy("http", async |_| Ok::<_, BoxError>(42))
///     .await?;
/// assert_eq!((price.tier(), price.strategy(), price.value()), ("origin", "http", &42));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "strategies do nothing unless they are awaited"]
pub struct Fallback<'a, T> {
    context: StepContext,
    tiers: Vec<FallbackTier<'a, T>>,
    options: CombinatorOptions,
}

struct FallbackTier<'a, T> {
    name: Name,
    strategies: Vec<(Name, Held<BoxOperation<'a, T>>)>,
}

impl<'a, T: 'a> Fallback<'a, T> {
    /// A fallback without strategies.
    pub fn new(context: &StepContext) -> Self {
        Self { context: context.clone(), tiers: Vec::new(), options: CombinatorOptions::default() }
    }

    /// Begins another tier, to which the strategies that follow belong.
    pub fn tier(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.tiers.push(FallbackTier { name: name.into(), strategies: Vec::new() });
        self
    }

    /// Adds a strategy to the tier begun last, or to a tier without a name.
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

    option!(compensation: options.compensation);
    option!(timeout: options.timeout);
    option!(grace: options.grace);
    option!(cancellation: options.cancellation);
}

impl<'a, T: 'a> IntoFuture for Fallback<'a, T> {
    type Output = Result<Winner<T>, Error>;
    type IntoFuture = OperationFuture<Self, RunningFallback<'a, T>>;

    fn into_future(self) -> Self::IntoFuture {
        OperationFuture::new(self)
    }
}

impl<'a, T: 'a> Operation for Fallback<'a, T> {
    type Output = Result<Winner<T>, Error>;
    type Running = RunningFallback<'a, T>;
    const COUNTED: bool = true;

    fn start(self) -> Self::Running {
        let Self { context, tiers, options } = self;
        let tokens = [context.cancellation().clone(), options.cancellation.clone()];
        let token = CancellationToken::linked(tokens);
        let limits = Limits::new(context.clock(), token, options.timeout);
        RunningFallback {
            limits,
            context,
            tiers: tiers.into_iter(),
            options,
            tier: None,
            failures: Gathered::default(),
        }
    }

    fn poll(running: Pin<&mut Self::Running>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        running.get_mut().poll(cx)
    }
}

/// Tiers between the first poll and the result.
#[expect(missing_debug_implementations, reason = "nobody can name it")]
pub struct RunningFallback<'a, T> {
    context: StepContext,
    tiers: vec::IntoIter<FallbackTier<'a, T>>,
    options: CombinatorOptions,
    /// What ends all tiers.
    limits: Result<Limits, Error>,
    tier: Option<RunningTier<'a, T>>,
    failures: Gathered,
}

struct RunningTier<'a, T> {
    name: Name,
    strategies: Vec<Name>,
    any: AnyRunning<BoxOperation<'a, T>, BoxOutcome<'a, T>, T, Error>,
}

impl<T> Unpin for RunningFallback<'_, T> {}

impl<'a, T: 'a> RunningFallback<'a, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Winner<T>, Error>> {
        loop {
            if let Some(RunningTier { name, strategies, any }) = &mut self.tier {
                let lost = match ready!(any.poll(cx)) {
                    Ok(winner) => {
                        let strategy = strategies[winner.index()].clone();
                        return Poll::Ready(Ok(winner.named(name.clone(), strategy)));
                    }
                    Err(lost) => lost,
                };
                if let Some(error) = self.lose(lost) {
                    return Poll::Ready(Err(error));
                }
            }
            if let Err(error) = self.next_tier() {
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Begins the next tier that has a strategy.
    fn next_tier(&mut self) -> Result<(), Error> {
        let limits = self.limits.as_ref().map_err(Clone::clone)?;
        let Some(FallbackTier { name, strategies }) =
            self.tiers.find(|tier| !tier.strategies.is_empty())
        else {
            if self.failures.is_empty() {
                return Err(Error::validation("there is no strategy to try"));
            }
            return Err(nobody().with_gathered(std::mem::take(&mut self.failures)));
        };
        let (names, operations): (Vec<_>, Vec<_>) = strategies.into_iter().unzip();
        let operations = operations.into_iter().filter_map(Held::take);
        let any = AnyRunning::start(&self.context, operations, self.options.clone(), Some(limits));
        self.tier = Some(RunningTier { name, strategies: names, any });
        Ok(())
    }

    /// Takes in that a tier has lost; gives the error that ends the fallback, if one does.
    fn lose(&mut self, lost: Lost) -> Option<Error> {
        let RunningTier { name, strategies, .. } = self.tier.take()?;
        self.failures.append(lost.failures, |index, error| {
            let strategy = usize::try_from(index).ok().and_then(|index| strategies.get(index));
            let error = error.with_metadata("tier", &name);
            match strategy {
                Some(strategy) => error.with_metadata("strategy", strategy),
                None => error,
            }
        });
        if lost.ending.is_none() && lost.rollback.is_none() {
            return None;
        }
        let error = lost.ending.unwrap_or_else(nobody).with_metadata("tier", &name);
        let error = with_dropped(error, lost.dropped);
        let failures = std::mem::take(&mut self.failures);
        Some(error.with_gathered(failures).with_related(lost.rollback))
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
