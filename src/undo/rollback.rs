//! The future that drives the run of a scope's actions. See `session` for rollbacks of one scope
//! that are there at the same time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::CompensationPolicy;
use super::hand::{Hand, PolledBeside};
use super::local::{Home, LocalRollback, LocalUndos};
use super::local_attempt::LocalDesk;
use super::membership::{Joined, Left};
use super::policy::RunOrder;
use super::report::RollbackReport;
use super::run::{ActionRun, DrivingRollback, RunProgress};
use super::scope::CompensationScope;
use super::single::Terms;
use super::state;
use super::undoing::Undoing;
use crate::cancellation::{CancellationToken, Cancelled};
use crate::clock::Clock;
use crate::error::{Error, Failure};
use crate::panics;
use crate::sync::this_thread;

/// The future of [`CompensationScope::roll_back`] and [`StepContext::roll_back`]: it runs what is
/// staged, by the clock and the token it is given.
///
/// | option | default |
/// | --- | --- |
/// | [`clock`](Rollback::clock) | the [`SystemClock`](crate::SystemClock) for a scope, the step's for a step |
/// | [`cancellation`](Rollback::cancellation) | none |
/// | [`local`](Rollback::local) | no actions that are not `Send` |
///
/// Options are given before the first poll; later they change nothing.
///
/// [`StepContext::roll_back`]: crate::StepContext::roll_back
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{CancellationSource, CompensationPolicy, CompensationScope, ErrorCode};
///
/// let (scope, impatient) = (CompensationScope::new(), CancellationSource::new());
/// scope.register_compensation(async || {});
/// impatient.cancel();
/// let rollback = scope.roll_back(&CompensationPolicy::default());
/// let failure = rollback.cancellation(impatient.token()).await.unwrap_err();
/// assert_eq!(failure.error().code(), ErrorCode::Canceled);
/// assert_eq!(scope.clear(), 1);
/// # });
/// ```
#[must_use = "a rollback runs nothing unless it is awaited"]
pub struct Rollback {
    terms: Arc<Terms>,
    joined: Option<Joined>,
    /// The rollback of a scope that has ended in this one, which waits for what another rollback has
    /// in hand there.
    lent: Option<Box<Rollback>>,
    cancelled: Option<Cancelled>,
    started: bool,
}

/// What a rollback finds in its session.
enum Found {
    /// The run is in this rollback's hands. `alone`: nobody else is there.
    Drive { run: Option<Box<ActionRun>>, alone: bool },
    /// Another thread has the run in its hands.
    Wait,
    /// A rollback of this scope, which has ended in the one that is rolled back, has actions in hand.
    Lent(CompensationScope),
    /// Nothing is left.
    Done,
    /// Cancelled with actions left.
    Cancelled,
    /// An action of this scope is being polled on this thread, and polls this.
    Reentered,
}

impl Rollback {
    pub(super) fn new(scope: &CompensationScope, policy: &CompensationPolicy) -> Self {
        let terms = Terms { policy: policy.clone(), undoing: Undoing::of(scope) };
        Self::under(terms)
    }

    fn under(terms: Terms) -> Self {
        let terms = Arc::new(terms);
        Self { terms, joined: None, lent: None, cancelled: None, started: false }
    }

    /// What waits for the actions that a rollback of `scope` has in hand, and drives them.
    fn of_lent(&self, scope: CompensationScope) -> Self {
        let Terms { policy, undoing } = &*self.terms;
        Self::under(Terms { policy: policy.clone(), undoing: Undoing { scope, ..undoing.clone() } })
    }

    fn undoing(&mut self) -> Option<&mut Undoing> {
        Arc::get_mut(&mut self.terms).map(|terms| &mut terms.undoing)
    }

    /// The clock that the waits between attempts, and the deadlines of attempts, go by.
    pub fn clock(mut self, clock: &Arc<dyn Clock>) -> Self {
        if let Some(undoing) = self.undoing() {
            undoing.clock = Arc::clone(clock);
        }
        self
    }

    /// A token that stops the rollback. What has not succeeded stays staged.
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        if let Some(undoing) = self.undoing() {
            undoing.token = token;
        }
        self
    }

    /// The same rollback with the actions that live in `undos`: the last option. It is not `Send`.
    ///
    /// Another rollback of the same scope cannot run these: where one of them is on its way and this
    /// future is not polled, the other one waits.
    /// What the other one has come to first and could not run, this one runs; the other one names it as
    /// failed if it answers before that.
    pub fn local(self, undos: &LocalUndos) -> LocalRollback {
        LocalRollback::new(self, undos)
    }

    /// The name of what is rolled back, for the steps that actions are given.
    pub(crate) fn named(mut self, name: &Arc<str>) -> Self {
        if let Some(undoing) = self.undoing() {
            undoing.name = Arc::clone(name);
        }
        self
    }

    pub(super) fn set_desk(&mut self, desk: &Arc<LocalDesk>) {
        if let Some(undoing) = self.undoing() {
            undoing.desk = Some(Arc::clone(desk));
        }
    }

    /// Polls what runs beside the run of the scope. Its actions may not await the rollback of this.
    pub(super) fn beside<T>(&self, poll: impl FnOnce(&Undoing) -> T) -> T {
        let _beside = PolledBeside::new(self.scope());
        poll(&self.terms.undoing)
    }

    fn scope(&self) -> &CompensationScope {
        &self.terms.undoing.scope
    }

    fn drive(&mut self, cx: &mut Context<'_>, home: Option<&Home>) -> Poll<Result<(), Error>> {
        let mut registered = false;
        loop {
            if let Some(lent) = &mut self.lent {
                ready!(lent.drive(cx, home))?;
                self.lent = None;
            }
            match self.look() {
                Found::Lent(scope) => self.lent = Some(Box::new(self.of_lent(scope))),
                Found::Drive { run, alone } => {
                    let mut hand = Hand { scope: self.scope().clone(), run };
                    if !alone && !std::mem::replace(&mut registered, true) {
                        self.register(cx);
                    }
                    let progress = hand.poll(cx, alone, self.driver(home));
                    if matches!(progress, RunProgress::Idle | RunProgress::Stopped) {
                        hand.put_down();
                        continue;
                    }
                    if !std::mem::replace(&mut registered, true) {
                        self.register(cx);
                    }
                    if hand.put_back(alone, progress) {
                        return Poll::Pending;
                    }
                }
                Found::Wait if registered => return Poll::Pending,
                Found::Wait => {
                    self.register(cx);
                    registered = true;
                }
                Found::Done => return Poll::Ready(Ok(())),
                Found::Cancelled => return Poll::Ready(Err(self.terms.undoing.token.error())),
                Found::Reentered => {
                    let message = "an action awaited the rollback of the scope that runs it";
                    return Poll::Ready(Err(Error::validation(message)));
                }
            }
        }
    }

    /// Joins the session, and looks at what there is to do.
    fn look(&mut self) -> Found {
        let Self { terms, joined, .. } = self;
        let scope = &terms.undoing.scope;
        let cancelled = terms.undoing.token.is_cancelled();
        scope.inner.look(|state| {
            let session = state.session.get_or_insert_default();
            let (driver, here) = (session.driver, this_thread());
            if driver == Some(here) || session.beside.contains(&here) {
                return Found::Reentered;
            }
            let joined = joined.get_or_insert_with(|| Joined::new(session, scope));
            if driver.is_some() {
                return if cancelled { Found::Cancelled } else { Found::Wait };
            }
            if session.run.is_none() && !cancelled {
                // What came last is in other hands, and comes back before the rest has its turn.
                if let Some(scope) = state.lent.as_mut().and_then(|lent| lent.first()) {
                    return Found::Lent(scope);
                }
            }
            let left = !state.staged.is_empty()
                || session.given_up.again_for(terms.asker(joined.id)).is_some();
            if session.run.is_none()
                && !left
                && state.lent.as_ref().is_none_or(|lent| lent.is_empty())
            {
                return Found::Done;
            }
            if cancelled {
                return Found::Cancelled;
            }
            session.driver = Some(here);
            let driver = DrivingRollback { terms, id: joined.id, home: None };
            let run = session.run.take().unwrap_or_else(|| ActionRun::new(driver));
            Found::Drive { run: Some(run), alone: session.members == 1 }
        })
    }

    fn driver<'a>(&'a self, home: Option<&'a Home>) -> DrivingRollback<'a> {
        DrivingRollback {
            terms: &self.terms,
            id: self.joined.as_ref().map_or(0, |joined| joined.id),
            home,
        }
    }

    /// Remembers whom to wake when the session has changed.
    fn register(&mut self, cx: &Context<'_>) {
        // Cloning and dropping a waker is the executor's code: neither happens under the lock.
        let waker = cx.waker().clone();
        let Self { terms, joined, .. } = self;
        let old = terms.undoing.scope.inner.look(|state| {
            let (session, joined) = (state.session.as_mut()?, joined.as_mut()?);
            session.waiters.wait(&mut joined.waiter, waker)
        });
        drop(old);
    }

    /// Ends this rollback's part of the session and reports what happened during it.
    fn leave(&mut self) -> RollbackReport {
        self.lent = None;
        let Some(joined) = self.joined.take() else { return RollbackReport::default() };
        let scope = &self.terms.undoing.scope;
        let mut left = Left::default();
        scope.inner.look(|state| joined.leave(state, scope, &mut left));
        if let Some(mut run) = left.run.take() {
            run.abandon(scope, |owner| owner == joined.id);
            Hand { scope: scope.clone(), run: Some(run) }.put_down();
            left.asked = true;
            scope.inner.look(|state| joined.leave(state, scope, &mut left));
        }
        state::wake(left.woken);
        panics::drop_each(left.waker);
        left.report
    }

    /// A poll, with the actions that are not `Send` if it was given them.
    pub(super) fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        home: Option<&Home>,
    ) -> Poll<<Self as Future>::Output> {
        if !std::mem::replace(&mut self.started, true) {
            if let Err(error) = self.terms.policy.check() {
                return Poll::Ready(Err(Failure::new(error, RollbackReport::default())));
            }
        }
        if self.terms.policy.order == RunOrder::None {
            return Poll::Ready(Ok(RollbackReport::default()));
        }
        match self.drive(cx, home) {
            Poll::Ready(Ok(())) => return Poll::Ready(self.leave().into_result()),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.give_up(error))),
            Poll::Pending => {}
        }
        let token = &self.terms.undoing.token;
        let cancelled = self.cancelled.get_or_insert_with(|| token.cancelled());
        ready!(Pin::new(cancelled).poll(cx));
        let error = token.error();
        Poll::Ready(Err(self.give_up(error)))
    }

    fn give_up(&mut self, error: Error) -> Failure<RollbackReport> {
        let report = self.leave();
        let error = error.with_metadata("succeeded", report.succeeded);
        Failure::new(error.with_related(report.to_error()), report)
    }
}

impl Future for Rollback {
    type Output = Result<RollbackReport, Failure<RollbackReport>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_with(cx, None)
    }
}

impl Drop for Rollback {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rollback").field("policy", &self.terms.policy).finish_non_exhaustive()
    }
}
