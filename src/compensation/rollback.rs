//! Running the staged actions.
//!
//! A rollback takes one action at a time out of its scope, runs it to its end and takes the next,
//! until nothing is staged. What it holds goes back when it is dropped or cancelled. Rollbacks of
//! one scope that run at the same time share a session: each action is taken by one of them, an
//! action that fails for good waits in the session so that none of them takes it again, and each
//! answers only when nothing is staged and nothing is running.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures::stream::{FuturesUnordered, StreamExt};

use super::action::{BoxAttempt, Staged};
use super::policy::RunOrder;
use super::report::{FailedAction, RollbackReport};
use super::scope::State;
use super::{CompensationPolicy, CompensationScope};
use crate::cancellation::{CancellationToken, Cancelled};
use crate::clock::Sleep;
use crate::diagnostics::COUNTERS;
use crate::error::Error;
use crate::panics;

/// Actions that one poll runs before it lets the executor have its thread back.
const ACTIONS_PER_POLL: usize = 128;

/// What the rollbacks of one scope that run at the same time have in common.
#[derive(Default)]
pub(super) struct Session {
    participants: usize,
    running: usize,
    succeeded: usize,
    failed: Vec<(Staged, FailedAction)>,
    next_waiter: u64,
    waiters: Vec<(u64, Waker)>,
}

impl Session {
    /// The actions that are with the rollbacks and not in the list of the scope.
    pub(super) fn held(&self) -> usize {
        self.running + self.failed.len()
    }

    pub(super) fn take_failed(&mut self) -> Vec<Staged> {
        self.failed.drain(..).map(|(staged, _)| staged).collect()
    }

    pub(super) fn take_waiters(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.waiters).into_iter().map(|(_, waker)| waker)
    }

    /// What a rollback does next; one that runs its actions `alone` waits for those of others.
    fn next(&mut self, state: &mut State, alone: bool, cancelled: bool) -> Next {
        if self.running > 0 && (alone || !state.has_staged()) {
            return if cancelled { Next::Stop } else { Next::Wait };
        }
        if cancelled && state.has_staged() {
            return Next::Stop;
        }
        match state.pop_last() {
            Some(action) => {
                self.running += 1;
                Next::Run(action)
            }
            None => Next::Done,
        }
    }

    /// Remembers whom to wake; the waker it replaces is handed out to be dropped outside the lock.
    fn wait(&mut self, id: u64, waker: Waker) -> Option<Waker> {
        if let Some((_, known)) = self.waiters.iter_mut().find(|(known, _)| *known == id) {
            return Some(std::mem::replace(known, waker));
        }
        self.waiters.push((id, waker));
        None
    }
}

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
        ran: 0,
        failed: 0,
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
    /// The action that runs now, one at a time; reused from action to action.
    current: Run,
    parallel: FuturesUnordered<Run>,
    joined: Option<Joined>,
    /// Actions that succeeded and failed here since the counters of the process were told.
    ran: u64,
    failed: u64,
}

/// Membership in the session of the scope.
struct Joined {
    waiter: u64,
    succeeded_before: usize,
}

enum Next {
    Run(Staged),
    /// All that is left is running elsewhere.
    Wait,
    /// Cancelled with actions left.
    Stop,
    Done,
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
            let finished = if self.current.is_busy() {
                Some(ready!(self.current.poll_action(cx)))
            } else {
                None
            };
            match self.settle_and_take(finished, cx) {
                Next::Run(action) => self.current.start(action),
                Next::Wait => return Poll::Pending,
                Next::Stop => return Poll::Ready(Err(self.give_up())),
                Next::Done => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_parallel(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Result<(), Error>> {
        self.join();
        let mut finished = None;
        for _ in 0..ACTIONS_PER_POLL {
            while finished.is_some() || self.parallel.len() < limit {
                match self.settle_and_take(finished.take(), cx) {
                    Next::Run(action) => {
                        let mut run = Run::new(Arc::clone(&self.policy));
                        run.start(action);
                        self.parallel.push(run);
                    }
                    Next::Wait => break,
                    Next::Stop => return Poll::Ready(Err(self.give_up())),
                    Next::Done => return Poll::Ready(Ok(())),
                }
            }
            // None: all that runs is with another rollback, which wakes this one.
            let Some(done) = ready!(self.parallel.poll_next_unpin(cx)) else {
                return Poll::Pending;
            };
            finished = Some(done);
        }
        // The last one is settled before the thread is given back: it must not get lost.
        if let Next::Run(action) = self.settle_and_take(finished, cx) {
            let mut run = Run::new(Arc::clone(&self.policy));
            run.start(action);
            self.parallel.push(run);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Books what has finished and takes the next action, under one lock.
    fn settle_and_take(&mut self, finished: Option<Finished>, cx: &mut Context<'_>) -> Next {
        let alone = self.policy.order == RunOrder::SequentialReverse;
        let cancelled = self.token.is_cancelled();
        let (succeeded, failed) = match finished {
            Some(Finished { action, failure: Some(failure) }) => (None, Some((action, failure))),
            Some(Finished { action, failure: None }) => (Some(action), None),
            None => (None, None),
        };
        self.ran += u64::from(succeeded.is_some());
        self.failed += u64::from(failed.is_some());
        let settled = succeeded.is_some() || failed.is_some();
        let mut waiters = None;
        let next = self.scope.with_state(|state| {
            let Some(mut session) = state.session.take() else { return Next::Done };
            if settled {
                session.running -= 1;
                session.succeeded += usize::from(succeeded.is_some());
                session.failed.extend(failed);
                if !session.waiters.is_empty() {
                    waiters = Some(session.take_waiters());
                }
            }
            let next = session.next(state, alone, cancelled);
            state.session = Some(session);
            next
        });
        if succeeded.is_some() {
            panics::drop_each(succeeded);
        }
        if let Some(waiters) = waiters {
            panics::wake_each(waiters);
        }
        match next {
            Next::Wait => self.wait(cx),
            next => next,
        }
    }

    /// Registers for the next change of the session, unless it has changed meanwhile.
    fn wait(&mut self, cx: &mut Context<'_>) -> Next {
        let alone = self.policy.order == RunOrder::SequentialReverse;
        let cancelled = self.token.is_cancelled();
        let Some(Joined { waiter, .. }) = self.joined else { return Next::Done };
        // Cloning and dropping a waker is the executor's code: neither happens under the lock.
        let waker = cx.waker().clone();
        let mut old = None;
        let next = self.scope.with_state(|state| {
            let Some(mut session) = state.session.take() else { return Next::Done };
            let next = session.next(state, alone, cancelled);
            if matches!(next, Next::Wait) {
                old = session.wait(waiter, waker);
            }
            state.session = Some(session);
            next
        });
        drop(old);
        next
    }

    fn join(&mut self) {
        if self.joined.is_some() {
            return;
        }
        self.joined = Some(self.scope.with_state(|state| {
            let session = state.session.get_or_insert_default();
            session.participants += 1;
            session.next_waiter += 1;
            Joined { waiter: session.next_waiter, succeeded_before: session.succeeded }
        }));
    }

    /// Ends this rollback's part of the session and reports what happened during it.
    fn leave(&mut self) -> RollbackReport {
        let Some(joined) = self.joined.take() else { return RollbackReport::default() };
        COUNTERS.compensations_run.add(std::mem::take(&mut self.ran));
        COUNTERS.compensations_failed.add(std::mem::take(&mut self.failed));
        let mut waiters = None;
        let (report, left_over) = self.scope.with_state(|state| {
            let Some(mut session) = state.session.take() else { return Default::default() };
            let report = RollbackReport {
                succeeded: session.succeeded - joined.succeeded_before,
                failures: session.failed.iter().map(|(_, failure)| failure.clone()).collect(),
            };
            session.participants -= 1;
            waiters = Some(session.take_waiters());
            if session.participants > 0 {
                state.session = Some(session);
                return (report, Vec::new());
            }
            (report, state.restore(session.take_failed()))
        });
        self.scope.put_back(left_over);
        panics::wake_each(waiters.into_iter().flatten());
        report
    }

    /// Puts back what was running and leaves.
    fn abandon(&mut self) -> RollbackReport {
        let mut held: Vec<Staged> = self.current.abandon().into_iter().collect();
        held.extend(self.parallel.iter_mut().filter_map(Run::abandon));
        self.parallel.clear();
        let count = held.len();
        let left_over = self.scope.with_state(|state| {
            if let Some(session) = state.session.as_mut() {
                session.running -= count;
            }
            state.restore(held)
        });
        self.scope.put_back(left_over);
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

/// One action on its way, over all its attempts.
struct Run {
    policy: Arc<CompensationPolicy>,
    action: Option<Staged>,
    attempt: Option<BoxAttempt>,
    pause: Option<Sleep>,
    attempts: u32,
}

struct Finished {
    action: Staged,
    failure: Option<FailedAction>,
}

impl Run {
    fn new(policy: Arc<CompensationPolicy>) -> Self {
        Self { policy, action: None, attempt: None, pause: None, attempts: 0 }
    }

    fn start(&mut self, action: Staged) {
        self.action = Some(action);
        self.attempts = 0;
    }

    fn is_busy(&self) -> bool {
        self.action.is_some()
    }

    /// Stops in the middle and hands the action back.
    fn abandon(&mut self) -> Option<Staged> {
        panics::drop_each(self.attempt.take());
        panics::drop_each(self.pause.take());
        self.action.take()
    }

    fn poll_action(&mut self, cx: &mut Context<'_>) -> Poll<Finished> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let failure = match ready!(self.poll_attempt(cx)) {
                Ok(()) => None,
                Err(error) => match self.policy.retry.wait_after(self.attempts) {
                    Some(wait) if wait.is_zero() => {
                        // Between attempts that do not wait, others get their turn.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Some(wait) => {
                        self.pause = Some(self.policy.sleep(wait));
                        continue;
                    }
                    None => Some(error),
                },
            };
            let Some(action) = self.action.take() else { return Poll::Pending };
            let failure = failure.map(|error| FailedAction {
                // A label is the user's code as well: one that panics is none.
                label: panics::contain(|| action.action.erased_label().map(ToOwned::to_owned))
                    .unwrap_or_default(),
                registered_at: action.registered_at,
                attempts: self.attempts,
                error,
            });
            return Poll::Ready(Finished { action, failure });
        }
    }

    fn poll_attempt(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { action, attempt, attempts, .. } = self;
        let Some(action) = action else { return Poll::Pending };
        let mut result = Poll::Pending;
        let contained = panics::contain(|| {
            let running = attempt.get_or_insert_with(|| {
                *attempts += 1;
                action.action.boxed_attempt()
            });
            result = running.as_mut().poll(cx);
            if result.is_ready() {
                *attempt = None;
            }
        });
        if let Err(message) = contained {
            if result.is_ready() {
                // It had done its work: a destructor that panics afterwards does not undo that.
                COUNTERS.contained_panics.add(1);
            } else {
                panics::drop_each(self.attempt.take());
                return Poll::Ready(Err(Error::panic("the compensation", &message)));
            }
        }
        result
    }
}

impl Future for Run {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        self.poll_action(cx)
    }
}
