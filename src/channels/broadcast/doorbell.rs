//! Which destinations of a broadcast have anything to say.
//!
//! Each has a waker of its own: one that waits is not asked again before it has rung, however often others
//! wake the broadcast.

use std::sync::Arc;
use std::task::{Wake, Waker};

use futures::task::AtomicWaker;

use crate::panics;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Rung by one destination.
pub(super) struct Doorbell {
    rung: AtomicBool,
    /// Whom to wake: the task of the broadcast.
    task: Arc<AtomicWaker>,
}

impl Doorbell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            panics::wake_each(self.task.take());
        }
    }
}

impl Wake for Doorbell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// What a destination was asked for and has not answered, and what it has.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each says one thing")]
pub(super) struct WaitsFor {
    pub(super) ready: bool,
    /// It has answered that there is room, and has got nothing since.
    pub(super) has_room: bool,
    pub(super) send: bool,
    pub(super) flush: bool,
    /// It has answered that nothing is to be flushed, and has got nothing since.
    pub(super) flushed: bool,
    pub(super) closed: bool,
    pub(super) end: bool,
}

/// The bell of a destination, and what it is waited for.
pub(super) struct LegWaits {
    bell: Arc<Doorbell>,
    pub(super) waker: Waker,
    pub(super) on: WaitsFor,
}

impl LegWaits {
    pub(super) fn new(task: &Arc<AtomicWaker>) -> Self {
        let bell = Arc::new(Doorbell { rung: AtomicBool::new(false), task: Arc::clone(task) });
        Self { waker: Waker::from(Arc::clone(&bell)), bell, on: WaitsFor::default() }
    }

    /// Hears whether it has rung since: then it is asked again for whatever it is waited for.
    pub(super) fn hear(&mut self) {
        if self.bell.rung.swap(false, Ordering::AcqRel) {
            self.on = WaitsFor::default();
        }
    }
}
