//! Which desks have anything to do.
//!
//! A drain looks at those of its transports that were woken, or that it has said something to, since it
//! looked last. With a thousand of them, of which one at a time has a message, nearly all of the time
//! would go into looking at the others: `cargo bench -p benches --bench settlement -- in_turn`.

use std::fmt;
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::lock::Lock;
use crate::panics;
use crate::sync::AtomicWaker;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Where the bells of all desks of a drain ring.
pub(crate) struct DeskBells {
    rung: Lock<Vec<usize>>,
    /// The task of the drain.
    task: AtomicWaker,
}

impl Default for DeskBells {
    fn default() -> Self {
        Self { rung: Lock::default(), task: AtomicWaker::new() }
    }
}

impl DeskBells {
    /// Whom to wake when one of them is rung.
    pub(crate) fn listen(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Takes out the numbers of those that were rung, in the order in which they were.
    pub(crate) fn take(&self, rung: &mut Vec<usize>) {
        rung.clear();
        std::mem::swap(rung, &mut *self.rung.lock());
    }

    /// Whether none is rung.
    pub(crate) fn are_silent(&self) -> bool {
        self.rung.lock().is_empty()
    }
}

/// The bell of one desk.
pub struct DeskBell {
    number: usize,
    is_rung: AtomicBool,
    bells: Arc<DeskBells>,
}

impl DeskBell {
    /// One that is rung.
    pub(crate) fn new(number: usize, bells: &Arc<DeskBells>) -> Arc<Self> {
        let bells = Arc::clone(bells);
        let bell = Self { number, is_rung: AtomicBool::new(false), bells };
        bell.note();
        Arc::new(bell)
    }

    /// Has the desk looked at when the drain next looks at any. Says nothing to its task.
    pub(crate) fn note(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            self.bells.rung.lock().push(self.number);
        }
    }

    /// The desk is about to be looked at: all that was said before it was rung is seen.
    pub(crate) fn is_heard(&self) {
        self.is_rung.swap(false, Ordering::AcqRel);
    }

    fn ring(&self) {
        self.note();
        panics::wake_each(self.bells.task.take());
    }
}

impl fmt::Debug for DeskBell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeskBell").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Wake for DeskBell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// Where a desk has its bell rung, whichever drain it has.
#[derive(Default)]
pub(crate) struct BellPull {
    bell: Lock<Option<Arc<DeskBell>>>,
    /// The drain has not looked since.
    is_pulled: AtomicBool,
}

impl BellPull {
    /// The bell of the drain that begins to look at it, or none.
    pub(crate) fn hang(&self, bell: Option<Arc<DeskBell>>) {
        *self.bell.lock() = bell;
    }

    /// Something was said to the desk that the drain has to look at.
    #[inline]
    pub(crate) fn pull(&self) {
        if !self.is_pulled.load(Ordering::Acquire) {
            self.pull_first();
        }
    }

    #[inline(never)]
    fn pull_first(&self) {
        self.is_pulled.swap(true, Ordering::AcqRel);
        if let Some(bell) = &*self.bell.lock() {
            bell.note();
        }
    }

    /// The drain is about to look: what is said from here on is for the next time.
    pub(crate) fn is_heard(&self) {
        self.is_pulled.swap(false, Ordering::AcqRel);
    }
}
