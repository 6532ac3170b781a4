//! The machine's monotonic clock.
//!
//! It waits by the timer thread of `futures-timer`, which is one for the whole process and starts
//! with the first wait; `timer` has what can go wrong with it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::timer::{self, Timer};
use super::{Clock, Sleep, Tick};
use crate::error::Error;

/// No timer is set further ahead than this; a longer wait is made of several.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 30);

/// The machine's monotonic clock; it waits by a timer thread of its own, under any executor.
///
/// Where the process can start no thread, [`check`](Clock::check) says so, and a wait that is begun
/// all the same asks to be polled again and again until it is over. Where the platform does not tell
/// the time (`wasm32-unknown-unknown`), `check` says that, it is always [`Tick::ZERO`], and such a
/// wait is never over: a program there brings a [`Clock`] of its own.
///
/// ```
/// use watershed::{Clock, SystemClock};
///
/// let clock = SystemClock::new();
/// clock.check()?;
/// let before = clock.now();
/// assert!(clock.now() >= before);
/// # Ok::<_, watershed::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock(());

impl SystemClock {
    /// The system clock. All of them tell the same time.
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Tick {
        Tick::ZERO + origin::elapsed()
    }

    fn sleep_until(&self, deadline: Tick) -> Sleep {
        if deadline == Tick::MAX {
            return Box::pin(std::future::pending());
        }
        Box::pin(SystemSleep { deadline, timer: None })
    }

    fn check(&self) -> Result<(), Error> {
        if !origin::TELLS_THE_TIME {
            return Err(Error::clock("this platform does not tell the time"));
        }
        timer::check()
    }
}

struct SystemSleep {
    deadline: Tick,
    timer: Option<Timer>,
}

impl Future for SystemSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !origin::TELLS_THE_TIME {
            return Poll::Pending;
        }
        loop {
            let left = self.deadline.since(SystemClock::new().now());
            if left.is_zero() {
                return Poll::Ready(());
            }
            if self.timer.is_none() {
                self.timer = timer::check().ok().map(|()| Timer::new(left.min(LONGEST)));
            }
            match self.timer.as_mut().map(|timer| timer.poll(cx)) {
                Some(Ok(Poll::Pending)) => return Poll::Pending,
                // It has fired, early or for a part of the way.
                Some(Ok(Poll::Ready(()))) => self.timer = None,
                Some(Err(_)) | None => {
                    self.timer = None;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod origin {
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    pub(super) const TELLS_THE_TIME: bool = true;

    /// All system clocks of a process share one origin, so that their ticks compare.
    #[allow(clippy::disallowed_methods, reason = "this is where the time comes from")]
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(super) fn elapsed() -> Duration {
        ORIGIN.elapsed()
    }
}

/// To ask for the time would panic here.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
mod origin {
    use std::time::Duration;

    pub(super) const TELLS_THE_TIME: bool = false;

    pub(super) fn elapsed() -> Duration {
        Duration::ZERO
    }
}
