//! A place for one waker, as a lock.
//!
//! The one of `futures` synchronizes a registration and a look at it by two changes of one atomic,
//! as a lock does, but by atomics that no checker sees.

use std::task::Waker;

use crate::sync::Mutex;

pub(crate) struct AtomicWaker(Mutex<Option<Waker>>);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn register(&self, waker: &Waker) {
        let old = self.0.lock().unwrap().replace(waker.clone());
        drop(old);
    }

    pub(crate) fn take(&self) -> Option<Waker> {
        self.0.lock().unwrap().take()
    }
}
