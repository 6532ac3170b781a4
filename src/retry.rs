//! When to try something again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::chance::Chance;
use crate::error::Error;
use crate::panics::{self, Held};

/// How often something is tried, and how long to wait before each further attempt.
///
/// Clones are the same policy: where it has jitter, they draw from one sequence. A policy of no
/// attempt at all is [`ErrorCode::Validation`](crate::ErrorCode::Validation) where it is used.
///
/// ```
/// use std::time::Duration;
/// use watershed::RetryPolicy;
///
/// let policy = RetryPolicy::exponential(4, Duration::from_millis(100))
///     .cap(Duration::from_millis(250));
/// let waits: Vec<_> = (1..=4).map(|failed| policy.wait_after(failed)).collect();
/// assert_eq!(waits[0], Some(Duration::from_millis(100)));
/// assert_eq!(waits[1], Some(Duration::from_millis(200)));
/// assert_eq!(waits[2], Some(Duration::from_millis(250)));
/// assert_eq!(waits[3], None, "the fourth attempt was the last");
/// ```
#[derive(Clone)]
pub struct RetryPolicy {
    waits: RetryWaits,
    cap: Duration,
    jitter: Option<Arc<Jitter>>,
    retryable: Option<Held<Predicate>>,
}

type Predicate = Arc<dyn Fn(&Error) -> bool + Send + Sync>;

#[derive(Clone)]
enum RetryWaits {
    Fixed { attempts: u32, wait: Duration },
    Doubling { attempts: u32, first: Duration },
    Custom(Held<Arc<dyn Fn(u32) -> Option<Duration> + Send + Sync>>),
}

/// Chance in a wait; every wait takes the next number.
struct Jitter {
    chance: Chance,
    /// How much of a wait is left to chance, in halves.
    halves: u32,
}

impl Jitter {
    fn apply(&self, wait: Duration) -> Duration {
        let left = wait / 2 * self.halves;
        let nanos = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        wait.saturating_sub(left) + Duration::from_nanos(self.chance.below(nanos))
    }
}

impl RetryPolicy {
    /// One attempt, no retry.
    ///
    /// ```
    /// assert_eq!(watershed::RetryPolicy::none().wait_after(1), None);
    /// ```
    #[must_use]
    pub const fn none() -> Self {
        Self::fixed(1, Duration::ZERO)
    }

    /// So many attempts in all, with the same wait between two of them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::RetryPolicy;
    ///
    /// let twice = RetryPolicy::fixed(2, Duration::ZERO);
    /// assert_eq!(twice.wait_after(1), Some(Duration::ZERO));
    /// assert_eq!(twice.wait_after(2), None);
    /// ```
    #[must_use]
    pub const fn fixed(attempts: u32, wait: Duration) -> Self {
        Self::with_waits(RetryWaits::Fixed { attempts, wait })
    }

    /// So many attempts in all, with a wait that starts at `first` and doubles.
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::RetryPolicy;
    ///
    /// let policy = RetryPolicy::exponential(u32::MAX, Duration::from_secs(1));
    /// assert_eq!(policy.wait_after(3), Some(Duration::from_secs(4)));
    /// ```
    #[must_use]
    pub const fn exponential(attempts: u32, first: Duration) -> Self {
        Self::with_waits(RetryWaits::Doubling { attempts, first })
    }

    /// What `wait_after` says for a number of failed attempts: how long to wait, or `None` to give
    /// up. If it panics, that is to give up as well.
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::RetryPolicy;
    ///
    /// let fibonacci = [1, 1, 2, 3, 5].map(Duration::from_secs);
    /// let policy = RetryPolicy::custom(move |failed| fibonacci.get(failed as usize - 1).copied());
    /// assert_eq!(policy.wait_after(4), Some(Duration::from_secs(3)));
    /// assert_eq!(policy.wait_after(6), None);
    /// ```
    #[must_use]
    pub fn custom(wait_after: impl Fn(u32) -> Option<Duration> + Send + Sync + 'static) -> Self {
        Self::with_waits(RetryWaits::Custom(Held::new(Arc::new(wait_after))))
    }

    const fn with_waits(waits: RetryWaits) -> Self {
        Self { waits, cap: Duration::MAX, jitter: None, retryable: None }
    }

    /// The same policy with no wait longer than `cap`, jitter included.
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::RetryPolicy;
    ///
    /// let second = Duration::from_secs(1);
    /// let policy = RetryPolicy::exponential(u32::MAX, second).cap(second);
    /// assert_eq!(policy.wait_after(9), Some(second));
    /// ```
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// The same policy with *full jitter*: a wait is anything from nothing to what it would be, so
    /// that many who failed together do not come back together. The same seed gives the same
    /// waits, in the order in which they are asked for.
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::RetryPolicy;
    ///
    /// let second = Duration::from_secs(1);
    /// let waits = || {
    ///     let policy = RetryPolicy::fixed(u32::MAX, second).full_jitter(42);
    ///     [1, 2, 3].map(|failed| policy.wait_after(failed).unwrap())
    /// };
    /// assert_eq!(waits(), waits());
    /// assert!(waits().iter().all(|wait| *wait <= second));
    /// ```
    #[must_use]
    pub fn full_jitter(mut self, seed: u64) -> Self {
        self.jitter = Some(Arc::new(Jitter { chance: Chance::new(seed), halves: 2 }));
        self
    }

    /// The same policy with *equal jitter*: one half of a wait stays, the other is left to chance
    /// as with [`full_jitter`](RetryPolicy::full_jitter).
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::RetryPolicy;
    ///
    /// let second = Duration::from_secs(1);
    /// let policy = RetryPolicy::fixed(u32::MAX, second).equal_jitter(42);
    /// let wait = policy.wait_after(1).unwrap();
    /// assert!(second / 2 <= wait && wait <= second);
    /// ```
    #[must_use]
    pub fn equal_jitter(mut self, seed: u64) -> Self {
        self.jitter = Some(Arc::new(Jitter { chance: Chance::new(seed), halves: 1 }));
        self
    }

    /// The same policy, giving up at once on errors for which `retryable` is false. If it panics,
    /// that is to give up as well.
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::{ErrorCode, RetryPolicy};
    ///
    /// let policy = RetryPolicy::fixed(u32::MAX, Duration::from_secs(1))
    ///     .only_if(|error| error.code() != ErrorCode::Validation);
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn only_if(mut self, retryable: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.retryable = Some(Held::new(Arc::new(retryable)));
        self
    }

    /// How long to wait after so many failed attempts; `None` when it is time to give up. Where the
    /// policy has jitter, every call draws anew.
    ///
    /// ```
    /// assert_eq!(watershed::RetryPolicy::default().wait_after(1), None);
    /// ```
    #[must_use]
    pub fn wait_after(&self, failed: u32) -> Option<Duration> {
        let wait = match &self.waits {
            RetryWaits::Fixed { attempts, wait } => (failed < *attempts).then_some(*wait)?,
            RetryWaits::Doubling { attempts, first } => {
                let factor = 1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
                (failed < *attempts).then(|| first.saturating_mul(factor))?
            }
            RetryWaits::Custom(wait_after) => {
                let wait_after = wait_after.get()?;
                panics::contain(|| wait_after(failed)).ok()??
            }
        };
        let wait = wait.min(self.cap);
        Some(self.jitter.as_ref().map_or(wait, |jitter| jitter.apply(wait)))
    }

    /// Refuses a policy that allows no attempt at all.
    /// How long to wait after so many failures, however many attempts there are.
    pub(crate) fn delay_after(&self, failed: u32) -> Duration {
        let attempts = match self.waits {
            RetryWaits::Fixed { attempts, .. } | RetryWaits::Doubling { attempts, .. } => attempts,
            RetryWaits::Custom(_) => u32::MAX,
        };
        match &self.waits {
            RetryWaits::Doubling { first, .. } if failed >= attempts => {
                let factor = 1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
                first.saturating_mul(factor).min(self.cap)
            }
            RetryWaits::Fixed { wait, .. } if failed >= attempts => (*wait).min(self.cap),
            _ => self.wait_after(failed).unwrap_or_default(),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        match self.waits {
            RetryWaits::Fixed { attempts: 0, .. } | RetryWaits::Doubling { attempts: 0, .. } => {
                Err(Error::validation("a retry policy needs at least one attempt"))
            }
            _ => Ok(()),
        }
    }

    /// The same for an attempt that failed with `error`.
    pub(crate) fn wait_after_error(&self, failed: u32, error: &Error) -> Option<Duration> {
        if let Some(retryable) = self.retryable.as_ref().and_then(Held::get) {
            panics::contain(|| retryable(error)).ok()?.then_some(())?;
        }
        self.wait_after(failed)
    }
}

/// One attempt, no retry.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RetryPolicy");
        match &self.waits {
            RetryWaits::Fixed { attempts, wait } => {
                debug.field("attempts", attempts).field("wait", wait)
            }
            RetryWaits::Doubling { attempts, first } => {
                debug.field("attempts", attempts).field("first", first)
            }
            RetryWaits::Custom(_) => debug.field("waits", &"custom"),
        };
        debug
            .field("cap", &self.cap)
            .field("jitter", &self.jitter.is_some())
            .finish_non_exhaustive()
    }
}
