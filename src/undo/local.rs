//! Actions that are not `Send`.
//!
//! A scope may be used by any thread, so an action that must stay on its own lives in a
//! [`LocalUndos`] there, and the scope holds a *place*: an action with a number like any other, whose
//! attempt asks for the real one. A rollback that was given the value has a desk for these asks: it
//! begins the actions while it has the run of the scope in its hands, so that they begin in their
//! place in the order, goes on with them beside the run, and answers. Any other rollback finds that
//! it cannot ask, and the action has failed.
//!
//! When an action has succeeded, or its place goes away (it was cleared or committed), that is said
//! over the link, and the action is dropped when its value is used next, with an attempt that nobody
//! waits for any more.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::future::{FutureExt, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};

use super::CompensationScope;
use super::action::{ActionOutput, Attempt, Labelled};
use super::local_attempt::{
    self, Known, LocalAttempt, LocalDesk, LocalLink, LocalPlace, RunningAttempt, gone,
};
use super::report::RollbackReport;
use super::reservation::{Armed, Reservation};
use super::rollback::Rollback;
use super::undoing::Undoing;
use crate::diagnostics::{COUNTERS, trace};
use crate::error::{Error, Failure};
use crate::panics;

/// Attempts that one poll ends before the executor has its thread back.
const ENDED_PER_POLL: usize = 128;

/// A compensation that need not be `Send`: it lives in a [`LocalUndos`].
///
/// What is an [`Action`](crate::Action) but for that is one: a closure that makes a future,
/// [`labelled`] or with a [step](crate::with_step).
///
/// [`labelled`]: crate::labelled
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no action",
    label = "this is no action",
    note = "an action is an async closure without arguments, such as `async || …` or \
            `move || async move {{ … }}`, that borrows nothing",
    note = "see `watershed::guide::compile_errors`"
)]
pub trait LocalAction: 'static {
    /// One attempt at running the action, in the rollback that `undoing` tells of.
    fn attempt(&mut self, undoing: &Undoing) -> impl Future<Output = Result<(), Error>> + 'static;

    /// The label that reports show.
    fn label(&self) -> Option<&str> {
        None
    }
}

impl<A, F> LocalAction for A
where
    A: FnMut() -> F + 'static,
    F: Future<Output: ActionOutput> + 'static,
{
    fn attempt(&mut self, _: &Undoing) -> impl Future<Output = Result<(), Error>> + 'static {
        Attempt::new(self())
    }
}

impl<A: LocalAction> LocalAction for Labelled<A> {
    fn attempt(&mut self, undoing: &Undoing) -> impl Future<Output = Result<(), Error>> + 'static {
        self.action.attempt(undoing)
    }

    fn label(&self) -> Option<&str> {
        Some(&self.label)
    }
}

/// Compensations that are not `Send`, for work that stays on one thread.
///
/// The actions live in this value, and take their places in the order of a step's or a scope's other
/// actions. A rollback runs them if it is given the value, with [`Rollback::local`]; without it they
/// have failed, and stay staged. Clones are the same value. When the last one goes away, its actions
/// are lost, which is counted like a [lost scope](crate::CompensationScope).
///
/// ```
/// # futures::executor::block_on(async {
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use watershed::{CompensationPolicy, LocalUndos, StepContext};
///
/// let (context, undos) = (StepContext::new("editor"), LocalUndos::new());
/// let lines = Rc::new(RefCell::new(vec!["one", "two"]));
/// let text = Rc::clone(&lines);
/// undos.register(&context, move || {
///     let text = Rc::clone(&text);
///     async move { drop(text.borrow_mut().pop()) }
/// });
///
/// let policy = CompensationPolicy::sequential_reverse();
/// context.roll_back(&policy).await.unwrap_err(); // it was not given them
/// assert_eq!(context.roll_back(&policy).local(&undos).await?.succeeded(), 1);
/// assert_eq!(*lines.borrow(), ["one"]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct LocalUndos {
    shared: Rc<LocalActions>,
}

#[derive(Default)]
struct LocalActions {
    link: Arc<LocalLink>,
    actions: RefCell<HashMap<u64, Living>>,
    last_key: Cell<u64>,
}

/// An action where it lives.
#[derive(Default)]
struct Living {
    /// Not there while it is called.
    action: Option<Box<dyn StoredLocally>>,
    /// The attempt that was begun last.
    attempt: Weak<RunningAttempt>,
}

/// A [`LocalAction`] whose type is not known.
trait StoredLocally {
    fn attempt(&mut self, undoing: &Undoing) -> LocalBoxFuture<'static, Result<(), Error>>;
}

impl<A: LocalAction> StoredLocally for A {
    fn attempt(&mut self, undoing: &Undoing) -> LocalBoxFuture<'static, Result<(), Error>> {
        Box::pin(LocalAction::attempt(self, undoing))
    }
}

impl LocalUndos {
    /// No actions so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stages `action` on a step or a scope; see
    /// [`CompensationScope::register_compensation`](crate::CompensationScope::register_compensation).
    ///
    /// ```
    /// use watershed::{CompensationScope, LocalUndos, labelled};
    ///
    /// let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
    /// undos.register(&scope, labelled("close the window", async || {}));
    /// assert_eq!((scope.len(), undos.len()), (1, 1));
    /// scope.clear();
    /// assert_eq!(undos.len(), 0);
    /// ```
    #[track_caller]
    pub fn register<A: LocalAction>(&self, at: &impl AsRef<CompensationScope>, action: A) {
        drop(self.reserve(at, action));
    }

    /// Stages `action` before its effect; see
    /// [`CompensationScope::reserve`](crate::CompensationScope::reserve).
    ///
    /// ```
    /// use watershed::{CompensationScope, LocalUndos};
    ///
    /// let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
    /// assert!(undos.reserve(&scope, async || {}).disarm());
    /// assert_eq!((scope.len(), undos.len()), (0, 0));
    /// ```
    #[track_caller]
    pub fn reserve<A: LocalAction>(
        &self,
        at: &impl AsRef<CompensationScope>,
        action: A,
    ) -> Reservation {
        let armed = Armed::new();
        let place = self.add(action, armed.clone());
        let known = place.known();
        let reservation = at.as_ref().reserve_stored(place, armed, Location::caller());
        known.is_at(&reservation);
        reservation
    }

    /// How many actions there are, on whatever scopes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.forget();
        self.shared.actions.borrow().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes an action in, and makes its place.
    fn add<A: LocalAction>(&self, action: A, armed: Armed) -> LocalPlace {
        self.shared.forget();
        let label = panics::contain(|| action.label().map(ToOwned::to_owned)).unwrap_or_default();
        let key = self.shared.last_key.get() + 1;
        self.shared.last_key.set(key);
        let living = Living { action: Some(Box::new(action)), attempt: Weak::new() };
        self.shared.actions.borrow_mut().insert(key, living);
        LocalPlace::new(&self.shared.link, key, label, armed)
    }
}

impl LocalActions {
    /// Drops the actions that are not needed any more.
    fn forget(&self) {
        let keys = std::mem::take(&mut *self.link.gone.lock());
        if !keys.is_empty() {
            let mut actions = self.actions.borrow_mut();
            let gone: Vec<_> = keys.iter().filter_map(|key| actions.remove(key)).collect();
            drop(actions);
            for Living { action, attempt } in gone {
                attempt.upgrade().inspect(|attempt| local_attempt::stop(attempt));
                panics::drop_each(action);
            }
        }
    }

    /// Starts an attempt at an action. Whoever waited for the one before has gone away or given it up,
    /// and may not have been polled since: it is dropped first.
    fn attempt(&self, known: &Known, undoing: &Undoing) -> Rc<RunningAttempt> {
        let key = known.key;
        // Out of the table while user code runs, which may use this value.
        let living = self.actions.borrow_mut().get_mut(&key).map(std::mem::take);
        let Some(Living { action: Some(mut action), attempt }) = living else {
            return running(std::future::ready(Err(gone())));
        };
        attempt.upgrade().inspect(|before| local_attempt::stop(before));
        let begun = if known.is_disarmed() {
            // It does nothing, and counts as run.
            running(std::future::ready(Ok(())))
        } else {
            panics::contain(|| action.attempt(undoing)).map_or_else(
                |message| {
                    running(std::future::ready(Err(Error::panic("the compensation", &message))))
                },
                |attempt| Rc::new(RefCell::new(Some(attempt))),
            )
        };
        let back = Living { action: Some(action), attempt: Rc::downgrade(&begun) };
        let mut actions = self.actions.borrow_mut();
        // Its place may have gone meanwhile, and it with it.
        let left_over = match actions.get_mut(&key) {
            Some(living) => {
                *living = back;
                None
            }
            None => back.action,
        };
        drop(actions);
        panics::drop_each(left_over);
        begun
    }
}

fn running(attempt: impl Future<Output = Result<(), Error>> + 'static) -> Rc<RunningAttempt> {
    Rc::new(RefCell::new(Some(Box::pin(attempt))))
}

/// The actions can never be run. They are told to be lost now, and not once more by their scopes.
impl Drop for LocalActions {
    fn drop(&mut self) {
        self.forget();
        self.link.is_lost.store(true, Ordering::Release);
        let actions = std::mem::take(self.actions.get_mut());
        let lost = actions.len();
        if lost > 0 {
            COUNTERS.compensations_lost.add(lost as u64);
            trace::lost(lost, &[]);
        }
        panics::drop_each(actions.into_values().map(|living| living.action));
    }
}

impl fmt::Debug for LocalUndos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalUndos").field("len", &self.len()).finish()
    }
}

/// What a rollback has that was given actions which are not `Send`.
pub(super) struct Home {
    undos: LocalUndos,
    desk: Arc<LocalDesk>,
    running: RefCell<FuturesUnordered<LocalAttempt>>,
    /// How many answers the run has not taken.
    owed: Arc<AtomicUsize>,
}

impl Home {
    /// Begins what was asked for. Returns whether there was anything.
    pub(super) fn begin(&self, cx: &mut Context<'_>, undoing: &Undoing) -> bool {
        let asked = self.desk.take();
        let any = !asked.is_empty();
        for ask in asked {
            if !ask.is_waited_for() {
                continue;
            }
            let attempt = self.undos.shared.attempt(&ask.action, undoing);
            let mut attempt = LocalAttempt::new(ask, attempt, &self.owed);
            // What begins later does so behind its first poll.
            if attempt.poll_unpin(cx).is_pending() {
                self.running.borrow_mut().push(attempt);
            }
        }
        any
    }

    /// Whether an attempt has ended and the run does not know.
    pub(super) fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Acquire) > 0
    }

    /// Polls the attempts. Returns whether one has ended.
    fn poll(&self, cx: &mut Context<'_>) -> bool {
        self.running.borrow_mut().poll_next_unpin(cx) == Poll::Ready(Some(()))
    }
}

/// The future of [`Rollback::local`].
///
/// Another rollback of the same scope cannot run these actions: where one of them is on its way and
/// this future is not polled, the other one waits.
#[must_use = "a rollback runs nothing unless it is awaited"]
pub struct LocalRollback {
    rollback: Rollback,
    home: Home,
}

impl LocalRollback {
    pub(super) fn new(mut rollback: Rollback, undos: &LocalUndos) -> Self {
        let desk = Arc::new(LocalDesk::new(&undos.shared.link));
        rollback.set_desk(&desk);
        let (running, owed) = (RefCell::default(), Arc::default());
        Self { rollback, home: Home { undos: undos.clone(), desk, running, owed } }
    }
}

impl Future for LocalRollback {
    type Output = Result<RollbackReport, Failure<RollbackReport>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { rollback, home } = &mut *self;
        home.desk.wait(None);
        for left in (0..ENDED_PER_POLL).rev() {
            let polled = rollback.poll_with(cx, Some(home));
            home.undos.shared.forget();
            if polled.is_ready() {
                panics::drop_contained(|| home.running.get_mut().clear());
                return polled;
            }
            // What ends here is told to the run before this returns.
            if left == 0 {
                cx.waker().wake_by_ref();
                break;
            }
            // What another rollback has tried again is begun here.
            let moved = rollback.beside(|undoing| home.begin(cx, undoing) | home.poll(cx));
            // Asked last: what is asked for from here on wakes this.
            if !moved && !home.desk.wait(Some(cx.waker().clone())) {
                break;
            }
        }
        Poll::Pending
    }
}

impl fmt::Debug for LocalRollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.rollback, f)
    }
}
