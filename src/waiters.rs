//! Wakers that wait for one thing, each under a key of its own.
//!
//! Cloning, waking and dropping a waker is the executor's code, so a list of waiters never does
//! any of it while its owner holds a lock: wakers are cloned before it is taken, and those that
//! are replaced or removed are handed out.

use std::collections::BTreeMap;
use std::task::Waker;

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    next: u64,
    waiting: BTreeMap<u64, Waker>,
}

impl Waiters {
    /// Remembers whom to wake under `key`, which is drawn at the first call. Returns the waker
    /// that is not needed any more.
    #[must_use = "a waker is dropped outside the lock"]
    pub(crate) fn wait(&mut self, key: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        let key = *key.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.waiting.insert(key, waker)
    }

    /// Forgets the waiter with this key, and hands its waker out.
    #[must_use = "a waker is dropped outside the lock"]
    pub(crate) fn remove(&mut self, key: u64) -> Option<Waker> {
        self.waiting.remove(&key)
    }

    /// Whether somebody waits under this key.
    pub(crate) fn contains(&self, key: u64) -> bool {
        self.waiting.contains_key(&key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Who has waited longest.
    #[must_use = "whoever was taken is to be woken"]
    pub(crate) fn take_first(&mut self) -> Option<Waker> {
        self.waiting.pop_first().map(|(_, waker)| waker)
    }

    /// Everybody who waits, in the order in which they began to.
    #[must_use = "whoever was taken is to be woken"]
    pub(crate) fn take(&mut self) -> BTreeMap<u64, Waker> {
        std::mem::take(&mut self.waiting)
    }
}
