//! An action that is staged before its effect.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::CompensationScope;
use super::action::Action;
use crate::diagnostics::COUNTERS;
use crate::error::Error;
use crate::panics;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Holds the right to withdraw an action that was staged before its effect, see
/// [`CompensationScope::reserve`]. Dropping it leaves the action staged.
///
/// ```
/// let scope = watershed::CompensationScope::new();
/// drop(scope.reserve(|| async {}));
/// assert_eq!(scope.len(), 1, "the effect may have happened");
/// scope.reserve(|| async {}).disarm();
/// assert_eq!(scope.len(), 1, "the second effect did not");
/// # scope.clear();
/// ```
pub struct Reservation {
    scope: CompensationScope,
    number: u64,
    armed: Arc<AtomicBool>,
}

impl Reservation {
    pub(super) fn new(scope: CompensationScope, number: u64, armed: Arc<AtomicBool>) -> Self {
        Self { scope, number, armed }
    }

    /// Withdraws the action: the effect did not happen. Returns whether it was still staged;
    /// `false` means that it had been run or cleared already, or had moved to another scope, where
    /// it will do nothing when its turn comes.
    ///
    /// ```
    /// let scope = watershed::CompensationScope::new();
    /// let reservation = scope.reserve(|| async {});
    /// scope.clear();
    /// assert!(!reservation.disarm());
    /// ```
    #[allow(clippy::must_use_candidate, reason = "whether it was staged matters to few")]
    pub fn disarm(self) -> bool {
        self.armed.store(false, Ordering::Release);
        let Some(action) = self.scope.remove(self.number) else { return false };
        COUNTERS.compensations_cleared.add(1);
        panics::drop_each([action]);
        true
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("armed", &self.armed).finish_non_exhaustive()
    }
}

/// An action that does nothing once it was disarmed, wherever it has moved to.
pub(super) struct Reserved<A> {
    armed: Arc<AtomicBool>,
    action: A,
}

impl<A> Reserved<A> {
    pub(super) fn new(action: A) -> (Self, Arc<AtomicBool>) {
        let armed = Arc::new(AtomicBool::new(true));
        (Self { armed: Arc::clone(&armed), action }, armed)
    }
}

impl<A: Action> Action for Reserved<A> {
    fn attempt(&mut self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let attempt = self.armed.load(Ordering::Acquire).then(|| self.action.attempt());
        ReservedAttempt { attempt }
    }

    fn label(&self) -> Option<&str> {
        self.action.label()
    }
}

pin_project! {
    /// The attempt of a reserved action. The user's future is dropped with it and not in its last
    /// poll, so that its result is known by then.
    struct ReservedAttempt<F> {
        #[pin]
        attempt: Option<F>,
    }
}

impl<F: Future<Output = Result<(), Error>>> Future for ReservedAttempt<F> {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().attempt.as_pin_mut() {
            Some(attempt) => attempt.poll(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
