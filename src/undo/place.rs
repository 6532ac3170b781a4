//! Where reserved actions are, so that they can be withdrawn after they have moved.
//!
//! The reservations of a scope have one place in common. When the actions move to another scope,
//! their place points to the place of that one: who looks for a reservation follows the way, and
//! shortens it for the next. What a rollback has in hand meanwhile does not move: the place is
//! *split*, and leads to a new one of the old scope as well. Places only ever lead to newer places of
//! a scope, so no way is a circle.

use std::collections::BTreeSet;

use smallvec::{SmallVec, smallvec};

use super::scope::CompensationScope;
use super::state::ScopeInner;
use crate::lock::Lock;
use crate::sync::{Arc, Weak};

pub(super) struct Place(Lock<Whereabouts>);

enum Whereabouts {
    In(Weak<ScopeInner>),
    MovedTo(Arc<Place>),
    /// Some have moved, some have not.
    Split([Arc<Place>; 2]),
    /// It is being dropped.
    Gone,
}

impl Place {
    pub(super) fn in_scope(scope: &Arc<ScopeInner>) -> Arc<Self> {
        Arc::new(Self(Lock::new(Whereabouts::In(Arc::downgrade(scope)))))
    }

    /// The actions are where those of `target` are.
    pub(super) fn move_to(&self, target: &Arc<Self>) {
        self.set(Whereabouts::MovedTo(Arc::clone(target)));
    }

    /// The actions are where those of `target` are, but for some that have stayed. Returns the place
    /// of these.
    pub(super) fn split_to(&self, target: &Arc<Self>) -> Option<Arc<Self>> {
        let scope = self.scope()?;
        let rest = Self::in_scope(&scope.inner);
        self.set(Whereabouts::Split([Arc::clone(target), Arc::clone(&rest)]));
        Some(rest)
    }

    fn set(&self, whereabouts: Whereabouts) {
        let old = std::mem::replace(&mut *self.0.lock(), whereabouts);
        drop(old);
    }

    /// The places at the ends of all ways.
    pub(super) fn ends(from: &Arc<Self>) -> SmallVec<[Arc<Self>; 1]> {
        let (mut ends, mut seen) = (SmallVec::new(), BTreeSet::new());
        let mut left: SmallVec<[Arc<Self>; 2]> = smallvec![Self::find(from)];
        while let Some(place) = left.pop() {
            match place.split() {
                Some(ways) if seen.insert(Arc::as_ptr(&place).addr()) => {
                    left.extend(ways.iter().map(Self::find));
                }
                None if !ends.iter().any(|end| Arc::ptr_eq(end, &place)) => ends.push(place),
                _ => {}
            }
        }
        ends
    }

    /// The place at the end of the way, or where it splits.
    fn find(from: &Arc<Self>) -> Arc<Self> {
        let mut end = Arc::clone(from);
        let mut passed: SmallVec<[Arc<Self>; 2]> = SmallVec::new();
        while let Some(next) = end.next() {
            passed.push(std::mem::replace(&mut end, next));
        }
        // All of these lead there, wherever that has moved meanwhile.
        passed.pop();
        passed.iter().for_each(|place| place.move_to(&end));
        end
    }

    fn take(&mut self) -> Whereabouts {
        std::mem::replace(self.0.get_mut(), Whereabouts::Gone)
    }

    fn next(&self) -> Option<Arc<Self>> {
        match &*self.0.lock() {
            Whereabouts::MovedTo(next) => Some(Arc::clone(next)),
            _ => None,
        }
    }

    fn split(&self) -> Option<[Arc<Self>; 2]> {
        match &*self.0.lock() {
            Whereabouts::Split(ways) => Some(ways.clone()),
            _ => None,
        }
    }

    /// The scope where the way ends, if it is still there.
    pub(super) fn scope(&self) -> Option<CompensationScope> {
        match &*self.0.lock() {
            Whereabouts::In(scope) => scope.upgrade().map(CompensationScope::from),
            _ => None,
        }
    }
}

/// A long way is dropped step by step, and not one place within the other.
impl Drop for Place {
    fn drop(&mut self) {
        let mut left = vec![self.take()];
        while let Some(whereabouts) = left.pop() {
            let take = |mut place: Arc<Self>| Arc::get_mut(&mut place).map(Self::take);
            match whereabouts {
                Whereabouts::MovedTo(place) => left.extend(take(place)),
                Whereabouts::Split(ways) => left.extend(ways.into_iter().filter_map(take)),
                Whereabouts::In(_) | Whereabouts::Gone => {}
            }
        }
    }
}
