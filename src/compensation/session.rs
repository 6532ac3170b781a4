//! What the rollbacks of one scope that run at the same time have in common.
//!
//! Each action is taken by one of them, an action that failed for good waits here so that none of
//! them takes it again, and each answers only when nothing is staged and nothing is running.
//!
//! A rollback that is alone takes a batch of actions under one lock, and works through it within
//! one poll. It looks at two atomics between actions instead: whether somebody wants it to come
//! back to the lock, and how many of the batch have succeeded, which it tells to whoever counts.

use super::columns::Columns;
use super::report::FailedAction;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::waiters::Waiters;

#[derive(Default)]
pub(super) struct Session {
    pub(super) participants: usize,
    /// Actions that are with the rollbacks, those of a batch that have succeeded included.
    pub(super) running: usize,
    /// How many of these were taken as a batch.
    pub(super) batch: usize,
    /// The scope was cleared while the batch was out.
    pub(super) cleared: bool,
    pub(super) succeeded: usize,
    /// The actions that failed for good, and how, in the order in which they were given up.
    pub(super) failed: Columns,
    pub(super) failures: Vec<FailedAction>,
    pub(super) waiters: Waiters,
}

/// What a rollback and the others tell each other without the lock.
#[derive(Debug, Default)]
pub(super) struct Signals {
    wanted: AtomicBool,
    succeeded: AtomicUsize,
}

/// What a rollback does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Run the actions that were taken.
    Run,
    /// All that is left is running elsewhere.
    Wait,
    /// Cancelled with actions left.
    Stop,
    Done,
}

impl Session {
    /// Takes at most `most` actions out of `staged`. A rollback that runs its actions `alone` waits
    /// for those of others first.
    pub(super) fn take(
        &mut self,
        staged: &mut Columns,
        taken: &mut Columns,
        most: usize,
        alone: bool,
        cancelled: bool,
    ) -> Next {
        if self.running > 0 && (alone || staged.is_empty()) {
            return if cancelled { Next::Stop } else { Next::Wait };
        }
        if staged.is_empty() {
            return Next::Done;
        }
        if cancelled {
            return Next::Stop;
        }
        let most = if self.participants > 1 { 1 } else { most };
        let before = taken.len();
        staged.take_last(most, taken);
        let count = taken.len() - before;
        self.running += count;
        if alone {
            self.batch = count;
        }
        Next::Run
    }
}

impl Signals {
    /// Asks the rollback that has a batch to come back to the lock.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Says how many actions of the batch have succeeded. One that failed is told with the lock.
    #[inline]
    pub(super) fn tell_succeeded(&self, succeeded: usize) {
        self.succeeded.store(succeeded, Ordering::Release);
    }

    /// How many actions of the batch have succeeded. What they did is seen by whoever asks.
    pub(super) fn succeeded(&self) -> usize {
        self.succeeded.load(Ordering::Acquire)
    }

    /// The batch is back.
    pub(super) fn reset(&self) {
        self.wanted.store(false, Ordering::Relaxed);
        self.succeeded.store(0, Ordering::Relaxed);
    }
}
