//! The collection of staged actions.
//!
//! A scope is the columns of its actions behind one short lock. Nothing of the user's runs under
//! it: actions are moved in and out, and dropped after it is released.

use std::fmt;
use std::future::Future;
use std::panic::Location;

use super::action::{Action, ActionOutput, WithState};
use super::columns::Columns;
use super::kept;
use super::order::Order;
use super::reservation::{Reservation, Reserved};
use super::rollback::Rollback;
use super::session::{Session, Signals};
use super::{CompensationPolicy, run_compensation};
use crate::cancellation::CancellationToken;
use crate::diagnostics::COUNTERS;
use crate::lock::Lock;
use crate::panics;
use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::{Arc, MutexGuard};

/// The ordered collection of the compensations staged so far.
///
/// Clones are the same scope. On failure [`run_compensation`] runs the actions in the reverse of
/// the order of their registration; on success [`clear`](CompensationScope::clear) forgets them.
/// When the last handle goes away with actions still staged, they are *not* run, because a
/// destructor cannot await: the loss is counted in [`diagnostics`](crate::diagnostics) and written
/// to standard error with the places that registered them.
///
/// An action lives inside its scope: one that captures a handle of that scope keeps both alive.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::sync::{Arc, Mutex};
/// use watershed::{CancellationToken, CompensationPolicy, CompensationScope};
///
/// let undone = Arc::new(Mutex::new(Vec::new()));
/// let scope = CompensationScope::new();
/// for effect in ["seat", "card"] {
///     scope.register_compensation_with(Arc::clone(&undone), move |undone| async move {
///         undone.lock().unwrap().push(effect);
///     });
/// }
/// scope
///     .run_compensation(&CompensationPolicy::default(), CancellationToken::never())
///     .await?;
/// assert_eq!(*undone.lock().unwrap(), ["card", "seat"]);
/// assert!(!scope.has_actions());
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct CompensationScope {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Set once something was staged here: a drain asks it after each message without locking.
    touched: AtomicBool,
    signals: Signals,
    state: Lock<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) staged: Columns,
    order: Order,
    /// Where to stage instead, once the message of this scope has ended.
    forward: Option<Forward>,
    /// What concurrent rollbacks of this scope have in common, while there are any.
    pub(super) session: Option<Box<Session>>,
}

#[derive(Clone)]
struct Forward {
    scope: CompensationScope,
    owner: u64,
}

impl State {
    /// Puts actions back, unless they belong elsewhere by now: then they stay with the caller.
    pub(super) fn restore(&mut self, actions: &mut Columns) {
        if self.forward.is_none() {
            self.staged.append(actions, None);
        }
    }
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
    /// scope.register_compensation(|| async { /* delete the row */ });
    /// assert_eq!(scope.len(), 1);
    /// # scope.clear();
    /// ```
    #[track_caller]
    pub fn register_compensation(&self, action: impl Action) {
        self.stage(action, Location::caller());
    }

    /// Stages `action` with a state of which each attempt gets a clone.
    ///
    /// It saves the clone in front of an `async move` block that a plain closure needs.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    ///
    /// let rows = Arc::new(Mutex::new(vec![17]));
    /// let scope = watershed::CompensationScope::new();
    /// scope.register_compensation_with((rows, 17), |(rows, id)| async move {
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
    /// assert!(!scope.try_register_compensation(rows_inserted > 0, || async {}));
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
    /// let reservation = scope.reserve(|| async { /* delete the row if it is there */ });
    /// let inserted = false; // the row was there before: not ours to delete
    /// if !inserted {
    ///     assert!(reservation.disarm());
    /// }
    /// assert!(!scope.has_actions());
    /// ```
    #[track_caller]
    pub fn reserve(&self, action: impl Action) -> Reservation {
        let (reserved, armed) = Reserved::new(action);
        let number = self.stage(reserved, Location::caller());
        Reservation::new(self.clone(), number, armed)
    }

    /// Whether any action is staged or being run.
    ///
    /// ```
    /// assert!(!watershed::CompensationScope::new().has_actions());
    /// ```
    #[must_use]
    pub fn has_actions(&self) -> bool {
        !self.is_empty()
    }

    /// How many actions are staged or being run.
    ///
    /// ```
    /// assert_eq!(watershed::CompensationScope::new().len(), 0);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        let state = self.lock();
        let succeeded = self.inner.signals.succeeded();
        let held = |session: &Session| session.running - succeeded + session.failed.len();
        state.staged.len() + state.session.as_deref().map_or(0, held)
    }

    /// Whether no action is staged or being run.
    ///
    /// ```
    /// assert!(watershed::CompensationScope::new().is_empty());
    /// ```
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
    /// scope.register_compensation(|| async {});
    /// assert_eq!(scope.clear(), 1);
    /// assert!(scope.is_empty());
    /// ```
    #[allow(clippy::must_use_candidate, reason = "the count is a courtesy")]
    pub fn clear(&self) -> usize {
        let mut taken = 0;
        let mut cleared = self.with_state(|state| {
            let mut cleared = std::mem::take(&mut state.staged);
            if let Some(session) = &mut state.session {
                cleared.append(&mut session.failed, None);
                session.failures.clear();
                // What a rollback has taken and not started: it drops them when it comes back.
                taken = session.batch.saturating_sub(self.inner.signals.succeeded() + 1);
                session.cleared = session.batch > 0;
                self.inner.signals.want();
            }
            cleared
        });
        let (count, panicked) = cleared.clear();
        if panicked.is_some() {
            COUNTERS.contained_panics.add(1);
        }
        COUNTERS.compensations_cleared.add(count as u64);
        count + taken
    }

    /// Moves every action of `other` into this scope. They keep their place in the order of
    /// registration, whichever scope they were registered on.
    ///
    /// ```
    /// use watershed::CompensationScope;
    ///
    /// let (order, payment) = (CompensationScope::new(), CompensationScope::new());
    /// payment.register_compensation(|| async {});
    /// order.absorb(&payment);
    /// assert_eq!((order.len(), payment.len()), (1, 0));
    /// # order.clear();
    /// ```
    pub fn absorb(&self, other: &CompensationScope) {
        if !Arc::ptr_eq(&self.inner, &other.inner) {
            self.receive(&mut other.take_staged(), None);
        }
    }

    /// Runs every staged action as `policy` says: [`run_compensation`] as a method.
    ///
    /// # Errors
    ///
    /// Those of [`run_compensation`].
    ///
    /// # Cancel safety
    ///
    /// That of [`run_compensation`]: what has not succeeded stays staged.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{CancellationToken, CompensationPolicy, CompensationScope};
    ///
    /// let scope = CompensationScope::new();
    /// scope.register_compensation(|| async {});
    /// let policy = CompensationPolicy::sequential_reverse();
    /// let report = scope.run_compensation(&policy, CancellationToken::never()).await?;
    /// assert_eq!(report.succeeded(), 1);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn run_compensation(
        &self,
        policy: &CompensationPolicy,
        token: CancellationToken,
    ) -> Rollback {
        run_compensation(policy, self, token)
    }

    #[inline]
    pub(crate) fn stage<A: Action>(
        &self,
        action: A,
        registered_at: &'static Location<'static>,
    ) -> u64 {
        self.stage_for(0, action, registered_at)
    }

    /// Stages a new action for a drain, giving it its number.
    #[inline]
    fn stage_for<A: Action>(
        &self,
        owner: u64,
        action: A,
        registered_at: &'static Location<'static>,
    ) -> u64 {
        let mut state = self.lock();
        if let Some(forward) = &state.forward {
            let forward = forward.clone();
            drop(state);
            return forward.scope.stage_for(forward.owner, action, registered_at);
        }
        let number = state.order.draw();
        state.staged.push(owner, number, registered_at, action);
        self.announce(state);
        number
    }

    /// Takes in actions that have their number already, for a drain if one is given.
    pub(crate) fn receive(&self, actions: &mut Columns, owner: Option<u64>) {
        if actions.is_empty() {
            return;
        }
        let mut state = self.lock();
        if let Some(forward) = &state.forward {
            let forward = forward.clone();
            drop(state);
            return forward.scope.receive(actions, Some(forward.owner));
        }
        state.staged.append(actions, owner);
        self.announce(state);
    }

    /// Says that something was staged: to the drain, and to rollbacks that wait or have a batch.
    #[inline]
    fn announce(&self, mut state: MutexGuard<'_, State>) {
        self.inner.touched.store(true, Ordering::Release);
        if let Some(session) = &mut state.session {
            self.inner.signals.want();
            let waiters = session.waiters.take();
            drop(state);
            panics::wake_each(waiters.into_values());
        }
    }

    /// Takes out an action by its number: what a reservation withdraws.
    pub(super) fn remove(&self, number: u64) -> Option<Box<dyn Send>> {
        let mut state = self.lock();
        if let Some(action) = state.staged.remove(number) {
            return Some(action);
        }
        let forward = state.forward.clone();
        drop(state);
        forward?.scope.remove(number)
    }

    /// Everything that looks at a scope comes by here.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, State> {
        kept::settle();
        self.inner.state.lock()
    }

    pub(super) fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.lock())
    }

    pub(super) fn signals(&self) -> &Signals {
        &self.inner.signals
    }

    fn take_staged(&self) -> Columns {
        self.with_state(|state| std::mem::take(&mut state.staged))
    }
}

/// What a drain does with the scope of a message and with its own.
impl CompensationScope {
    /// Whether nobody holds this scope but the lane and its context, so that it can serve the next
    /// message.
    #[inline]
    pub(crate) fn is_at_home(&self) -> bool {
        // The fence makes what the other handles did before they went away visible here.
        let at_home = Arc::strong_count(&self.inner) == 2;
        fence(Ordering::Acquire);
        at_home
    }

    /// Whether nobody holds this scope but its context.
    pub(crate) fn is_sole(&self) -> bool {
        let sole = Arc::strong_count(&self.inner) == 1;
        fence(Ordering::Acquire);
        sole
    }

    /// Whether anything was staged here since the message began.
    #[inline]
    pub(crate) fn is_touched(&self) -> bool {
        self.inner.touched.load(Ordering::Acquire)
    }

    /// Forgets the actions of a message that succeeded. Returns how many there were, and the first
    /// panic of a destructor.
    pub(crate) fn commit(&self) -> (usize, Option<String>) {
        self.inner.touched.store(false, Ordering::Relaxed);
        self.take_staged().clear()
    }

    /// Moves the actions of a message that has ended into the scope of its drain.
    pub(crate) fn hand_over(&self, parent: &CompensationScope, owner: u64) {
        self.inner.touched.store(false, Ordering::Relaxed);
        parent.receive(&mut self.take_staged(), Some(owner));
    }

    /// Sends whatever is staged here from now on to the scope of the drain: the message has ended,
    /// but somebody kept its context.
    pub(crate) fn forward_to(&self, parent: &CompensationScope, owner: u64) {
        let forward = Forward { scope: parent.clone(), owner };
        let mut staged = self.with_state(|state| {
            state.forward = Some(forward);
            std::mem::take(&mut state.staged)
        });
        // A second look: something may have been staged since the message's actions were taken.
        self.receive(&mut staged, None);
    }

    /// Forgets the actions that the drain `owner` staged. Returns how many there were, and the
    /// first panic of a destructor.
    pub(crate) fn commit_owned(&self, owner: u64) -> (usize, Option<String>) {
        self.with_state(|state| state.staged.take_owned(owner)).clear()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let lost = &mut self.state.get_mut().staged;
        if lost.is_empty() {
            return;
        }
        COUNTERS.compensations_lost.add(lost.len() as u64);
        let places = lost.places();
        let shown = places.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let more = if places.len() > 8 { ", …" } else { "" };
        eprintln!(
            "watershed: {} compensation(s) lost with their scope, registered at {shown}{more}",
            lost.len(),
        );
    }
}

impl fmt::Debug for CompensationScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompensationScope").field("len", &self.len()).finish()
    }
}
