//! Moving actions from one scope to another.
//!
//! Both scopes are locked while actions move, so that a thread which looks at where they were and
//! then at where they go finds each of them. Every scope has the number of its birth, and of two that
//! are locked at once the newer one is first: a scope ends in an older one.
//!
//! What a rollback has in hand cannot be moved. When its scope ends meanwhile, the scope that
//! follows counts these actions as *lent*: they come back to it, and its own rollback waits for
//! them, and drives them where the other one is not polled.

use std::collections::BTreeMap;

use super::columns::Columns;
use super::ended::EndedActions;
use super::place::Place;
use super::scope::CompensationScope;
use super::state::{Forward, ScopeInner, ScopeState, Wakers, wake};
use crate::sync::{Arc, MutexGuard, Weak};

/// What is done after the locks are released.
#[derive(Default)]
pub(super) struct Afterwards {
    pub(super) wakers: Vec<Wakers>,
    /// Actions of messages that have ended.
    done_with: Vec<Columns>,
}

impl Afterwards {
    pub(super) fn finish(self) {
        self.wakers.into_iter().for_each(|wakers| wake(Some(wakers)));
        for mut actions in self.done_with {
            actions.clear();
        }
    }
}

/// Actions in the hands of rollbacks of scopes that have ended here, by the births of these.
#[derive(Default)]
pub(super) struct Lent {
    count: usize,
    by: BTreeMap<u64, (Weak<ScopeInner>, usize)>,
}

impl Lent {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A scope whose rollback has some in hand.
    pub(super) fn first(&mut self) -> Option<CompensationScope> {
        loop {
            let (scope, _) = self.by.first_key_value()?.1;
            if let Some(scope) = scope.upgrade() {
                return Some(CompensationScope::from(scope));
            }
            let gone = self.by.pop_first().map_or(0, |(_, (_, count))| count);
            self.count -= gone;
        }
    }

    fn add(&mut self, scope: &Arc<ScopeInner>, count: usize) {
        if count > 0 {
            self.count += count;
            self.by.insert(scope.born, (Arc::downgrade(scope), count));
        }
    }

    fn append(&mut self, other: Option<Box<Self>>) {
        if let Some(mut other) = other {
            self.count += other.count;
            self.by.append(&mut other.by);
        }
    }

    fn give_back(&mut self, born: u64, count: usize) {
        let Some((_, left)) = self.by.get_mut(&born) else { return };
        let count = count.min(*left);
        *left -= count;
        self.count -= count;
        if *left == 0 {
            self.by.remove(&born);
        }
    }
}

/// What a rollback of a scope that is over has no more in hand.
pub(super) struct GivenBack {
    pub(super) count: usize,
    pub(super) ended: EndedActions,
    /// Those to be staged again.
    pub(super) rest: Columns,
}

/// Calls `change` with the scope where what goes to `to` is by now. The caller may hold the lock of a
/// scope that ends in `to`.
fn at_end_of<T>(
    to: &CompensationScope,
    after: &mut Afterwards,
    change: impl FnOnce(&CompensationScope, &mut ScopeState, &mut Afterwards) -> T,
) -> Option<T> {
    at_end_unless(|_| false, to, after, change)
}

/// The same, unless `stop` says so of a scope on the way that is over.
fn at_end_unless<T>(
    stop: impl Fn(&Forward) -> bool,
    to: &CompensationScope,
    after: &mut Afterwards,
    change: impl FnOnce(&CompensationScope, &mut ScopeState, &mut Afterwards) -> T,
) -> Option<T> {
    let mut scope = to.clone();
    loop {
        let mut state = scope.inner.lock();
        let Some(forward) = &state.forward else {
            if scope.inner.has_mark() {
                scope.inner.clear_below(&mut state, after);
            }
            return Some(change(&scope, &mut state, after));
        };
        if stop(forward) {
            return None;
        }
        // Who follows is kept by the one before it, so that no handle is the last one here.
        let next = forward.to.clone();
        drop(state);
        scope = next;
    }
}

/// Where the actions of a scope go when it ends.
pub(super) enum Ending {
    /// They are the next scope's.
    Moved,
    /// They are done with.
    Dropped,
    /// They are done with if a scope on the way has ended with final success, and the next one's
    /// if not.
    DroppedIfFinal,
}

impl CompensationScope {
    /// Moves every action of `other` into this scope. They keep their place in the order of
    /// registration, whichever scope they were registered on. What a rollback of `other` has in hand
    /// is not there to be moved: where it does not succeed, it is staged on `other` again.
    ///
    /// ```
    /// use watershed::CompensationScope;
    ///
    /// let (order, payment) = (CompensationScope::new(), CompensationScope::new());
    /// payment.register_compensation(async || {});
    /// order.absorb(&payment);
    /// assert_eq!((order.len(), payment.len()), (1, 0));
    /// # order.clear();
    /// ```
    pub fn absorb(&self, other: &CompensationScope) {
        let mut to = self.clone();
        while !Arc::ptr_eq(&to.inner, &other.inner) {
            let (mut from, mut into) = lock_both(&other.inner, &to.inner);
            if let Some(forward) = &into.forward {
                let next = forward.to.clone();
                drop((from, into));
                to = next;
                continue;
            }
            let mut actions = from.take();
            let wakers = to.take_in(&mut into, &mut actions, &mut from);
            drop((from, into));
            return wake(wakers);
        }
    }

    /// Moves what is staged here to the scope in which this one will end.
    pub(crate) fn hand_over(&self, to: &CompensationScope) {
        self.inner.untouch();
        let mut after = Afterwards::default();
        self.inner.look(|state| state.move_unless(to, &mut after, |_| false));
        after.finish();
    }

    /// Ends this scope: what it has, and what comes later, goes to another one.
    pub(crate) fn forward_to(&self, to: &CompensationScope) {
        let forward = Forward { to: to.clone(), is_final: false, late: None };
        drop(self.end(forward, &Ending::Moved));
    }

    /// Ends this scope, and hands out what is done with.
    pub(super) fn end(&self, mut forward: Forward, ending: &Ending) -> Columns {
        let to = forward.to.clone();
        let mut after = Afterwards::default();
        let (done_with, old) = self.inner.look(|state| {
            if state.forward.is_none() {
                self.lend(state, &to, &mut after);
            }
            let moved = match ending {
                Ending::Moved => state.move_unless(&to, &mut after, |_| false),
                Ending::Dropped => None,
                Ending::DroppedIfFinal => state.move_unless(&to, &mut after, |next| next.is_final),
            };
            forward.is_final |= moved.is_none();
            let done_with = if moved.is_none() { state.take() } else { Columns::default() };
            (done_with, state.forward.replace(Box::new(forward)))
        });
        after.finish();
        drop(old);
        done_with
    }

    /// What is in the hands of rollbacks is the next scope's, once it is there again.
    fn lend(&self, state: &mut ScopeState, to: &CompensationScope, after: &mut Afterwards) {
        let running = state.session.as_ref().map_or(0, |session| session.running);
        let lent = state.lent.take();
        if running == 0 && lent.is_none() {
            return;
        }
        // A batch comes back at once.
        self.inner.signals.want();
        at_end_of(to, after, |scope, into, _| {
            // That is where they come back, whatever becomes of those that are staged.
            if let Some(place) = state.place.take() {
                place.move_to(into.place_in(scope));
            }
            let into = into.lent.get_or_insert_default();
            into.add(&self.inner, running);
            into.append(lent);
        });
    }

    /// Takes actions of another scope in, and the place of those that are reserved. Hands out who is
    /// to be woken.
    fn take_in(
        &self,
        state: &mut ScopeState,
        actions: &mut Columns,
        from: &mut ScopeState,
    ) -> Option<Wakers> {
        if let Some(place) = from.place.take() {
            let target = state.place_in(self);
            // What a rollback has in hand comes back where it was, or to the scope that follows.
            if from.session.as_ref().is_some_and(|session| session.running > 0) {
                from.place = place.split_to(target);
            } else {
                place.move_to(target);
            }
        }
        state.staged.append(actions);
        self.announced(state)
    }

    /// Takes back what the rollback of a scope that has ended here had in hand.
    fn take_back(
        &self,
        state: &mut ScopeState,
        born: u64,
        back: GivenBack,
        after: &mut Afterwards,
    ) -> Option<Wakers> {
        if let Some(lent) = &mut state.lent {
            lent.give_back(born, back.count);
            if lent.is_empty() {
                state.lent = None;
            }
        }
        let GivenBack { mut ended, mut rest, .. } = back;
        ended.elsewhere.iter_mut().for_each(|(at, _)| *at = at.for_others());
        if let Some(session) = &mut state.session {
            // Its rollbacks were there when these ended.
            session.succeeded += ended.succeeded;
            session.give_up(ended, after);
        } else {
            let EndedActions { mut failed, elsewhere, .. } = ended;
            state.staged.append(&mut failed);
            for (_, mut actions) in elsewhere {
                state.staged.append(&mut actions);
            }
        }
        state.staged.append(&mut rest);
        self.announced(state)
    }
}

impl ScopeState {
    /// How many actions are in the hands of rollbacks of scopes that have ended here.
    pub(super) fn lent(&self) -> usize {
        self.lent.as_ref().map_or(0, |lent| lent.count)
    }

    /// The place of what is reserved in this scope, whose state this is.
    pub(super) fn place_in(&mut self, scope: &CompensationScope) -> &Arc<Place> {
        self.place.get_or_insert_with(|| Place::in_scope(&scope.inner))
    }

    /// Moves what is staged to where the actions of `to` are, unless `stop` says so on the way.
    fn move_unless(
        &mut self,
        to: &CompensationScope,
        after: &mut Afterwards,
        stop: impl Fn(&Forward) -> bool,
    ) -> Option<()> {
        if let Some(session) = &mut self.session {
            session.given_up.take(&mut self.staged);
        }
        if self.staged.is_empty() && self.place.is_none() {
            // Whether to stop is asked all the same.
            return at_end_unless(stop, to, after, |_, _, _| ());
        }
        at_end_unless(stop, to, after, |scope, into, after| {
            let mut staged = std::mem::take(&mut self.staged);
            after.wakers.extend(scope.take_in(into, &mut staged, self));
            // Empty, with the room it has grown.
            self.staged = staged;
        })
    }

    /// Says to the scope that follows this one what a rollback has no more in hand.
    pub(super) fn give_back(&self, born: u64, back: GivenBack, after: &mut Afterwards) {
        let Some(forward) = &self.forward else { return };
        at_end_of(&forward.to, after, |scope, into, after| {
            let wakers = scope.take_back(into, born, back, after);
            after.wakers.extend(wakers);
        });
    }
}

impl ScopeInner {
    /// Takes out what is below the mark: moves it to the drain's scope, or has it dropped.
    #[cold]
    pub(super) fn clear_below(&self, state: &mut ScopeState, after: &mut Afterwards) {
        let mut below = Columns::default();
        state.staged.move_below(self.take_mark(), &mut below);
        let Some(drain) = state.below_to.clone() else {
            state.place = None;
            return after.done_with.push(below);
        };
        at_end_of(&drain, after, |scope, into, after| {
            after.wakers.extend(scope.take_in(into, &mut below, state));
        });
    }
}

/// Locks two scopes that have nothing below their marks.
fn lock_both<'a>(
    from: &'a ScopeInner,
    to: &'a ScopeInner,
) -> (MutexGuard<'a, ScopeState>, MutexGuard<'a, ScopeState>) {
    loop {
        let both = if from.born > to.born {
            let from = from.lock();
            (from, to.lock())
        } else {
            let to = to.lock();
            (from.lock(), to)
        };
        if !from.has_mark() && !to.has_mark() {
            return both;
        }
        drop(both);
        from.look(|_| ());
        to.look(|_| ());
    }
}
