//! Where reserved actions are, so that they can be withdrawn after they have moved.
//!
//! The reservations of a scope have one place in common. When the actions move to another scope,
//! their place points to the place of that one: who looks for a reservation follows the way, and
//! shortens it for the next.

use super::scope::CompensationScope;
use super::state::Inner;
use crate::lock::Lock;
use crate::sync::{Arc, Weak};

pub(super) struct Place(Lock<Whereabouts>);

enum Whereabouts {
    In(Weak<Inner>),
    MovedTo(Arc<Place>),
    /// It is being dropped.
    Gone,
}

impl Place {
    pub(super) fn in_scope(scope: &Arc<Inner>) -> Arc<Self> {
        Arc::new(Self(Lock::new(Whereabouts::In(Arc::downgrade(scope)))))
    }

    /// The actions are where those of `target` are.
    pub(super) fn move_to(&self, target: &Arc<Self>) {
        let old = std::mem::replace(&mut *self.0.lock(), Whereabouts::MovedTo(Arc::clone(target)));
        drop(old);
    }

    /// The place at the end of the way.
    pub(super) fn find(from: &Arc<Self>) -> Arc<Self> {
        let mut end = Arc::clone(from);
        while let Some(next) = end.next() {
            end = next;
        }
        let mut at = Arc::clone(from);
        while let Some(next) = at.next() {
            if !Arc::ptr_eq(&next, &end) {
                at.move_to(&end);
            }
            at = next;
        }
        end
    }

    fn take(&mut self) -> Whereabouts {
        std::mem::replace(self.0.get_mut(), Whereabouts::Gone)
    }

    fn next(&self) -> Option<Arc<Self>> {
        match &*self.0.lock() {
            Whereabouts::In(_) | Whereabouts::Gone => None,
            Whereabouts::MovedTo(next) => Some(Arc::clone(next)),
        }
    }

    /// The scope at the end of the way, if it is still there.
    pub(super) fn scope(&self) -> Option<CompensationScope> {
        match &*self.0.lock() {
            Whereabouts::In(scope) => scope.upgrade().map(CompensationScope::from),
            Whereabouts::MovedTo(_) | Whereabouts::Gone => None,
        }
    }
}

/// A long way is dropped step by step, and not one place within the other.
impl Drop for Place {
    fn drop(&mut self) {
        let mut next = self.take();
        while let Whereabouts::MovedTo(mut place) = next {
            next = Arc::get_mut(&mut place).map_or(Whereabouts::Gone, Self::take);
        }
    }
}
