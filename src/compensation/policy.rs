//! How a rollback goes about its work.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::retry::RetryPolicy;

/// How a rollback runs the actions of a scope: in which order, and how stubbornly.
///
/// The default is [`sequential_reverse`](CompensationPolicy::sequential_reverse), one attempt an
/// action.
///
/// ```
/// use std::{num::NonZeroU32, time::Duration};
/// use watershed::{CompensationPolicy, RetryPolicy};
///
/// let three = NonZeroU32::new(3).unwrap();
/// let policy = CompensationPolicy::sequential_reverse()
///     .retry(RetryPolicy::fixed(three, Duration::from_millis(50)));
/// ```
#[derive(Clone, Debug)]
pub struct CompensationPolicy {
    pub(super) order: RunOrder,
    pub(super) retry: RetryPolicy,
    pub(super) clock: Option<Arc<dyn Clock>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunOrder {
    None,
    SequentialReverse,
    Parallel { limit: Option<NonZeroUsize> },
}

impl CompensationPolicy {
    /// Runs nothing: every action stays staged.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{CancellationToken, CompensationPolicy, CompensationScope, run_compensation};
    ///
    /// let scope = CompensationScope::new();
    /// scope.register_compensation(|| async {});
    /// run_compensation(&CompensationPolicy::none(), &scope, CancellationToken::never()).await?;
    /// assert_eq!(scope.len(), 1);
    /// # scope.clear();
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub const fn none() -> Self {
        Self::with_order(RunOrder::None)
    }

    /// Runs one action after another, the one registered last first.
    ///
    /// ```
    /// let policy = watershed::CompensationPolicy::sequential_reverse();
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub const fn sequential_reverse() -> Self {
        Self::with_order(RunOrder::SequentialReverse)
    }

    /// Runs all actions at once; they are started in reverse order of registration.
    ///
    /// ```
    /// let policy = watershed::CompensationPolicy::parallel();
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub const fn parallel() -> Self {
        Self::with_order(RunOrder::Parallel { limit: None })
    }

    /// Runs at most `limit` actions at once; they are started in reverse order of registration.
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// let eight = NonZeroUsize::new(8).unwrap();
    /// let policy = watershed::CompensationPolicy::parallel_limited(eight);
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub const fn parallel_limited(limit: NonZeroUsize) -> Self {
        Self::with_order(RunOrder::Parallel { limit: Some(limit) })
    }

    const fn with_order(order: RunOrder) -> Self {
        Self { order, retry: RetryPolicy::none(), clock: None }
    }

    /// The same policy, with failed actions tried again. Default: one attempt.
    ///
    /// ```
    /// use std::{num::NonZeroU32, time::Duration};
    /// use watershed::{CompensationPolicy, RetryPolicy};
    ///
    /// let twice = RetryPolicy::fixed(NonZeroU32::new(2).unwrap(), Duration::ZERO);
    /// let policy = CompensationPolicy::parallel().retry(twice);
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The same policy, with the waits between attempts taken from `clock`. Default: the
    /// [`SystemClock`]; a drain that rolls a message back uses the clock of its context.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use watershed::{CompensationPolicy, ManualClock};
    ///
    /// let policy = CompensationPolicy::default().clock(Arc::new(ManualClock::new()));
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    pub(crate) fn clock_or(mut self, clock: &Arc<dyn Clock>) -> Self {
        self.clock.get_or_insert_with(|| Arc::clone(clock));
        self
    }

    pub(super) fn sleep(&self, wait: std::time::Duration) -> crate::clock::Sleep {
        match &self.clock {
            Some(clock) => clock.sleep_until(clock.now() + wait),
            None => SystemClock::new().sleep_until(SystemClock::new().now() + wait),
        }
    }
}

impl Default for CompensationPolicy {
    fn default() -> Self {
        Self::sequential_reverse()
    }
}
