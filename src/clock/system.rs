//! The machine's monotonic clock. The only file that uses `futures-timer`.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures_timer::Delay;

use super::{Clock, Sleep, Tick};

/// All system clocks of a process share one origin, so that their ticks compare.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// No timer is set further ahead than this; a longer wait is made of several.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 30);

/// The machine's monotonic clock; it waits by the timer thread of `futures-timer`, which works
/// under any executor.
///
/// ```
/// use watershed::{Clock, SystemClock};
///
/// let clock = SystemClock::new();
/// let before = clock.now();
/// assert!(clock.now() >= before);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock(());

impl SystemClock {
    /// The system clock. All of them tell the same time.
    ///
    /// ```
    /// let clock = watershed::SystemClock::new();
    /// # let _ = clock;
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Tick {
        Tick::ZERO + ORIGIN.elapsed()
    }

    fn sleep_until(&self, deadline: Tick) -> Sleep {
        if deadline == Tick::MAX {
            return futures::future::pending().boxed();
        }
        let clock = *self;
        async move {
            loop {
                let left = deadline.since(clock.now());
                if left.is_zero() {
                    return;
                }
                Delay::new(left.min(LONGEST)).await;
            }
        }
        .boxed()
    }
}
