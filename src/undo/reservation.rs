//! An action that is staged before its effect.

use std::fmt;

use super::action::BoxAttempt;
use super::column::{LinkId, StoredAction};
use super::place::Place;
use super::scope::CompensationScope;
use super::undoing::Undoing;
use crate::diagnostics::COUNTERS;
use crate::panics;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Holds the right to withdraw an action that was staged before its effect, see
/// [`CompensationScope::reserve`](crate::CompensationScope::reserve). Dropping it leaves the action
/// staged.
///
/// ```
/// let scope = watershed::CompensationScope::new();
/// drop(scope.reserve(async || {}));
/// assert_eq!(scope.len(), 1, "the effect may have happened");
/// scope.reserve(async || {}).disarm();
/// assert_eq!(scope.len(), 1, "the second effect did not");
/// # scope.clear();
/// ```
pub struct Reservation {
    place: Arc<Place>,
    number: u64,
    armed: Armed,
}

impl Reservation {
    pub(super) fn new(place: Arc<Place>, number: u64, armed: Armed) -> Self {
        Self { place, number, armed }
    }

    /// Another one of the same action, for the library alone: a user has one, which disarms it once.
    pub(super) fn copy(&self) -> Self {
        Self::new(Arc::clone(&self.place), self.number, self.armed.clone())
    }

    /// Withdraws the action, also where it has moved to another scope: the effect did not happen.
    /// Returns whether it was still staged; `false` means that it had been run or cleared already,
    /// or that a rollback has it in hand, where it will do nothing when its turn comes, and counts as
    /// run.
    ///
    /// ```
    /// let scope = watershed::CompensationScope::new();
    /// let reservation = scope.reserve(async || {});
    /// scope.clear();
    /// assert!(!reservation.disarm());
    /// ```
    #[allow(clippy::must_use_candidate, reason = "whether it was staged matters to few")]
    pub fn disarm(self) -> bool {
        // What is in the hands of a rollback cannot be taken out, and hears of it by this.
        self.armed.disarm();
        let Some(action) = self.find(|scope| scope.withdraw(self.number)) else { return false };
        COUNTERS.compensations_cleared.add(1);
        panics::drop_each([action]);
        true
    }

    /// The action has succeeded, and nobody heard of it: it is taken out where it was staged again.
    pub(super) fn has_succeeded(&self) {
        if let Some(action) = self.find(|scope| scope.withdraw_done(self.number)) {
            COUNTERS.compensations_run.add(1);
            panics::drop_each([action]);
        }
    }

    /// Asks the scopes where the action may be, until one has it.
    fn find<T>(&self, find: impl Fn(&CompensationScope) -> Option<T>) -> Option<T> {
        let mut ends = Place::ends(&self.place);
        loop {
            let mut scopes = ends.iter().filter_map(|place| place.scope());
            let found = scopes.find_map(|scope| find(&scope));
            if found.is_some() {
                return found;
            }
            // It may have moved on meanwhile.
            let now = Place::ends(&self.place);
            let mut both = now.iter().zip(&ends);
            if now.len() == ends.len() && both.all(|(now, then)| Arc::ptr_eq(now, then)) {
                return None;
            }
            ends = now;
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Whether an action that was reserved is still to be run. Clones are the same one.
#[derive(Clone)]
pub(super) struct Armed(Arc<AtomicBool>);

impl Armed {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(super) fn is_armed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn disarm(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// An action that can be withdrawn, and does nothing once it was disarmed.
pub(super) struct Reserved<A> {
    armed: Armed,
    /// There until it is withdrawn.
    action: Option<A>,
}

impl<A> Reserved<A> {
    pub(super) fn new(action: A, armed: Armed) -> Self {
        Self { armed, action: Some(action) }
    }
}

impl<A: StoredAction> StoredAction for Reserved<A> {
    fn attempt(&mut self, undoing: &Undoing) -> BoxAttempt {
        match &mut self.action {
            Some(action) if self.armed.is_armed() => action.attempt(undoing),
            _ => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn label(&self) -> Option<String> {
        self.action.as_ref()?.label()
    }

    fn withdraw(&mut self) -> Option<Box<dyn Send>> {
        Some(Box::new(self.action.take()?))
    }

    fn is_withdrawn(&self) -> bool {
        self.action.is_none()
    }

    fn is_disarmed(&self) -> bool {
        self.action.is_some() && !self.armed.is_armed()
    }

    fn is_done(&self) -> bool {
        self.action.as_ref().is_some_and(StoredAction::is_done)
    }

    fn is_lost(&self) -> bool {
        self.action.as_ref().is_some_and(StoredAction::is_lost)
    }

    fn lives_in(&self) -> Option<LinkId> {
        self.action.as_ref().and_then(StoredAction::lives_in)
    }
}
