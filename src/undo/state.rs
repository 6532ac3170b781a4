//! What the handles of a scope share: its actions, and where they go when it is over.
//!
//! Everything is behind one short lock, and nothing of the user's runs under it: actions, wakers
//! and errors are moved out and dropped, woken or shown after it is released. For two scopes that are
//! locked at once see `moves`.
//!
//! A scope that serves one message after another has a *mark*: actions with a lower number belong
//! to messages that have ended. Setting it is one store; the actions are dropped, or moved to the
//! scope of the drain, by whoever looks at the scope next, or by the drain when its turn ends.

use std::collections::BTreeMap;
use std::task::Waker;

use super::columns::Columns;
use super::moves::{Afterwards, Lent};
use super::order;
use super::place::Place;
use super::scope::CompensationScope;
use super::session::{Session, Signals};
use crate::diagnostics::{COUNTERS, trace};
use crate::lock::Lock;
use crate::panics;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, MutexGuard};

pub(super) struct ScopeInner {
    /// Greater than that of every older scope.
    pub(super) born: u64,
    /// Set once something was staged here: a drain asks it after each message without locking.
    pub(super) touched: AtomicBool,
    /// The mark; 0 for none.
    mark: AtomicU64,
    /// It is the scope of a message, or ends in one.
    pub(super) nested: bool,
    pub(super) signals: Signals,
    state: Lock<ScopeState>,
}

/// What few scopes have is in a box: one that serves messages is there for each that is in flight.
#[derive(Default)]
pub(super) struct ScopeState {
    pub(super) staged: Columns,
    /// Where to stage instead, once this scope is over.
    pub(super) forward: Option<Box<Forward>>,
    /// Where the actions below the mark go; dropped where there is none.
    pub(super) below_to: Option<CompensationScope>,
    /// Where the actions that are reserved are said to be.
    pub(super) place: Option<Arc<Place>>,
    /// What the rollbacks of this scope have in common, while there are any.
    pub(super) session: Option<Box<Session>>,
    pub(super) lent: Option<Box<Lent>>,
}

/// What follows a scope that is over.
#[derive(Clone)]
pub(super) struct Forward {
    pub(super) to: CompensationScope,
    /// It ended with success that cannot be taken back.
    pub(super) is_final: bool,
    /// Counts what is registered afterwards.
    pub(super) late: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
}

/// Those who are to be woken once no lock is held.
pub(super) type Wakers = BTreeMap<u64, Waker>;

impl ScopeInner {
    pub(super) fn new(nested: bool) -> Self {
        Self {
            born: order::draw(),
            touched: AtomicBool::default(),
            mark: AtomicU64::default(),
            nested,
            signals: Signals::default(),
            state: Lock::default(),
        }
    }

    /// Locks the scope without a look at the mark: for staging alone.
    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, ScopeState> {
        self.state.lock()
    }

    /// Everything that looks at a scope comes by here.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut ScopeState) -> T) -> T {
        let mut state = self.lock();
        if !self.has_mark() {
            return look(&mut state);
        }
        let mut after = Afterwards::default();
        self.clear_below(&mut state, &mut after);
        let value = look(&mut state);
        drop(state);
        after.finish();
        value
    }

    /// Sets the mark: everything that is staged belongs to a message that has ended.
    #[inline]
    pub(super) fn set_mark(&self) {
        self.mark.store(order::mark(), Ordering::Relaxed);
    }

    pub(super) fn forget_mark(&self) {
        self.mark.store(0, Ordering::Relaxed);
    }

    pub(super) fn has_mark(&self) -> bool {
        self.mark.load(Ordering::Relaxed) != 0
    }

    pub(super) fn take_mark(&self) -> u64 {
        self.mark.swap(0, Ordering::Relaxed)
    }

    /// Whatever is staged is about to be moved.
    pub(super) fn untouch(&self) {
        self.touched.store(false, Ordering::Relaxed);
    }
}

impl ScopeState {
    pub(super) fn withdraw(&mut self, number: u64) -> Option<Box<dyn Send>> {
        let session = self.session.as_deref_mut();
        self.staged.withdraw(number).or_else(|| session?.given_up.withdraw(number))
    }

    /// Everything that is staged, what a rollback has given up included.
    pub(super) fn take(&mut self) -> Columns {
        let mut actions = std::mem::take(&mut self.staged);
        if let Some(session) = &mut self.session {
            session.given_up.take(&mut actions);
        }
        actions
    }
}

pub(super) fn wake(wakers: Option<Wakers>) {
    panics::wake_each(wakers.into_iter().flat_map(BTreeMap::into_values));
}

impl Default for ScopeInner {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Drop for ScopeInner {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if let Some(session) = &mut state.session {
            session.given_up.take(&mut state.staged);
        }
        report_lost(&state.staged);
    }
}

/// Tells that actions went away without having been run. This is called by destructors.
pub(super) fn report_lost(lost: &Columns) {
    let count = lost.len() - lost.lost();
    if count > 0 {
        COUNTERS.compensations_lost.add(count as u64);
        trace::lost(count, &lost.places());
    }
}
