//! The collection of staged actions, as its users see it. See `state` for what is behind it.

use std::fmt;
use std::future::Future;
use std::panic::Location;

use super::CompensationPolicy;
use super::action::{Action, ActionOutput, Plain, WithState};
use super::reservation::{Armed, Reservation};
use super::rollback::Rollback;
use super::state::ScopeInner;
use crate::sync::atomic::{Ordering, fence};
use crate::sync::{Arc, Weak};

/// The ordered collection of the compensations staged so far.
///
/// Clones are the same scope. On failure [`roll_back`](CompensationScope::roll_back) runs the
/// actions in the reverse of the order of their registration; on success
/// [`clear`](CompensationScope::clear) forgets them. When the last handle goes away with actions
/// still staged, they are *not* run, because a destructor cannot await: the loss is counted in
/// [`diagnostics`](crate::diagnostics), and with the feature `tracing` an event tells the places
/// that registered them.
///
/// An action lives inside its scope: one that captures a handle of that scope keeps both alive.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::sync::{Arc, Mutex};
/// use watershed::{CompensationPolicy, CompensationScope};
///
/// let undone = Arc::new(Mutex::new(Vec::new()));
/// let scope = CompensationScope::new();
/// for effect in ["seat", "card"] {
///     scope.register_compensation_with(Arc::clone(&undone), move |undone| async move {
///         undone.lock().unwrap().push(effect);
///     });
/// }
/// scope.roll_back(&CompensationPolicy::default()).await?;
/// assert_eq!(*undone.lock().unwrap(), ["card", "seat"]);
/// assert!(!scope.has_actions());
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct CompensationScope {
    pub(super) inner: Arc<ScopeInner>,
}

impl CompensationScope {
    /// An empty scope.
    ///
    /// ```
    /// assert!(!watershed::CompensationScope::new().has_actions());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stages `action`, which undoes an effect that has just happened.
    ///
    /// The action may run more than once, because a rollback can be interrupted or retried: write
    /// it so that a second run does no harm. Where the gap between an effect and this call
    /// matters, use [`reserve`](CompensationScope::reserve) before the effect.
    ///
    /// ```
    /// let scope = watershed::CompensationScope::new();
    /// scope.register_compensation(async || { /* delete the row */ });
    /// assert_eq!(scope.len(), 1);
    /// # scope.clear();
    /// ```
    #[track_caller]
    pub fn register_compensation(&self, action: impl Action) {
        self.stage(action, Location::caller());
    }

    /// Stages `action` with a state of which each attempt gets a clone.
    ///
    /// It saves the clone in front of an `async move` block that a plain closure needs. All that the
    /// action uses goes into the state, numbers and names as well: an async closure that captures is
    /// [refused](crate::guide::compile_errors).
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    ///
    /// let rows = Arc::new(Mutex::new(vec![17]));
    /// let scope = watershed::CompensationScope::new();
    /// scope.register_compensation_with((rows, 17), async |(rows, id)| {
    ///     rows.lock().unwrap().retain(|row| *row != id);
    /// });
    /// # scope.clear();
    /// ```
    #[track_caller]
    pub fn register_compensation_with<S, A, F>(&self, state: S, action: A)
    where
        S: Clone + Send + 'static,
        A: FnMut(S) -> F + Send + 'static,
        F: Future<Output: ActionOutput> + Send + 'static,
    {
        self.stage(WithState { state, action }, Location::caller());
    }

    /// Stages `action` if `condition` holds, and returns it.
    ///
    /// ```
    /// let scope = watershed::CompensationScope::new();
    /// let rows_inserted = 0;
    /// assert!(!scope.try_register_compensation(rows_inserted > 0, async || {}));
    /// assert!(!scope.has_actions());
    /// ```
    #[track_caller]
    pub fn try_register_compensation(&self, condition: bool, action: impl Action) -> bool {
        if condition {
            self.stage(action, Location::caller());
        }
        condition
    }

    /// Stages `action` *before* its effect, so that not even a crash of the handler between the
    /// two can forget it. [`Reservation::disarm`] withdraws it when the effect turned out not to
    /// happen; a reservation that is dropped leaves it staged.
    ///
    /// Reserve when the effect may have happened although its call failed or was cancelled (a
    /// request that timed out), and when the action is harmless without its effect. Register
    /// afterwards when only the effect's result tells how to undo it (a generated key).
    ///
    /// ```
    /// let scope = watershed::CompensationScope::new();
    /// let reservation = scope.reserve(async || { /* delete the row if it is there */ });
    /// let inserted = false; // the row was there before: not ours to delete
    /// if !inserted {
    ///     assert!(reservation.disarm());
    /// }
    /// assert!(!scope.has_actions());
    /// ```
    #[track_caller]
    pub fn reserve(&self, action: impl Action) -> Reservation {
        self.reserve_stored(Plain(action), Armed::new(), Location::caller())
    }

    /// Whether any action is staged or being run.
    #[must_use]
    pub fn has_actions(&self) -> bool {
        !self.is_empty()
    }

    /// How many actions are staged or being run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.look(|state| {
            if state.forward.is_some() {
                // What a rollback has in hand is the next scope's.
                return 0;
            }
            let session = state.session.as_deref();
            let held = session.map_or(0, |session| session.held(&self.inner.signals));
            state.staged.len() + held + state.lent()
        })
    }

    /// Whether no action is staged or being run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets every staged action without running it, and returns how many there were. What a
    /// concurrent rollback is running just now is not touched, and neither is what it goes on with
    /// before it hears of this: beside one on another thread, the count may be off by that one.
    ///
    /// A destructor of captured state that panics is contained and keeps no other from running.
    ///
    /// ```
    /// let scope = watershed::CompensationScope::new();
    /// scope.register_compensation(async || {});
    /// assert_eq!(scope.clear(), 1);
    /// assert!(scope.is_empty());
    /// ```
    #[allow(clippy::must_use_candidate, reason = "the count is a courtesy")]
    pub fn clear(&self) -> usize {
        let (mut cleared, forgotten) = self.inner.look(|state| {
            let mut cleared = state.take();
            let session = state.session.as_deref_mut();
            let forgotten = session.map(|s| s.clear(&self.inner.signals, &mut cleared));
            (cleared, forgotten)
        });
        let (taken, _failures) = forgotten.unwrap_or_default();
        cleared.clear() + taken
    }

    /// Runs every staged action as `policy` says, and reports.
    ///
    /// With [`sequential_reverse`](CompensationPolicy::sequential_reverse) the action registered
    /// last runs first. An action that fails is retried as the policy says; what still fails keeps
    /// no other from running, stays staged and can be run again. What succeeded has run exactly once
    /// and is gone. An action registered while the rollback runs is run too.
    ///
    /// The rollback goes by the [`SystemClock`](crate::SystemClock) and is never cancelled, unless
    /// [`Rollback::clock`] and [`Rollback::cancellation`] say otherwise.
    ///
    /// Two rollbacks of one scope at once share the work. Whichever is polled goes on with every attempt
    /// that is on its way, under the policy of the one that started it, and starts further actions under
    /// its own: one that runs actions at once does not wait for the attempt of one that does not. Each
    /// answers when nothing is left to run.
    ///
    /// # Errors
    ///
    /// A [`Failure`](crate::Failure): an error, and the report of what was done all the same.
    ///
    /// - [`ErrorCode::Compensation`](crate::ErrorCode::Compensation) when actions failed: the report
    ///   names each of them, and [`Error::related`](crate::Error::related) has one error an action,
    ///   with its label and the place that registered it.
    /// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled) when the token was cancelled with
    ///   actions left.
    /// - [`ErrorCode::Validation`](crate::ErrorCode::Validation) when an option of the policy is not
    ///   acceptable, and when an action awaits the rollback of the very scope that runs it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves in the scope every action that has not succeeded, the one that was
    /// running included: that one may have done its work, and will run again.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{CompensationPolicy, CompensationScope, ErrorCode, labelled};
    ///
    /// let scope = CompensationScope::new();
    /// scope.register_compensation(async || {});
    /// scope.register_compensation(labelled("refund", async || Err("bank is closed")));
    ///
    /// let failure = scope.roll_back(&CompensationPolicy::default()).await.unwrap_err();
    /// assert_eq!(failure.error().code(), ErrorCode::Compensation);
    /// assert_eq!(failure.report().succeeded(), 1);
    /// assert_eq!(failure.report().failures()[0].label(), Some("refund"));
    /// assert_eq!(scope.len(), 1, "the refund is still to be made");
    /// # scope.clear();
    /// # });
    /// ```
    pub fn roll_back(&self, policy: &CompensationPolicy) -> Rollback {
        Rollback::new(self, policy)
    }
}

/// A handle that does not keep its scope, and does not count as somebody who has it.
#[derive(Clone)]
pub(crate) struct WeakScope(Weak<ScopeInner>);

impl WeakScope {
    pub(crate) fn upgrade(&self) -> Option<CompensationScope> {
        self.0.upgrade().map(CompensationScope::from)
    }
}

/// Staging and moving.
impl CompensationScope {
    pub(crate) fn downgrade(&self) -> WeakScope {
        WeakScope(Arc::downgrade(&self.inner))
    }

    /// The scope of a message: a drain on it is nested.
    pub(crate) fn for_message() -> Self {
        Self::from(Arc::new(ScopeInner::new(true)))
    }

    /// The scope of something that ends in `outer`.
    pub(crate) fn child_of(outer: &Self) -> Self {
        Self::from(Arc::new(ScopeInner::new(outer.is_nested())))
    }

    /// Whether it is the scope of a message, or ends in one.
    pub(crate) fn is_nested(&self) -> bool {
        self.inner.nested
    }

    /// Whether anything was staged here since its drain last asked for it.
    #[inline]
    pub(crate) fn is_touched(&self) -> bool {
        self.inner.touched.load(Ordering::Acquire)
    }

    /// Whether nobody holds this scope but its step.
    #[inline]
    pub(crate) fn is_sole(&self) -> bool {
        let sole = Arc::strong_count(&self.inner) == 1;
        // What the other handles did before they went away is visible from here on.
        fence(Ordering::Acquire);
        sole
    }
}

impl From<Arc<ScopeInner>> for CompensationScope {
    fn from(inner: Arc<ScopeInner>) -> Self {
        Self { inner }
    }
}

/// The scope itself: what takes a step as well as a scope asks for this.
impl AsRef<CompensationScope> for CompensationScope {
    fn as_ref(&self) -> &CompensationScope {
        self
    }
}

impl fmt::Debug for CompensationScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompensationScope").field("len", &self.len()).finish()
    }
}
