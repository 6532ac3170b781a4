//! How a rollback goes about its work.

use std::time::Duration;

use crate::error::Error;
use crate::retry::RetryPolicy;

/// How a rollback runs the actions of a scope: in which order, and how stubbornly.
///
/// | option | default |
/// | --- | --- |
/// | order | [`sequential_reverse`](CompensationPolicy::sequential_reverse) |
/// | [`retry`](CompensationPolicy::retry) | one attempt an action |
/// | [`attempt_timeout`](CompensationPolicy::attempt_timeout) | none |
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use watershed::{CompensationPolicy, CompensationScope, ErrorCode};
///
/// let scope = CompensationScope::new();
/// scope.register_compensation(std::future::pending::<()>); // a server that never answers
/// let policy = CompensationPolicy::sequential_reverse().attempt_timeout(Duration::from_millis(1));
/// let failure = scope.roll_back(&policy).await.unwrap_err();
/// assert_eq!(failure.report().failures()[0].error().code(), ErrorCode::Timeout);
/// # scope.clear();
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct CompensationPolicy {
    pub(super) order: RunOrder,
    pub(super) retry: RetryPolicy,
    pub(super) attempt_timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunOrder {
    None,
    SequentialReverse,
    Parallel { limit: usize },
}

impl CompensationPolicy {
    /// Runs nothing: every action stays staged.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{CompensationPolicy, CompensationScope};
    ///
    /// let scope = CompensationScope::new();
    /// scope.register_compensation(async || {});
    /// scope.roll_back(&CompensationPolicy::none()).await?;
    /// assert_eq!(scope.len(), 1);
    /// # scope.clear();
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub const fn none() -> Self {
        Self::with_order(RunOrder::None)
    }

    /// Runs one action after another, the one registered last first.
    #[must_use]
    pub const fn sequential_reverse() -> Self {
        Self::with_order(RunOrder::SequentialReverse)
    }

    /// Runs all actions at once; they are started in reverse order of registration.
    #[must_use]
    pub const fn parallel() -> Self {
        Self::with_order(RunOrder::Parallel { limit: usize::MAX })
    }

    /// Runs at most `limit` actions at once; they are started in reverse order of registration. With
    /// 0 the rollback fails with [`ErrorCode::Validation`](crate::ErrorCode::Validation).
    #[must_use]
    pub const fn parallel_limited(limit: usize) -> Self {
        Self::with_order(RunOrder::Parallel { limit })
    }

    const fn with_order(order: RunOrder) -> Self {
        Self { order, retry: RetryPolicy::none(), attempt_timeout: None }
    }

    /// The same policy, with failed actions tried again; the waits go by the rollback's clock.
    /// With no attempt at all the rollback fails with
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation). Default: one attempt.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The same policy, with a deadline for each attempt at an action, by the rollback's clock. An
    /// attempt that passes it is dropped and has failed, so that one that hangs holds up nobody for
    /// ever. Default: none, as with [`Duration::MAX`].
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Whether everything stays staged.
    pub(crate) fn runs_nothing(&self) -> bool {
        self.order == RunOrder::None
    }

    /// Whether a rollback can go by it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.order {
            RunOrder::Parallel { limit: 0 } => {
                Err(Error::validation("a rollback cannot run at most 0 actions at once"))
            }
            RunOrder::None => Ok(()),
            _ => self.retry.validate(),
        }
    }
}

impl Default for CompensationPolicy {
    fn default() -> Self {
        Self::sequential_reverse()
    }
}
