//! What the rollbacks of one scope that are there at the same time have in common.
//!
//! The attempts that are on their way are one run, which lives here, in the scope: whichever rollback
//! is polled takes it out, drives all of it, starts further actions under its own terms, and puts it
//! back, so that one which is held and not polled holds up nobody. An attempt keeps the terms of the
//! rollback that started it. When that one goes away, its attempts are dropped and their actions are
//! staged again, for the next one to start anew. An action that failed for good waits here so that no
//! rollback takes it again which was there when it failed, also where a later one has begun it since
//! and gone away (but for actions that this one could not run: see `given_up`). Each rollback answers when nothing is staged and nothing runs, and names what has
//! failed since it came, each action once.
//!
//! The driver takes a batch of actions under one lock, and works through it within one poll. It looks
//! at two atomics between actions instead: whether somebody wants it to come back to the lock, and
//! how many of the batch have succeeded, which it tells to whoever counts.

use std::collections::BTreeSet;

use super::columns::Columns;
use super::ended::EndedActions;
use super::given_up::GivenUp;
use super::moves::Afterwards;
use super::report::FailedAction;
use super::run::ActionRun;
use crate::panics;
use crate::sync::ThreadId;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::waiters::Waiters;

#[derive(Default)]
pub(super) struct Session {
    /// The id of the rollback that joined last.
    pub(super) last_id: u64,
    pub(super) members: usize,
    /// Who is to be woken when the run, or what is left to be done, has changed.
    pub(super) waiters: Waiters,
    /// The run while nobody polls it.
    pub(super) run: Option<Box<ActionRun>>,
    /// The thread that has the run in its hands.
    pub(super) driver: Option<ThreadId>,
    /// Threads that poll attempts of this scope beside the run.
    pub(super) beside: Vec<ThreadId>,
    /// Rollbacks that have gone away while another one had their attempts in its hands.
    pub(super) gone: Vec<u64>,
    /// Actions of the run, those of a batch that have succeeded included.
    pub(super) running: usize,
    /// How many of these were taken as a batch.
    pub(super) batch: usize,
    /// The scope was cleared while the batch was out.
    pub(super) cleared: bool,
    pub(super) succeeded: usize,
    pub(super) given_up: GivenUp,
    /// How actions failed for good, in the order in which they were given up.
    failures: Vec<Failed>,
    /// How many failures there have been, those included that went when the scope was cleared.
    pub(super) failures_so_far: usize,
    /// The numbers of those that succeeded although somebody had given them up.
    pub(super) undone: BTreeSet<u64>,
}

struct Failed {
    /// How many failures there were before.
    before: usize,
    failure: FailedAction,
}

/// What the driver of a run and the others tell each other without the lock.
#[derive(Debug, Default)]
pub(super) struct Signals {
    wanted: AtomicBool,
    succeeded: AtomicUsize,
}

impl Session {
    /// How many actions are not among those that are staged.
    pub(super) fn held(&self, signals: &Signals) -> usize {
        self.running - signals.succeeded() + self.given_up.len()
    }

    /// A rollback joins: what has failed so far is to be run again. Returns its id.
    pub(super) fn join(&mut self) -> u64 {
        self.members += 1;
        self.last_id += 1;
        self.given_up.join(self.last_id);
        self.last_id
    }

    /// Takes in what has failed. What lives elsewhere is another one's turn, perhaps.
    pub(super) fn give_up(&mut self, ended: EndedActions, after: &mut Afterwards) {
        let EndedActions { mut failed, elsewhere, failures, .. } = ended;
        self.given_up.by_all.append(&mut failed);
        if !elsewhere.is_empty() {
            after.wakers.push(self.waiters.take());
        }
        for (at, actions) in elsewhere {
            self.given_up.add_elsewhere(self.last_id, at, actions);
        }
        self.add_failures(failures);
    }

    pub(super) fn add_failures(&mut self, failures: impl IntoIterator<Item = FailedAction>) {
        for failure in failures {
            self.failures.push(Failed { before: self.failures_so_far, failure });
            self.failures_so_far += 1;
        }
    }

    /// What has failed since there had been so many failures, each action once: its last failure,
    /// and none where a later rollback has run it with success.
    pub(super) fn failures_since(&mut self, before: usize) -> Vec<FailedAction> {
        let since = self.failures.partition_point(|failed| failed.before < before);
        let mut failures: Vec<_> = match self.members {
            0 => self.failures.split_off(since).into_iter().map(|failed| failed.failure).collect(),
            _ => self.failures[since..].iter().map(|failed| failed.failure.clone()).collect(),
        };
        let mut told = self.undone.clone();
        failures.reverse();
        failures.retain(|failure| told.insert(failure.number));
        failures.reverse();
        failures
    }

    /// Forgets what the driver has taken and not started: it drops that when it comes back. Returns
    /// how many these are, and the failures of those that were `cleared`, which are dropped without
    /// the lock. What had failed and is run again has failed all the same.
    pub(super) fn clear(&mut self, signals: &Signals, cleared: &mut Columns) -> (usize, Cleared) {
        let taken = self.batch.saturating_sub(signals.succeeded() + 1);
        self.cleared = self.batch > 0;
        signals.want();
        let all = std::mem::take(&mut self.failures);
        let (forgotten, kept) =
            all.into_iter().partition(|failed| cleared.has(failed.failure.number));
        self.failures = kept;
        (taken, Cleared(forgotten))
    }
}

/// Failures that are forgotten: their errors are the user's.
#[derive(Default)]
pub(super) struct Cleared(Vec<Failed>);

impl Drop for Cleared {
    fn drop(&mut self) {
        panics::drop_each(self.0.drain(..));
    }
}

impl Signals {
    /// Asks the driver to come back to the lock.
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
