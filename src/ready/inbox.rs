//! What the wakers of a bank write.
//!
//! A wake-up sets the bit of its place; the first one since the bank last slept wakes the bank's
//! task, and no other does. While the bank has its turn nothing needs to be woken: it looks again
//! before it sleeps.

use std::sync::Arc;
use std::task::Waker;

use futures::task::ArcWake;

use super::local;
use super::words::Words;
use crate::panics;
use crate::sync::AtomicWaker;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The mailbox of one bank.
pub(crate) struct Inbox {
    words: Words,
    task: AtomicWaker,
    /// The bank was woken and has not been polled since.
    is_roused: AtomicBool,
    /// How many banks of the drain are.
    roused: Arc<AtomicUsize>,
}

impl Inbox {
    /// A bank that is to be polled.
    pub(super) fn new(roused: &Arc<AtomicUsize>) -> Self {
        roused.fetch_add(1, Ordering::AcqRel);
        Self {
            words: Words::default(),
            task: AtomicWaker::new(),
            is_roused: AtomicBool::new(true),
            roused: Arc::clone(roused),
        }
    }

    /// Has the bank polled.
    pub(crate) fn rouse(&self) {
        if !self.is_roused.swap(true, Ordering::AcqRel) {
            self.roused.fetch_add(1, Ordering::AcqRel);
        }
        panics::wake_each(self.task.take());
    }

    /// The bank is polled. One that has slept collects from now on without being woken.
    #[inline]
    pub(super) fn begin(&self, slept: bool) {
        if slept {
            self.words.set_flag();
        }
        // One that is awake may be roused as well: its turn has come.
        if self.is_roused.load(Ordering::Acquire) {
            self.take_rouse();
        }
    }

    fn take_rouse(&self) -> bool {
        let roused = self.is_roused.swap(false, Ordering::AcqRel);
        if roused {
            self.roused.fetch_sub(1, Ordering::AcqRel);
        }
        roused
    }

    /// Whether nothing has come, and `task` will be woken by what comes.
    pub(super) fn sleep(&self, task: &Waker) -> bool {
        self.task.register(task);
        // Somebody may have roused it in its turn and found no waker, which was taken before.
        if self.is_roused.load(Ordering::Acquire) && self.take_rouse() {
            return false;
        }
        self.words.clear_flag()
    }

    /// The bank goes away, and is not waited for: whatever wakes one of its places from now on,
    /// does not count.
    pub(super) fn close(&self) {
        if self.is_roused.swap(true, Ordering::AcqRel) {
            self.roused.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Takes out the places below `end` that were woken.
    #[inline]
    pub(super) fn drain(&self, end: usize, woken: impl FnMut(u32)) {
        self.words.drain(end, woken);
    }
}

/// One place of a bank; its waker.
pub(crate) struct Node {
    pub(crate) number: u32,
    inbox: Arc<Inbox>,
}

/// Has a place of a bank polled.
#[inline]
pub(crate) fn notify(inbox: &Arc<Inbox>, place: u32) {
    if !local::note(address(inbox), place) && inbox.words.add(place) {
        inbox.rouse();
    }
}

impl Node {
    pub(super) fn new(number: u32, inbox: &Arc<Inbox>) -> Self {
        Self { number, inbox: Arc::clone(inbox) }
    }

    /// Has the place polled.
    #[inline]
    pub(crate) fn notify(&self) {
        notify(&self.inbox, self.number);
    }
}

impl ArcWake for Node {
    fn wake_by_ref(node: &Arc<Self>) {
        node.notify();
    }
}

pub(super) fn address(inbox: &Arc<Inbox>) -> usize {
    Arc::as_ptr(inbox).addr()
}
