//! A clock that a test moves by hand.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Clock, Sleep, Tick};
use crate::lock::Lock;
use crate::panics;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A clock that stands still until it is advanced by hand, for tests that never wait, and for programs
/// with a time of their own: a game moves it by one frame a frame.
///
/// Clones are the same clock. Sleepers are woken in the order of their deadlines, and those of
/// one deadline in the order in which they began to wait.
///
/// ```
/// use std::time::Duration;
/// use futures::FutureExt;
/// use watershed::{Clock, ManualClock};
///
/// let clock = ManualClock::new();
/// let mut sleep = clock.sleep_until(clock.now() + Duration::from_secs(60));
/// assert!((&mut sleep).now_or_never().is_none());
/// clock.advance(Duration::from_secs(60));
/// assert!(sleep.now_or_never().is_some());
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    shared: Arc<ManualShared>,
}

#[derive(Debug, Default)]
struct ManualShared {
    now: AtomicU64,
    sleepers: Lock<Sleepers>,
}

#[derive(Debug, Default)]
struct Sleepers {
    next: u64,
    waiting: BTreeMap<(Tick, u64), Waker>,
}

impl ManualClock {
    /// A clock that stands at [`Tick::ZERO`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward and wakes the sleepers whose deadline has come.
    ///
    /// ```
    /// use std::time::Duration;
    /// use watershed::{Clock, ManualClock, Tick};
    ///
    /// let clock = ManualClock::new();
    /// clock.advance(Duration::from_millis(3));
    /// assert_eq!(clock.now(), Tick::from_nanos(3_000_000));
    /// ```
    pub fn advance(&self, by: Duration) {
        self.set(self.now() + by);
    }

    /// Moves the clock to the next deadline that somebody waits for, and tells whether there was
    /// one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures::FutureExt;
    /// use watershed::{Clock, ManualClock, Tick};
    ///
    /// let clock = ManualClock::new();
    /// let mut sleep = clock.sleep_until(Tick::from_nanos(9));
    /// assert!(!clock.advance_to_next(), "it waits from its first poll on");
    /// assert!((&mut sleep).now_or_never().is_none());
    /// assert!(clock.advance_to_next());
    /// assert_eq!(clock.now(), Tick::from_nanos(9));
    /// ```
    #[allow(clippy::must_use_candidate, reason = "whether time moved matters to few")]
    pub fn advance_to_next(&self) -> bool {
        let next = self.shared.sleepers.lock().waiting.keys().next().map(|(tick, _)| *tick);
        if let Some(tick) = next {
            self.set(tick.max(self.now()));
        }
        next.is_some()
    }

    /// Sets the clock, also backwards: a step back wakes nobody.
    ///
    /// ```
    /// use watershed::{Clock, ManualClock, Tick};
    ///
    /// let clock = ManualClock::new();
    /// clock.set(Tick::from_nanos(9));
    /// clock.set(Tick::from_nanos(4));
    /// assert_eq!(clock.now(), Tick::from_nanos(4));
    /// ```
    pub fn set(&self, now: Tick) {
        let mut due = Vec::new();
        {
            let mut sleepers = self.shared.sleepers.lock();
            self.shared.now.store(now.as_nanos(), Ordering::SeqCst);
            while let Some(first) = sleepers.waiting.first_entry() {
                if first.key().0 > now {
                    break;
                }
                due.push(first.remove());
            }
        }
        panics::wake_each(due);
    }

    /// How many sleepers wait for the clock.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.shared.sleepers.lock().waiting.len()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Tick {
        Tick::from_nanos(self.shared.now.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, deadline: Tick) -> Sleep {
        Box::pin(ManualSleep { clock: self.clone(), deadline, number: None })
    }
}

struct ManualSleep {
    clock: ManualClock,
    deadline: Tick,
    number: Option<u64>,
}

impl Future for ManualSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline == Tick::MAX {
            return Poll::Pending;
        }
        // Cloning and dropping a waker is the executor's code: neither happens under the lock.
        if self.waits_with(cx.waker()) {
            return Poll::Pending;
        }
        let waker = cx.waker().clone();
        let mut sleepers = self.clock.shared.sleepers.lock();
        let number = self.number.unwrap_or(sleepers.next);
        let (poll, old) = if self.clock.now() >= self.deadline {
            (Poll::Ready(()), [sleepers.waiting.remove(&(self.deadline, number)), Some(waker)])
        } else {
            if self.number.is_none() {
                sleepers.next += 1;
            }
            let old = sleepers.waiting.insert((self.deadline, number), waker);
            (Poll::Pending, [old, None])
        };
        drop(sleepers);
        if poll.is_pending() {
            self.number = Some(number);
        }
        panics::drop_each(old.into_iter().flatten());
        poll
    }
}

impl ManualSleep {
    /// Whether it is not due, and `waker` is what waits for it already.
    fn waits_with(&self, waker: &Waker) -> bool {
        let Some(number) = self.number else { return false };
        let sleepers = self.clock.shared.sleepers.lock();
        let known = sleepers.waiting.get(&(self.deadline, number));
        self.clock.now() < self.deadline && known.is_some_and(|known| known.will_wake(waker))
    }
}

impl Drop for ManualSleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let old = self.clock.shared.sleepers.lock().waiting.remove(&(self.deadline, number));
            panics::drop_each(old);
        }
    }
}
