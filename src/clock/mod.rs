//! Time that can be injected.
//!
//! A [`Clock`] has both halves of time: reading it, and waiting for it. Everything in this crate
//! that waits does so through the clock of its [`StepContext`](crate::StepContext), and nothing
//! outside this module asks the machine for the time or for a thread.
//!
//! - `system`, `timer`: the machine's clock, and the thread it waits by
//! - `manual`: a clock that is moved by hand
//! - `alarm`: how the library waits for a moment

mod alarm;
mod manual;
mod system;
mod timer;

pub(crate) use alarm::Alarm;

pub use manual::ManualClock;
pub use system::SystemClock;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::error::Error;

/// A moment on one clock: the time since that clock's own origin, in nanoseconds.
///
/// Ticks of different clocks have nothing to do with each other. The range is 584 years; what
/// would pass its end stays there, and [`Tick::MAX`] means never.
///
/// ```
/// use std::time::Duration;
/// use watershed::Tick;
///
/// let tick = Tick::ZERO + Duration::from_secs(2);
/// assert_eq!(tick.since(Tick::ZERO), Duration::from_secs(2));
/// assert_eq!(Tick::ZERO.since(tick), Duration::ZERO, "a clock that stepped back");
/// assert_eq!(tick + Duration::MAX, Tick::MAX);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// The origin of a clock.
    pub const ZERO: Self = Self(0);
    /// A moment that never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// The tick that many nanoseconds after the origin.
    ///
    /// ```
    /// use watershed::Tick;
    /// assert_eq!(Tick::from_nanos(5).as_nanos(), 5);
    /// ```
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    ///
    /// ```
    /// assert_eq!(watershed::Tick::ZERO.as_nanos(), 0);
    /// ```
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this tick; zero if `earlier` is the later one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::Tick;
    /// assert_eq!(Tick::from_nanos(7).since(Tick::from_nanos(4)), Duration::from_nanos(3));
    /// ```
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Tick {
    type Output = Self;

    /// The tick `duration` later, at most [`Tick::MAX`].
    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

/// A wait that a [`Clock`] hands out.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// A source of time: what it is now, and a way to wait.
///
/// What is due is judged by [`now`](Clock::now), each time something looks: a sleep only says when
/// to look. One that ends early is begun again, and where `now` steps backwards, what had not been
/// seen to be due waits longer.
///
/// ```
/// use std::time::Duration;
/// use watershed::{Clock, Error, Sleep, SystemClock, Tick};
///
/// /// Time that runs ten times as fast.
/// #[derive(Debug)]
/// struct Hurried(SystemClock);
///
/// impl Clock for Hurried {
///     fn now(&self) -> Tick {
///         Tick::from_nanos(self.0.now().as_nanos().saturating_mul(10))
///     }
///     fn sleep_until(&self, deadline: Tick) -> Sleep {
///         self.0.sleep_until(Tick::from_nanos(deadline.as_nanos().div_ceil(10)))
///     }
///     fn check(&self) -> Result<(), Error> {
///         self.0.check()
///     }
/// }
///
/// let clock = Hurried(SystemClock::new());
/// futures::executor::block_on(clock.sleep_until(clock.now() + Duration::from_millis(5)));
/// ```
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time by this clock.
    fn now(&self) -> Tick;

    /// A future that is ready once the clock has reached `deadline`; one for [`Tick::MAX`] never
    /// is. It must be ready at its first poll when the deadline has passed already.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the wait and nothing else.
    fn sleep_until(&self, deadline: Tick) -> Sleep;

    /// Whether this clock can tell the time and wait, here and now. An operation that may have to
    /// wait asks first, and does not begin where it cannot. By default: it can.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Clock`](crate::ErrorCode::Clock) with what is missing, such as a thread.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }
}
