//! The collection of staged actions.
//!
//! A scope is a list behind one short lock. Nothing of the user's runs under it: actions are boxed
//! before it is taken and dropped after it is released. Actions are normally appended in order;
//! one that comes back late (absorbed from a scope, put back by a rollback) only marks the list as
//! unsorted, and the next rollback sorts it once.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use smallvec::SmallVec;

use super::action::{Action, ActionOutput, Staged, StagedAction, WithState};
use super::order::Order;
use super::reservation::{Reservation, Reserved};
use super::rollback::{Rollback, Session};
use super::{CompensationPolicy, run_compensation};
use crate::cancellation::CancellationToken;
use crate::diagnostics::COUNTERS;
use crate::lock::Lock;
use crate::panics;

/// Actions in the order of their registration. A message rarely stages more than four.
pub(super) type StagedList = SmallVec<[Staged; 4]>;

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
    state: Lock<State>,
}

#[derive(Default)]
pub(super) struct State {
    staged: StagedList,
    unsorted: bool,
    /// Who staged the first action, and whether all others are theirs too: then a commit need not
    /// look at each.
    owner: u64,
    mixed: bool,
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
    #[inline]
    fn insert(&mut self, staged: Staged) {
        if let Some(last) = self.staged.last() {
            self.unsorted |= last.number > staged.number;
            self.mixed |= self.owner != staged.owner;
        } else {
            self.owner = staged.owner;
            self.mixed = false;
        }
        self.staged.push(staged);
    }

    pub(super) fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Puts actions back, or hands them out again if they belong elsewhere by now.
    pub(super) fn restore(&mut self, actions: Vec<Staged>) -> Vec<Staged> {
        if self.forward.is_some() {
            return actions;
        }
        for staged in actions {
            self.insert(staged);
        }
        Vec::new()
    }

    /// Takes out the action that was registered last.
    pub(super) fn pop_last(&mut self) -> Option<Staged> {
        if self.unsorted {
            self.staged.sort_unstable_by_key(|staged| staged.number);
            self.unsorted = false;
        }
        self.staged.pop()
    }

    fn take_all(&mut self) -> StagedList {
        self.unsorted = false;
        std::mem::take(&mut self.staged)
    }

    fn take_where(&mut self, mut wanted: impl FnMut(&Staged) -> bool) -> Vec<Staged> {
        let (taken, kept) = self.staged.drain(..).partition(|staged| wanted(staged));
        self.staged = SmallVec::from_vec(kept);
        taken
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
        let state = self.inner.state.lock();
        state.staged.len() + state.session.as_ref().map_or(0, |session| session.held())
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
    /// concurrent rollback is running just now is not touched.
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
        let staged = self.take_staged();
        let failed = {
            let mut state = self.inner.state.lock();
            state.session.as_mut().map(|session| session.take_failed()).unwrap_or_default()
        };
        let count = staged.len() + failed.len();
        panics::drop_each(staged);
        panics::drop_each(failed);
        COUNTERS.compensations_cleared.add(count as u64);
        count
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
            self.put_back(other.take_staged());
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

    fn stage<A: Action>(&self, action: A, registered_at: &'static Location<'static>) -> u64 {
        let staged = StagedAction { number: 0, owner: 0, registered_at, action };
        self.stage_boxed(Box::new(staged))
    }

    /// Stages a new action, giving it its number.
    #[inline]
    fn stage_boxed(&self, mut staged: Staged) -> u64 {
        let mut state = self.inner.state.lock();
        if state.forward.is_some() || state.session.is_some() {
            drop(state);
            return self.stage_elsewhere(staged);
        }
        let number = state.order.draw();
        staged.number = number;
        state.insert(staged);
        self.inner.touched.store(true, Ordering::Release);
        number
    }

    /// Stages a new action where a rollback runs, or on the scope that took over.
    #[cold]
    fn stage_elsewhere(&self, mut staged: Staged) -> u64 {
        let mut state = self.inner.state.lock();
        if let Some(forward) = state.forward.clone() {
            drop(state);
            staged.owner = forward.owner;
            return forward.scope.stage_boxed(staged);
        }
        let number = state.order.draw();
        staged.number = number;
        state.insert(staged);
        self.inner.touched.store(true, Ordering::Release);
        let waiters = state.session.as_mut().map(|session| session.take_waiters());
        drop(state);
        panics::wake_each(waiters.into_iter().flatten());
        number
    }

    /// Puts actions that have their number already where they belong.
    pub(super) fn put_back(&self, actions: impl IntoIterator<Item = Staged>) {
        let mut actions = actions.into_iter().peekable();
        if actions.peek().is_none() {
            return;
        }
        let mut state = self.inner.state.lock();
        if let Some(forward) = state.forward.clone() {
            drop(state);
            let owned = actions.map(|mut staged| {
                staged.owner = forward.owner;
                staged
            });
            // Boxed, because the type of the iterator grows with every scope on the way.
            return forward.scope.put_back(Box::new(owned) as Box<dyn Iterator<Item = Staged>>);
        }
        for staged in actions {
            state.insert(staged);
        }
        self.inner.touched.store(true, Ordering::Release);
        if let Some(session) = state.session.as_mut() {
            let waiters = session.take_waiters();
            drop(state);
            panics::wake_each(waiters);
        }
    }

    /// Takes out an action by its number: what a reservation withdraws.
    pub(super) fn remove(&self, number: u64) -> Option<Staged> {
        let mut state = self.inner.state.lock();
        if let Some(position) = state.staged.iter().rposition(|staged| staged.number == number) {
            return Some(state.staged.remove(position));
        }
        let forward = state.forward.clone();
        drop(state);
        forward?.scope.remove(number)
    }

    pub(super) fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.inner.state.lock())
    }

    fn take_staged(&self) -> StagedList {
        self.inner.state.lock().take_all()
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

    /// Whether anything was staged here since the message began.
    #[inline]
    pub(crate) fn is_touched(&self) -> bool {
        self.inner.touched.load(Ordering::Acquire)
    }

    /// Forgets the actions of a message that succeeded. Returns how many there were, and the first
    /// panic of a destructor.
    pub(crate) fn commit(&self) -> (usize, Option<String>) {
        self.inner.touched.store(false, Ordering::Relaxed);
        drop_all(self.take_staged())
    }

    /// Moves the actions of a message that has ended into the scope of its drain.
    pub(crate) fn hand_over(&self, parent: &CompensationScope, owner: u64) {
        self.inner.touched.store(false, Ordering::Relaxed);
        let mut staged = self.take_staged();
        for action in &mut staged {
            action.owner = owner;
        }
        parent.receive(staged);
    }

    /// Takes in the actions of a message that has ended.
    fn receive(&self, actions: StagedList) {
        let mut state = self.inner.state.lock();
        if state.forward.is_some() || state.session.is_some() {
            drop(state);
            return self.put_back(actions);
        }
        for staged in actions {
            state.insert(staged);
        }
        self.inner.touched.store(true, Ordering::Release);
    }

    /// Sends whatever is staged here from now on to the scope of the drain: the message has ended,
    /// but somebody kept its context.
    pub(crate) fn forward_to(&self, parent: &CompensationScope, owner: u64) {
        let forward = Forward { scope: parent.clone(), owner };
        let staged = {
            let mut state = self.inner.state.lock();
            state.forward = Some(forward);
            state.take_all()
        };
        // A second look: something may have been staged since the message's actions were taken.
        self.put_back(staged);
    }

    /// Forgets the actions that the drain `owner` staged. Returns how many there were, and the
    /// first panic of a destructor.
    pub(crate) fn commit_owned(&self, owner: u64) -> (usize, Option<String>) {
        let committed = self.with_state(|state| {
            if !state.mixed {
                let theirs = state.owner == owner;
                return if theirs { state.take_all() } else { SmallVec::new() };
            }
            SmallVec::from_vec(state.take_where(|staged| staged.owner == owner))
        });
        drop_all(committed)
    }
}

/// Drops committed actions one by one, so that a panicking destructor leaks no neighbour.
fn drop_all(actions: StagedList) -> (usize, Option<String>) {
    let count = actions.len();
    let mut panicked = None;
    let mut actions = actions.into_iter();
    while let Err(message) = panics::contain(|| actions.by_ref().for_each(drop)) {
        panicked.get_or_insert(message);
    }
    (count, panicked)
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.staged.is_empty() {
            return;
        }
        let lost = state.take_all();
        COUNTERS.compensations_lost.add(lost.len() as u64);
        let mut places: Vec<_> = lost.iter().map(|staged| staged.registered_at).collect();
        places.dedup();
        let shown = places.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let more = if places.len() > 8 { ", …" } else { "" };
        eprintln!(
            "watershed: {} compensation(s) lost with their scope, registered at {shown}{more}",
            lost.len(),
        );
        panics::drop_each(lost);
    }
}

impl fmt::Debug for CompensationScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompensationScope").field("len", &self.len()).finish()
    }
}
