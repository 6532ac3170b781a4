//! What users bring along: executors, wakers, and values that misbehave.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use futures::task::{FutureObj, Spawn, SpawnError};
use watershed::{Clock, ManualClock, Sleep, Tick};

/// Panics when it is dropped.
#[derive(Debug)]
pub struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("bomb");
    }
}

/// Counts wake-ups.
#[derive(Default)]
pub struct Wakes(pub AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts those of it that are gone.
pub struct Gone(pub Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A clock that panics once it is told to.
#[derive(Debug, Default)]
pub struct Breaks(pub ManualClock, pub AtomicBool);

impl Clock for Breaks {
    fn now(&self) -> Tick {
        assert!(!self.1.load(Ordering::Relaxed), "the clock is broken");
        self.0.now()
    }

    fn sleep_until(&self, deadline: Tick) -> Sleep {
        self.0.sleep_until(deadline)
    }
}

/// An executor that a test runs by hand.
#[derive(Clone, Default)]
pub struct ByHand(Arc<Mutex<Vec<FutureObj<'static, ()>>>>);

impl ByHand {
    /// Polls every task once and keeps those that are pending.
    pub fn turn(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().expect("no panic"));
        let mut cx = Context::from_waker(Waker::noop());
        for mut task in tasks {
            if Pin::new(&mut task).as_mut().poll(&mut cx).is_pending() {
                self.0.lock().expect("no panic").push(task);
            }
        }
    }

    /// Whether it has no task.
    pub fn is_idle(&self) -> bool {
        self.0.lock().expect("no panic").is_empty()
    }

    /// Drops the task that was given first.
    pub fn drop_first(&self) {
        let first = self.0.lock().expect("no panic").remove(0);
        drop(first);
    }

    pub fn drop_all(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().expect("no panic"));
        drop(tasks);
    }
}

impl Spawn for ByHand {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        self.0.lock().expect("no panic").push(future);
        Ok(())
    }
}
