//! One wait on the timer thread of `futures-timer`. The only file that uses that crate.
//!
//! The thread is shared by the whole process, and whatever it runs of a user's can kill it: a waker
//! that panics when it is woken or dropped. So it is given a waker of ours, a [`Relay`], that passes
//! the word on to the user's and contains its panics. The relay is told at each poll whom to wake;
//! the timer itself is polled once, when it is set. When the wait ends, or is dropped, the user's
//! waker leaves the relay on that thread, so that the timer thread never drops one.
//!
//! `futures-timer` panics where its thread could not be started, or is gone. [`check`] finds out
//! beforehand: it starts a thread, and then asks for a timer. A thread that is there stays, unless
//! other users of that crate kill it, which the poll of a timer notices.
//!
//! Its lock is that of `std` under model checkers, too: the thread is none of theirs.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures_timer::Delay;

use crate::error::Error;
use crate::panics;

/// What is known of the timer thread.
static THREAD: AtomicU8 = AtomicU8::new(UNKNOWN);
/// Nobody has asked for it, or it could not be had.
const UNKNOWN: u8 = 0;
/// It was there when it was last used.
const THERE: u8 = 1;
/// It was there once. `futures-timer` does not start another one.
const GONE: u8 = 2;

/// Whether timers can be set.
pub(super) fn check() -> Result<(), Error> {
    match THREAD.load(Ordering::Relaxed) {
        UNKNOWN => probe(),
        THERE => Ok(()),
        _ => Err(gone()),
    }
}

fn gone() -> Error {
    Error::clock("the timer thread of the process was killed")
}

fn probe() -> Result<(), Error> {
    let probe = thread::Builder::new().name("watershed-probe".to_owned()).spawn(|| ());
    match probe {
        Ok(probe) => {
            let _ = probe.join();
        }
        Err(cause) => {
            return Err(Error::clock("no thread can be started to wait by").with_source(cause));
        }
    }
    let mut delay = Delay::new(Duration::ZERO);
    if poll_delay(&mut delay, Waker::noop()).is_err() {
        return Err(Error::clock("the timer thread cannot be started"));
    }
    THREAD.store(THERE, Ordering::Relaxed);
    Ok(())
}

/// Whether the timer has fired; if not, it wakes `waker` then.
fn poll_delay(delay: &mut Delay, waker: &Waker) -> Result<bool, Error> {
    let polled = panics::contain(|| Pin::new(delay).poll(&mut Context::from_waker(waker)));
    polled.map(|poll| poll.is_ready()).map_err(|_| {
        let _ = THREAD.compare_exchange(THERE, GONE, Ordering::Relaxed, Ordering::Relaxed);
        gone()
    })
}

/// A timer that was set.
pub(super) struct Timer {
    relay: Arc<Relay>,
    delay: Delay,
    /// The timer thread knows the relay.
    known: bool,
}

impl Timer {
    pub(super) fn new(after: Duration) -> Self {
        Self { relay: Arc::default(), delay: Delay::new(after), known: false }
    }

    /// Waits until the timer fires; an error where that will never be.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Error> {
        if self.relay.pass_on_to(cx.waker()) {
            // Either the timer has fired, or its thread has ended and told all that waited.
            return poll_delay(&mut self.delay, Waker::noop()).map(|_| Poll::Ready(()));
        }
        if !std::mem::replace(&mut self.known, true)
            && poll_delay(&mut self.delay, &Waker::from(Arc::clone(&self.relay)))?
        {
            return Ok(Poll::Ready(()));
        }
        Ok(Poll::Pending)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let old = self.relay.state().waker.take();
        panics::drop_each(old);
    }
}

/// Stands between the timer thread and a task.
#[derive(Default)]
struct Relay(Mutex<TimerState>);

#[derive(Default)]
struct TimerState {
    woken: bool,
    waker: Option<Waker>,
}

impl Relay {
    fn state(&self) -> MutexGuard<'_, TimerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is `waker` that is woken. Returns whether the relay was woken before.
    fn pass_on_to(&self, waker: &Waker) -> bool {
        {
            let state = self.state();
            if state.woken || state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                return state.woken;
            }
        }
        let waker = waker.clone();
        let mut state = self.state();
        let (woken, old) =
            if state.woken { (true, Some(waker)) } else { (false, state.waker.replace(waker)) };
        drop(state);
        panics::drop_each(old);
        woken
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        let waker = {
            let mut state = self.state();
            state.woken = true;
            state.waker.take()
        };
        panics::wake_each(waker);
    }
}
