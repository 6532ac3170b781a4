//! Running the staged actions.
//!
//! A rollback takes actions out of its scope, those registered last first, runs each to its end and
//! takes the next, until nothing is staged. What it has taken and not run goes back before it gives
//! its thread back; what is running goes back when it is dropped or cancelled. See `session` for
//! rollbacks of one scope that run at the same time.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::stream::{FuturesUnordered, StreamExt};

use super::columns::Columns;
use super::policy::RunOrder;
use super::report::{FailedAction, RollbackReport};
use super::run::{Failed, Run};
use super::session::{Next, Session};
use super::{CompensationPolicy, CompensationScope};
use crate::cancellation::{CancellationToken, Cancelled};
use crate::diagnostics::COUNTERS;
use crate::error::Error;
use crate::panics;

/// Actions that one poll runs before it lets the executor have its thread back.
const ACTIONS_PER_POLL: usize = 128;

/// Actions that are taken under one lock; fewer as long as batches have to go back.
const LARGEST_BATCH: usize = 64;

/// Runs every action staged on `scope` as `policy` says, and reports.
///
/// With [`sequential_reverse`](CompensationPolicy::sequential_reverse) the action registered last
/// runs first. An action that fails is retried as the policy says; what still fails keeps no other
/// from running, stays staged and can be run again. What succeeded has run exactly once and is
/// gone. An action registered while the rollback runs is run too. Cancelling `token` stops the
/// rollback.
///
/// Two rollbacks of one scope at once share the work: every action is run by one of them, and each
/// answers when all of them have ended. An action must therefore not await a rollback of its own
/// scope.
///
/// # Errors
///
/// - [`ErrorCode::Compensation`](crate::ErrorCode::Compensation) when actions failed:
///   [`Error::related`] has one error an action, with its label and the place that registered it,
///   and [`RollbackFailed`](crate::RollbackFailed) is its cause.
/// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled) when the token was cancelled with actions
///   left.
///
/// # Cancel safety
///
/// Dropping the future leaves in the scope every action that has not succeeded, the one that was
/// running included: that one may have done its work, and will run again.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{
///     CancellationToken, CompensationPolicy, CompensationScope, ErrorCode, labelled,
///     run_compensation,
/// };
///
/// let scope = CompensationScope::new();
/// scope.register_compensation(|| async {});
/// scope.register_compensation(labelled("refund", || async { Err("bank is closed") }));
///
/// let policy = CompensationPolicy::sequential_reverse();
/// let error = run_compensation(&policy, &scope, CancellationToken::never()).await.unwrap_err();
/// assert_eq!(error.code(), ErrorCode::Compensation);
/// assert_eq!(error.related()[0].metadata("label"), Some("refund"));
/// assert_eq!(scope.len(), 1, "the refund is still to be made");
/// # scope.clear();
/// # });
/// ```
pub fn run_compensation(
    policy: &CompensationPolicy,
    scope: &CompensationScope,
    token: CancellationToken,
) -> Rollback {
    let policy = Arc::new(policy.clone());
    Rollback {
        scope: scope.clone(),
        current: Run::new(Arc::clone(&policy)),
        parallel: FuturesUnordered::new(),
        policy,
        cancelled: token.cancelled(),
        token,
        joined: None,
        batch: 1,
        has_batch: false,
        ended: Ended::default(),
    }
}

/// The future of [`run_compensation`].
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{CancellationToken, CompensationPolicy, CompensationScope};
///
/// let scope = CompensationScope::new();
/// let rollback = scope.run_compensation(&CompensationPolicy::default(), Default::default());
/// assert_eq!(rollback.await?.succeeded(), 0);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a rollback runs nothing unless it is awaited"]
pub struct Rollback {
    scope: CompensationScope,
    policy: Arc<CompensationPolicy>,
    token: CancellationToken,
    cancelled: Cancelled,
    /// The actions that run one at a time, and those taken to run next.
    current: Run,
    /// The actions that run at once.
    parallel: FuturesUnordered<Run>,
    joined: Option<Joined>,
    /// How many actions to take next.
    batch: usize,
    /// The batch and the signals of the session are this rollback's.
    has_batch: bool,
    ended: Ended,
}

/// Membership in the session of the scope.
struct Joined {
    waiter: Option<u64>,
    succeeded_before: usize,
}

/// What has ended since the session was last told.
#[derive(Default)]
struct Ended {
    succeeded: usize,
    failed: Columns,
    failures: Vec<FailedAction>,
}

impl Ended {
    #[inline]
    fn add(&mut self, result: Result<(), Box<Failed>>) {
        match result {
            Ok(()) => self.succeeded += 1,
            Err(failed) => self.add_failed(*failed),
        }
    }

    #[cold]
    fn add_failed(&mut self, Failed { mut action, failure }: Failed) {
        self.failed.append(&mut action, None);
        self.failures.push(failure);
    }
}

impl Future for Rollback {
    type Output = Result<RollbackReport, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let poll = match this.policy.order {
            RunOrder::None => return Poll::Ready(Ok(RollbackReport::default())),
            RunOrder::SequentialReverse => this.poll_sequential(cx),
            RunOrder::Parallel { limit } => {
                this.poll_parallel(cx, limit.map_or(usize::MAX, std::num::NonZero::get))
            }
        };
        match poll {
            Poll::Ready(Ok(())) => Poll::Ready(this.leave().into_result()),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if Pin::new(&mut this.cancelled).poll(cx).is_ready() => {
                Poll::Ready(Err(this.give_up()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Rollback {
    fn poll_sequential(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.join();
        for _ in 0..ACTIONS_PER_POLL {
            if self.current.is_busy() {
                let Poll::Ready(result) = self.current.poll_action(cx) else {
                    self.give_batch_back();
                    return Poll::Pending;
                };
                self.ended.add(result);
                self.scope.signals().tell_succeeded(self.ended.succeeded);
            }
            if self.may_go_on() {
                self.current.start();
                continue;
            }
            match self.settle_and_take(cx) {
                Next::Run => self.current.start(),
                Next::Wait => return Poll::Pending,
                Next::Stop => return Poll::Ready(Err(self.give_up())),
                Next::Done => return Poll::Ready(Ok(())),
            }
        }
        self.give_batch_back();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the next action of the batch may run without a look at the session.
    #[inline]
    fn may_go_on(&self) -> bool {
        !self.current.taken.is_empty()
            && self.ended.failures.is_empty()
            && !self.scope.signals().is_wanted()
            && !self.token.is_cancelled()
    }

    fn poll_parallel(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Result<(), Error>> {
        self.join();
        for _ in 0..ACTIONS_PER_POLL {
            while self.parallel.len() < limit {
                match self.settle_and_take(cx) {
                    Next::Run => self.start_parallel(),
                    Next::Wait => break,
                    Next::Stop => return Poll::Ready(Err(self.give_up())),
                    Next::Done => return Poll::Ready(Ok(())),
                }
            }
            // None: all that runs is with another rollback, which wakes this one.
            let Some(result) = ready!(self.parallel.poll_next_unpin(cx)) else {
                return Poll::Pending;
            };
            self.ended.add(result);
        }
        self.settle(|_, _, _| ());
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Starts the action that was taken beside those that run.
    fn start_parallel(&mut self) {
        let mut run = Run::new(Arc::clone(&self.policy));
        std::mem::swap(&mut run.taken, &mut self.current.taken);
        run.start();
        self.parallel.push(run);
    }

    /// Tells the session what has ended, and takes what is next.
    fn settle_and_take(&mut self, cx: &mut Context<'_>) -> Next {
        let alone = self.policy.order == RunOrder::SequentialReverse;
        let most = if alone { self.batch } else { 1 };
        let cancelled = self.token.is_cancelled();
        let next = self
            .settle(|session, staged, taken| session.take(staged, taken, most, alone, cancelled));
        if next != Some(Next::Wait) {
            self.has_batch = alone && next == Some(Next::Run);
            self.batch = (2 * self.batch).min(LARGEST_BATCH);
            return next.unwrap_or(Next::Done);
        }
        // Cloning and dropping a waker is the executor's code: neither happens under the lock. So
        // there is a second look, for what has changed meanwhile.
        let mut waker = Some(cx.waker().clone());
        let mut key = self.joined.as_ref().and_then(|joined| joined.waiter);
        let next = self.settle(|session, staged, taken| {
            let next = session.take(staged, taken, most, alone, cancelled);
            if next == Next::Wait {
                waker = waker.take().and_then(|waker| session.waiters.wait(&mut key, waker));
            }
            next
        });
        self.has_batch = alone && next == Some(Next::Run);
        if let Some(joined) = &mut self.joined {
            joined.waiter = key;
        }
        next.unwrap_or(Next::Done)
    }

    /// Puts back what was taken and not started, so that others may take it while this rollback
    /// does not have the thread.
    fn give_batch_back(&mut self) {
        if self.current.taken.len() > usize::from(self.current.is_busy()) {
            self.batch = 1;
            self.settle(|_, _, _| ());
        }
    }

    /// Books what has ended, puts back what was taken and not started, and goes on with `then`,
    /// all under one lock.
    fn settle<T>(
        &mut self,
        then: impl FnOnce(&mut Session, &mut Columns, &mut Columns) -> T,
    ) -> Option<T> {
        let Ended { succeeded, mut failed, mut failures } = std::mem::take(&mut self.ended);
        let count = succeeded + failures.len();
        COUNTERS.compensations_run.add(succeeded as u64);
        COUNTERS.compensations_failed.add(failures.len() as u64);
        let mut rest = self.current.take_rest();
        let has_batch = std::mem::replace(&mut self.has_batch, self.current.is_busy());
        let mut cleared = Columns::default();
        let mut woken = None;
        let (scope, taken) = (&self.scope, &mut self.current.taken);
        let value = scope.with_state(|state| {
            let mut session = state.session.take()?;
            session.running -= count + rest.len();
            session.succeeded += succeeded;
            session.failed.append(&mut failed, None);
            session.failures.append(&mut failures);
            if count > 0 || !rest.is_empty() {
                woken = Some(session.waiters.take());
            }
            // Only whoever has the batch answers for it: a signal that another one took would be lost.
            if has_batch {
                scope.signals().reset();
                session.batch = 0;
                if std::mem::take(&mut session.cleared) {
                    std::mem::swap(&mut cleared, &mut rest);
                }
            }
            state.restore(&mut rest);
            let value = then(&mut session, &mut state.staged, taken);
            state.session = Some(session);
            Some(value)
        });
        COUNTERS.compensations_cleared.add(cleared.len() as u64);
        drop(cleared);
        self.scope.receive(&mut rest, None);
        panics::wake_each(woken.into_iter().flat_map(BTreeMap::into_values));
        value
    }

    fn join(&mut self) {
        if self.joined.is_some() {
            return;
        }
        self.joined = Some(self.scope.with_state(|state| {
            // A rollback that was alone shares the rest of its batch.
            self.scope.signals().want();
            let session = state.session.get_or_insert_default();
            session.participants += 1;
            let succeeded_before = session.succeeded + self.scope.signals().succeeded();
            Joined { waiter: None, succeeded_before }
        }));
    }

    /// Ends this rollback's part of the session and reports what happened during it.
    fn leave(&mut self) -> RollbackReport {
        let Some(joined) = self.joined.take() else { return RollbackReport::default() };
        let mut woken = None;
        let mut left_over = Columns::default();
        let report = self.scope.with_state(|state| {
            let Some(mut session) = state.session.take() else { return RollbackReport::default() };
            let report = RollbackReport {
                succeeded: session.succeeded + self.scope.signals().succeeded()
                    - joined.succeeded_before,
                failures: session.failures.clone(),
            };
            session.participants -= 1;
            woken = Some(session.waiters.take());
            if session.participants > 0 {
                state.session = Some(session);
            } else {
                left_over = std::mem::take(&mut session.failed);
                state.restore(&mut left_over);
            }
            report
        });
        self.scope.receive(&mut left_over, None);
        panics::wake_each(woken.into_iter().flat_map(BTreeMap::into_values));
        report
    }

    /// Puts back what was running and leaves.
    fn abandon(&mut self) -> RollbackReport {
        // First what was not started: a scope that was cleared keeps only what was running.
        self.settle(|_, _, _| ());
        self.current.abandon();
        for run in &mut self.parallel {
            run.abandon();
            self.current.taken.append(&mut run.taken, None);
        }
        self.parallel.clear();
        self.settle(|_, _, _| ());
        self.leave()
    }

    fn give_up(&mut self) -> Error {
        let report = self.abandon();
        let error = Error::canceled().with_metadata("succeeded", report.succeeded);
        match report.into_result() {
            Ok(_) => error,
            Err(failures) => error.with_related([failures]),
        }
    }
}

impl Drop for Rollback {
    fn drop(&mut self) {
        if self.joined.is_some() {
            self.abandon();
        }
    }
}

impl fmt::Debug for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rollback").field("policy", &self.policy).finish_non_exhaustive()
    }
}
