//! When to try something again.

use std::num::NonZeroU32;
use std::time::Duration;

/// How often something is tried, and how long to wait before each further attempt.
///
/// ```
/// use std::num::NonZeroU32;
/// use std::time::Duration;
/// use watershed::RetryPolicy;
///
/// let attempts = NonZeroU32::new(4).unwrap();
/// let policy = RetryPolicy::exponential(attempts, Duration::from_millis(100))
///     .cap(Duration::from_millis(250));
/// let waits: Vec<_> = (1..=4).map(|failed| policy.wait_after(failed)).collect();
/// assert_eq!(waits[0], Some(Duration::from_millis(100)));
/// assert_eq!(waits[1], Some(Duration::from_millis(200)));
/// assert_eq!(waits[2], Some(Duration::from_millis(250)));
/// assert_eq!(waits[3], None, "the fourth attempt was the last");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    attempts: NonZeroU32,
    first: Duration,
    doubling: bool,
    cap: Duration,
}

impl RetryPolicy {
    /// One attempt, no retry.
    ///
    /// ```
    /// assert_eq!(watershed::RetryPolicy::none().wait_after(1), None);
    /// ```
    #[must_use]
    pub const fn none() -> Self {
        Self::fixed(NonZeroU32::MIN, Duration::ZERO)
    }

    /// So many attempts in all, with the same wait between two of them.
    ///
    /// ```
    /// use std::{num::NonZeroU32, time::Duration};
    /// use watershed::RetryPolicy;
    ///
    /// let twice = RetryPolicy::fixed(NonZeroU32::new(2).unwrap(), Duration::ZERO);
    /// assert_eq!(twice.wait_after(1), Some(Duration::ZERO));
    /// assert_eq!(twice.wait_after(2), None);
    /// ```
    #[must_use]
    pub const fn fixed(attempts: NonZeroU32, wait: Duration) -> Self {
        Self { attempts, first: wait, doubling: false, cap: Duration::MAX }
    }

    /// So many attempts in all, with a wait that starts at `first` and doubles.
    ///
    /// ```
    /// use std::{num::NonZeroU32, time::Duration};
    /// use watershed::RetryPolicy;
    ///
    /// let policy = RetryPolicy::exponential(NonZeroU32::MAX, Duration::from_secs(1));
    /// assert_eq!(policy.wait_after(3), Some(Duration::from_secs(4)));
    /// ```
    #[must_use]
    pub const fn exponential(attempts: NonZeroU32, first: Duration) -> Self {
        Self { attempts, first, doubling: true, cap: Duration::MAX }
    }

    /// The same policy with no wait longer than `cap`.
    ///
    /// ```
    /// use std::{num::NonZeroU32, time::Duration};
    /// use watershed::RetryPolicy;
    ///
    /// let second = Duration::from_secs(1);
    /// let policy = RetryPolicy::exponential(NonZeroU32::MAX, second).cap(second);
    /// assert_eq!(policy.wait_after(9), Some(second));
    /// ```
    #[must_use]
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// How long to wait after so many failed attempts; `None` when it is time to give up.
    ///
    /// ```
    /// assert_eq!(watershed::RetryPolicy::default().wait_after(1), None);
    /// ```
    #[must_use]
    pub fn wait_after(&self, failed: u32) -> Option<Duration> {
        if failed >= self.attempts.get() {
            return None;
        }
        let wait = if self.doubling && failed > 1 {
            let factor = 1_u32.checked_shl(failed - 1).unwrap_or(u32::MAX);
            self.first.saturating_mul(factor)
        } else {
            self.first
        };
        Some(wait.min(self.cap))
    }
}

/// One attempt, no retry.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self::none()
    }
}
