//! What a scope does with an action: stages it, where it is by now, and takes it out again.

use std::panic::Location;

use super::action::{Action, Plain};
use super::column::StoredAction;
use super::order;
use super::reservation::{Armed, Reservation, Reserved};
use super::scope::CompensationScope;
use super::state::{self, ScopeState, Wakers};
use crate::diagnostics::COUNTERS;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard};

impl CompensationScope {
    /// Stages a new action, giving it its number.
    #[inline]
    pub(crate) fn stage<A: Action>(&self, action: A, registered_at: &'static Location<'static>) {
        self.stage_stored(Plain(action), registered_at);
    }

    #[inline]
    pub(super) fn stage_stored<A: StoredAction>(
        &self,
        action: A,
        registered_at: &'static Location<'static>,
    ) {
        let mut state = self.inner.lock();
        if state.forward.is_some() {
            return Self::stage_late(state, action, registered_at);
        }
        state.staged.push(order::draw(), registered_at, action);
        self.announce(state);
    }

    /// Stages where the actions of this scope have gone.
    #[cold]
    fn stage_late<A: StoredAction>(
        state: MutexGuard<'_, ScopeState>,
        action: A,
        registered_at: &'static Location<'static>,
    ) {
        if let Some(to) = Self::follow(state) {
            to.stage_stored(action, registered_at);
        }
    }

    /// The scope that follows this one, for something that is registered late.
    fn follow(state: MutexGuard<'_, ScopeState>) -> Option<Self> {
        let forward = state.forward.as_ref()?;
        let (to, late) = (forward.to.clone(), forward.late.clone());
        drop(state);
        if let Some(late) = late {
            late.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            COUNTERS.compensations_late.add(1);
        }
        Some(to)
    }

    pub(super) fn reserve_stored<A: StoredAction>(
        &self,
        action: A,
        armed: Armed,
        registered_at: &'static Location<'static>,
    ) -> Reservation {
        let mut reserved = Some(Reserved::new(action, armed.clone()));
        let mut scope = self.clone();
        loop {
            // A look, so that the place of what is reserved from now on is a new one.
            let staged = scope.inner.look(|state| {
                if state.forward.is_some() {
                    return None;
                }
                let number = order::draw();
                if let Some(reserved) = reserved.take() {
                    state.staged.push(number, registered_at, reserved);
                }
                let place = Arc::clone(state.place_in(&scope));
                Some((place, number, scope.announced(state)))
            });
            if let Some((place, number, wakers)) = staged {
                state::wake(wakers);
                return Reservation::new(place, number, armed);
            }
            if let Some(to) = Self::follow(scope.inner.lock()) {
                scope = to;
            }
        }
    }

    /// Says that something was staged: to the drain, and to rollbacks that wait or have a batch.
    #[inline]
    fn announce(&self, mut state: MutexGuard<'_, ScopeState>) {
        self.inner.touched.store(true, Ordering::Release);
        if state.session.is_some() {
            let wakers = self.announced(&mut state);
            drop(state);
            state::wake(wakers);
        }
    }

    pub(super) fn announced(&self, state: &mut ScopeState) -> Option<Wakers> {
        self.inner.touched.store(true, Ordering::Release);
        let session = state.session.as_deref_mut()?;
        self.inner.signals.want();
        Some(session.waiters.take())
    }

    /// Takes out an action by its number: what a reservation withdraws.
    pub(super) fn withdraw(&self, number: u64) -> Option<Box<dyn Send>> {
        self.inner.look(|state| state.withdraw(number))
    }

    /// Takes out an action that has succeeded: the rollbacks that are there have run it.
    pub(super) fn withdraw_done(&self, number: u64) -> Option<Box<dyn Send>> {
        self.inner.look(|state| {
            let action = state.withdraw(number)?;
            if let Some(session) = &mut state.session {
                session.succeeded += 1;
                session.undone.insert(number);
            }
            Some(action)
        })
    }
}
