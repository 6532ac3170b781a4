//! Periodic ticks.
//!
//! A ticker knows the moment its next tick is due. When the clock has reached it the tick is
//! yielded, and [`MissedTicks`] says which moment is the next: due ticks are never stored, so a
//! ticker nobody polls costs nothing. The sleep is made when it is first needed. What stops a
//! ticker from outside is a cancellation source of its own, which its compensation cancels.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{FusedStream, Stream};

use crate::cancellation::{CancellationSource, CancellationToken, Cancelled};
use crate::clock::{Alarm, Clock, Tick};
use crate::diagnostics::COUNTERS;
use crate::error::{Error, ErrorCode};
use crate::panics;
use crate::step::StepContext;
use crate::undo::{Reservation, labelled};

/// Ticks in a row without a wait, after which the executor has its thread back.
const TICKS_IN_A_ROW: u32 = 64;

/// What becomes of the ticks that came due while nobody took them.
///
/// With a period of 10, a tick due at 10 that is taken at 35 is in each case yielded as the tick
/// 10. Then follow
///
/// | policy | ticks |
/// | --- | --- |
/// | `Burst` | 20 and 30 at once, then 40, 50, … |
/// | `Delay` | 45, 55, … |
/// | `Skip` | 40, 50, … |
///
/// ```
/// use watershed::timers::MissedTicks;
/// assert_eq!(MissedTicks::default(), MissedTicks::Skip);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedTicks {
    /// Every missed tick is yielded, as fast as they are taken, until the ticker has caught up.
    Burst,
    /// The next tick is due a whole period after the late one was taken.
    Delay,
    /// Missed ticks are left out; the next one is due at the next multiple of the period that lies
    /// ahead.
    #[default]
    Skip,
}

impl MissedTicks {
    /// The moment of the tick behind the one due at `due`, which is taken at `now`.
    fn next(self, due: Tick, now: Tick, period: Duration) -> Tick {
        // `now` was read before it was found to be due.
        let taken = now.max(due);
        match self {
            Self::Burst => due + period,
            Self::Delay => taken + period,
            Self::Skip => {
                let period = period.as_nanos().max(1);
                let ahead = (taken.since(due).as_nanos() / period + 1) * period;
                due + Duration::from_nanos(u64::try_from(ahead).unwrap_or(u64::MAX))
            }
        }
    }
}

fn first_tick(clock: &Arc<dyn Clock>, period: Duration) -> Result<Tick, Error> {
    if period.is_zero() {
        return Err(Error::validation("a period of zero ticks for ever at once"));
    }
    let tick = || match clock.now() + period {
        Tick::MAX => Ok(Tick::MAX),
        tick => clock.check().map(|()| tick),
    };
    panics::contain(tick).unwrap_or_else(|message| Err(Error::panic("the clock", &message)))
}

/// A stream of periodic ticks.
///
/// An item is the moment at which the tick was due; how late it was taken is the clock's time
/// since. A ticker whose every tick is late wakes its task and waits a poll now and then, so that
/// it keeps nobody from running.
///
/// # Cancel safety
///
/// A wait for the next tick that is dropped loses no tick. Dropping the ticker ends it and
/// withdraws its compensation.
///
/// ```
/// use std::time::Duration;
/// use watershed::{StepContext, timers::Ticker};
///
/// let context = StepContext::new("orders");
/// let ticker = Ticker::new(&context, Duration::from_secs(1))?;
/// drop(ticker);
/// assert!(context.scope().is_empty());
/// # Ok::<_, watershed::Error>(())
/// ```
#[must_use = "a ticker that is dropped has ended"]
pub struct Ticker {
    clock: Arc<dyn Clock>,
    token: CancellationToken,
    cancelled: Cancelled,
    stop: CancellationSource,
    period: Duration,
    /// When the next tick is due; [`Tick::MAX`] for never.
    due: Tick,
    sleep: Option<Alarm>,
    missed: MissedTicks,
    in_a_row: u32,
    /// The right to withdraw the compensation; there until the ticker has ended.
    reservation: Option<Reservation>,
}

impl Ticker {
    /// Ticks once a `period`, by the context's clock; the first tick is due one period after this call.
    ///
    /// A ticker ends when it is stopped or the context's token is cancelled. It registers a
    /// compensation on the context's scope that stops it, so that a rollback silences what the step
    /// has set in motion; the compensation is withdrawn when the ticker has ended or is dropped.
    ///
    /// [`Duration::MAX`] never ticks.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::Validation`] when the period is zero
    /// - [`ErrorCode::Clock`] when the clock cannot wait, [`ErrorCode::Panic`] when it panics
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use futures::StreamExt;
    /// use watershed::{ManualClock, StepContext, Tick, timers::Ticker};
    ///
    /// let clock = ManualClock::new();
    /// let context = StepContext::new("orders").with_clock(Arc::new(clock.clone()));
    /// let mut ticker = Ticker::new(&context, Duration::from_nanos(10))?;
    /// assert_eq!(context.scope().len(), 1);
    ///
    /// clock.advance(Duration::from_nanos(10));
    /// assert_eq!(ticker.next().await, Some(Tick::from_nanos(10)));
    /// ticker.stop();
    /// assert_eq!(ticker.next().await, None);
    /// assert!(context.scope().is_empty());
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[track_caller]
    pub fn new(context: &StepContext, period: Duration) -> Result<Self, Error> {
        let clock = Arc::clone(context.clock());
        let due = first_tick(&clock, period)?;
        let stop = CancellationSource::new();
        let token = CancellationToken::linked([context.cancellation().clone(), stop.token()]);
        let stopping = stop.clone();
        let stops = labelled("stop the ticker", move || {
            stopping.cancel();
            std::future::ready(())
        });
        Ok(Self {
            clock,
            cancelled: token.cancelled(),
            token,
            stop,
            period,
            due,
            sleep: None,
            missed: MissedTicks::default(),
            in_a_row: 0,
            reservation: Some(context.reserve(stops)),
        })
    }

    /// What becomes of missed ticks. Default: [`MissedTicks::Skip`].
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use futures::StreamExt;
    /// use watershed::{ManualClock, StepContext, timers::{MissedTicks, Ticker}};
    ///
    /// let clock = ManualClock::new();
    /// let context = StepContext::new("orders").with_clock(Arc::new(clock.clone()));
    /// let period = Duration::from_nanos(10);
    /// let ticker = Ticker::new(&context, period)?.missed_ticks(MissedTicks::Burst);
    /// clock.advance(3 * period);
    /// assert_eq!(ticker.take(3).count().await, 3);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn missed_ticks(mut self, policy: MissedTicks) -> Self {
        self.missed = policy;
        self
    }

    /// Ends the ticker, withdraws its compensation and wakes whoever waits for a tick. Doing it
    /// again changes nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::{StepContext, timers::Ticker};
    ///
    /// let context = StepContext::new("orders");
    /// let mut ticker = Ticker::new(&context, Duration::from_secs(1))?;
    /// ticker.stop();
    /// assert!(context.scope().is_empty());
    /// # Ok::<_, watershed::Error>(())
    /// ```
    pub fn stop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            reservation.disarm();
            self.sleep = None;
            self.stop.cancel();
        }
    }

    /// Starts anew with another period: the next tick is due one period after this call.
    ///
    /// # Errors
    ///
    /// In each case the ticker stays as it was.
    ///
    /// - [`ErrorCode::Validation`] when the period is zero
    /// - [`ErrorCode::Canceled`] when the ticker has ended, by whatever
    /// - [`ErrorCode::Panic`] when the clock panics
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use futures::StreamExt;
    /// use watershed::{ManualClock, StepContext, Tick, timers::Ticker};
    ///
    /// let clock = ManualClock::new();
    /// let context = StepContext::new("orders").with_clock(Arc::new(clock.clone()));
    /// let mut ticker = Ticker::new(&context, Duration::from_nanos(10))?;
    /// clock.advance(Duration::from_nanos(9));
    /// ticker.reset(Duration::from_nanos(20))?;
    /// clock.advance(Duration::from_nanos(20));
    /// assert_eq!(ticker.next().await, Some(Tick::from_nanos(29)));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn reset(&mut self, period: Duration) -> Result<(), Error> {
        let due = first_tick(&self.clock, period)?;
        if self.is_terminated() || self.token.is_cancelled() {
            return Err(Error::new(ErrorCode::Canceled, "the ticker has ended"));
        }
        self.period = period;
        self.due = due;
        self.sleep = None;
        Ok(())
    }

    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Option<Tick>> {
        if self.token.is_cancelled() {
            return Poll::Ready(None);
        }
        let now = self.clock.now();
        if !self.is_due(now, cx) {
            self.in_a_row = 0;
            return Pin::new(&mut self.cancelled).poll(cx).map(|()| None);
        }
        self.sleep = None;
        if self.in_a_row == TICKS_IN_A_ROW {
            self.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.in_a_row += 1;
        let tick = self.due;
        self.due = self.missed.next(tick, now, self.period);
        Poll::Ready(Some(tick))
    }

    /// Whether the tick is due; waits for it if not.
    fn is_due(&mut self, now: Tick, cx: &mut Context<'_>) -> bool {
        let Self { clock, due, sleep, .. } = self;
        (now >= *due && *due != Tick::MAX)
            || sleep.get_or_insert_with(|| Alarm::at(clock, *due)).poll(cx).is_ready()
    }
}

impl Stream for Ticker {
    type Item = Tick;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Tick>> {
        if self.is_terminated() {
            return Poll::Ready(None);
        }
        let poll = panics::contain(|| self.poll_tick(cx)).unwrap_or_else(|_| {
            // A clock that panics ends the ticker: an item has no room for more.
            COUNTERS.contained_panics.add(1);
            Poll::Ready(None)
        });
        if poll == Poll::Ready(None) {
            self.stop();
        }
        poll
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.is_terminated().then_some(0))
    }
}

impl FusedStream for Ticker {
    fn is_terminated(&self) -> bool {
        self.reservation.is_none()
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Ticker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticker")
            .field("period", &self.period)
            .field("due", &self.due)
            .field("missed", &self.missed)
            .field("ended", &self.is_terminated())
            .finish_non_exhaustive()
    }
}
