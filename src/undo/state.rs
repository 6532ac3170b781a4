//! What the handles of a scope share: its actions, and where they go when it is over.
//!
//! Everything is behind one short lock, and nothing of the user's runs under it: actions, wakers
//! and errors are moved out and dropped, woken or shown after it is released. Where two scopes are
//! locked at once, the inner one is first: a scope never locks one that ends in it.
//!
//! A scope that serves one message after another has a *mark*: actions with a lower number belong
//! to messages that have ended. Setting it is one store; the actions are dropped, or moved to the
//! scope of the drain, by whoever looks at the scope next, or by the drain when its turn ends.

use std::collections::BTreeMap;
use std::task::Waker;

use super::columns::Columns;
use super::order;
use super::place::Place;
use super::scope::CompensationScope;
use super::session::{Session, Signals};
use crate::diagnostics::{COUNTERS, trace};
use crate::lock::Lock;
use crate::panics;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, MutexGuard};

#[derive(Default)]
pub(super) struct Inner {
    /// Set once something was staged here: a drain asks it after each message without locking.
    pub(super) touched: AtomicBool,
    /// The mark; 0 for none.
    mark: AtomicU64,
    /// It is the scope of a message, or ends in one.
    pub(super) nested: bool,
    pub(super) signals: Signals,
    state: Lock<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) staged: Columns,
    /// Where to stage instead, once this scope is over.
    pub(super) forward: Option<Forward>,
    /// Where the actions below the mark go; dropped where there is none.
    pub(super) below_to: Option<CompensationScope>,
    /// What was dropped from below the mark since the drain was last told.
    pub(super) dropped: Dropped,
    /// Where the actions that are reserved are said to be.
    pub(super) place: Option<Arc<Place>>,
    /// What the rollbacks of this scope have in common, while there are any.
    pub(super) session: Option<Box<Session>>,
}

/// How many actions were dropped without being run, and the first panic of a destructor.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub(super) count: usize,
    pub(super) panicked: Option<String>,
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

/// What is done after the lock of a scope is released.
#[derive(Default)]
struct Afterwards {
    below: Columns,
    /// Where they go now that their drain is over.
    to: Option<(CompensationScope, Option<Arc<Place>>)>,
    wakers: Option<Wakers>,
}

impl Inner {
    pub(super) fn new(nested: bool) -> Self {
        let mut inner = Self::default();
        inner.nested = nested;
        inner
    }

    /// Locks the scope without a look at the mark: for staging alone.
    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Everything that looks at a scope comes by here.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        if self.mark.load(Ordering::Relaxed) == 0 {
            return look(&mut state);
        }
        let after = self.clear_below(&mut state);
        let value = look(&mut state);
        drop(state);
        self.finish(after);
        value
    }

    /// Takes out what is below the mark.
    #[cold]
    fn clear_below(&self, state: &mut State) -> Afterwards {
        let mark = self.mark.swap(0, Ordering::Relaxed);
        let mut after = Afterwards::default();
        state.staged.move_below(mark, &mut after.below);
        let place = state.place.take();
        let Some(drain) = &state.below_to else {
            state.dropped.count += after.below.len();
            return after;
        };
        // Under both locks: a drain that ends meanwhile finds them in one scope or the other. It
        // has no mark of its own, so nothing of the user's runs here.
        let into = &mut drain.inner.lock();
        match drain.take_in(into, &mut after.below, place.as_ref()) {
            Ok(wakers) => after.wakers = wakers,
            Err(forward) => after.to = Some((forward.to, place)),
        }
        after
    }

    #[cold]
    fn finish(&self, Afterwards { mut below, to, wakers }: Afterwards) {
        wake(wakers);
        if let Some((scope, place)) = to {
            return scope.receive(&mut below, place.as_ref());
        }
        let (count, panicked) = below.clear();
        COUNTERS.compensations_cleared.add(count as u64);
        if panicked.is_some() {
            self.lock().dropped.note(panicked);
        }
    }

    /// Sets the mark: everything that is staged belongs to a message that has ended.
    #[inline]
    pub(super) fn set_mark(&self) {
        self.mark.store(order::mark(), Ordering::Relaxed);
    }

    pub(super) fn forget_mark(&self) {
        self.mark.store(0, Ordering::Relaxed);
    }
}

impl Dropped {
    pub(super) fn note(&mut self, panicked: Option<String>) {
        if self.panicked.is_none() {
            self.panicked = panicked;
        }
    }
}

impl From<Dropped> for (usize, Option<String>) {
    fn from(dropped: Dropped) -> Self {
        (dropped.count, dropped.panicked)
    }
}

impl State {
    /// Puts actions back, unless they belong elsewhere by now: then they stay with the caller.
    pub(super) fn restore(&mut self, actions: &mut Columns) {
        if self.forward.is_none() {
            self.staged.append(actions);
        }
    }

    /// Everything that is staged, what a rollback has given up included, and the place of what is
    /// reserved.
    pub(super) fn take(&mut self) -> (Columns, Option<Arc<Place>>) {
        let mut actions = std::mem::take(&mut self.staged);
        if let Some(session) = &mut self.session {
            session.take_failed(&mut actions);
        }
        (actions, self.place.take())
    }
}

pub(super) fn wake(wakers: Option<Wakers>) {
    panics::wake_each(wakers.into_iter().flat_map(BTreeMap::into_values));
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if let Some(session) = &mut state.session {
            session.take_failed(&mut state.staged);
        }
        report_lost(&state.staged);
    }
}

/// Tells that actions went away without having been run. This is called by destructors.
pub(super) fn report_lost(lost: &Columns) {
    if lost.is_empty() {
        return;
    }
    COUNTERS.compensations_lost.add(lost.len() as u64);
    trace::lost(lost.len(), &lost.places());
}
