//! How the library waits for a moment.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::{Clock, Sleep, Tick};
use crate::error::Error;
use crate::panics;

/// A wait for one moment of a clock. Whether it has come is what the clock says when it is asked; a
/// sleep that ends before is begun again.
///
/// The clock is the user's: where it panics, so does what is called here.
pub(crate) struct Alarm {
    clock: Arc<dyn Clock>,
    at: Tick,
    sleep: Option<Sleep>,
}

impl Alarm {
    /// An alarm at a moment, by a clock that was checked.
    pub(crate) fn at(clock: &Arc<dyn Clock>, at: Tick) -> Self {
        Self { clock: Arc::clone(clock), at, sleep: None }
    }

    /// An alarm at the same moment.
    pub(crate) fn again(&self) -> Self {
        Self::at(&self.clock, self.at)
    }

    /// An alarm after some time from now.
    ///
    /// # Errors
    ///
    /// Where there is something to wait for and the clock cannot.
    pub(crate) fn after(clock: &Arc<dyn Clock>, wait: Duration) -> Result<Self, Error> {
        let at = clock.now() + wait;
        if !wait.is_zero() && at != Tick::MAX {
            clock.check()?;
        }
        Ok(Self::at(clock, at))
    }

    /// An alarm for the time that something is still given: none, where the clock cannot wait.
    pub(crate) fn grace(clock: &Arc<dyn Clock>, grace: Duration) -> Self {
        Self::after(clock, grace).unwrap_or_else(|_| Self::at(clock, Tick::ZERO))
    }

    /// The moment of the alarm; [`Tick::MAX`] never comes.
    pub(crate) fn tick(&self) -> Tick {
        self.at
    }

    /// Whether the moment has come.
    pub(crate) fn is_due(&self) -> bool {
        self.at != Tick::MAX && self.clock.now() >= self.at
    }

    /// Waits for the moment.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_due() {
            return Poll::Ready(());
        }
        if self.at == Tick::MAX {
            return Poll::Pending;
        }
        let sleep = self.sleep.get_or_insert_with(|| self.clock.sleep_until(self.at));
        ready!(sleep.as_mut().poll(cx));
        panics::drop_each(self.sleep.take());
        if self.is_due() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        panics::drop_each(self.sleep.take());
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("at", &self.at).finish_non_exhaustive()
    }
}
