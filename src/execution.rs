//! How an operation is carried out: tried again, and undone.

use std::time::Duration;

use crate::retry::RetryPolicy;
use crate::undo::CompensationPolicy;

/// How an operation is carried out: when it is tried again, how what a failed attempt did is
/// undone, and how long one that is told to stop is awaited.
///
/// | option | default |
/// | --- | --- |
/// | [`retry`](ExecutionPolicy::retry) | one attempt |
/// | [`compensation`](ExecutionPolicy::compensation) | sequential, in reverse, one attempt |
/// | [`grace`](ExecutionPolicy::grace) | 5 seconds |
///
/// ```
/// use std::time::Duration;
/// use watershed::{ExecutionPolicy, RetryPolicy};
///
/// let policy = ExecutionPolicy::new()
///     .retry(RetryPolicy::exponential(3, Duration::from_millis(50)).full_jitter(7));
/// # let _ = policy;
/// ```
#[derive(Clone, Debug)]
pub struct ExecutionPolicy {
    pub(crate) retry: RetryPolicy,
    pub(crate) compensation: CompensationPolicy,
    pub(crate) grace: Duration,
}

impl ExecutionPolicy {
    /// One attempt, undone in reverse.
    ///
    /// ```
    /// let policy = watershed::ExecutionPolicy::new();
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self {
            retry: RetryPolicy::none(),
            compensation: CompensationPolicy::sequential_reverse(),
            grace: Duration::from_secs(5),
        }
    }

    /// The same policy with failed attempts made again.
    ///
    /// ```
    /// use watershed::{ExecutionPolicy, RetryPolicy};
    /// let policy = ExecutionPolicy::new().retry(RetryPolicy::none());
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The same policy with another way to undo what a failed attempt did. Its waits go by the
    /// context's clock.
    ///
    /// ```
    /// use watershed::{CompensationPolicy, ExecutionPolicy};
    /// let policy = ExecutionPolicy::new().compensation(CompensationPolicy::parallel());
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn compensation(mut self, compensation: CompensationPolicy) -> Self {
        self.compensation = compensation;
        self
    }

    /// The same policy with another grace: how long an operation that was told to stop is awaited
    /// before it is dropped, by the context's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// let policy = watershed::ExecutionPolicy::new().grace(Duration::ZERO);
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

impl Default for ExecutionPolicy {
    fn default() -> Self {
        Self::new()
    }
}
