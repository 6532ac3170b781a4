//! The actions that are being run, under the terms of the rollback that started them.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};

use super::columns::Columns;
use super::moves::{Afterwards, GivenBack};
use super::policy::RunOrder;
use super::report::FailedAction;
use super::scope::CompensationScope;
use super::session::Session;
use super::single::{Failed, Single, Terms};
use crate::cancellation::Cancelled;
use crate::diagnostics::COUNTERS;
use crate::panics;

/// Actions that one poll starts or ends before it lets the executor have its thread back.
const ACTIONS_PER_POLL: usize = 128;

/// Actions that are taken under one lock; fewer as long as batches have to go back.
const LARGEST_BATCH: usize = 64;

pub(super) struct Run {
    terms: Arc<Terms>,
    /// The action that runs alone, and those taken to run next.
    current: Single,
    /// The actions that run at once.
    parallel: Option<FuturesUnordered<Single>>,
    /// How many actions to take next.
    batch: usize,
    ended: Ended,
    /// The wait for the token of the owner, where another one drives.
    cancelled: Option<Cancelled>,
}

/// What has ended since the session was last told.
#[derive(Default)]
struct Ended {
    succeeded: usize,
    failed: Columns,
    failures: Vec<FailedAction>,
}

/// What became of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Attempts are on their way.
    Waiting,
    /// It is the turn of others; there is more to do.
    Yielded,
    /// Nothing is staged and nothing runs.
    Idle,
    /// Its owner is to stop, or has gone away.
    Stopped,
}

/// What a run does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Run,
    Empty,
    Stop,
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
        self.failed.append(&mut action);
        self.failures.push(failure);
    }
}

impl Run {
    pub(super) fn new(terms: &Arc<Terms>) -> Box<Self> {
        Box::new(Self {
            terms: Arc::clone(terms),
            current: Single::new(terms),
            parallel: None,
            batch: 1,
            ended: Ended::default(),
            cancelled: None,
        })
    }

    /// Runs actions until they wait, or it is the turn of others, or there are none. `foreign`: the
    /// driver is not the owner, and listens to the owner's token as well.
    pub(super) fn poll(
        &mut self,
        scope: &CompensationScope,
        cx: &mut Context<'_>,
        foreign: bool,
    ) -> Progress {
        let progress = match self.terms.policy.order {
            RunOrder::None => Progress::Idle,
            RunOrder::SequentialReverse => self.poll_sequential(scope, cx),
            RunOrder::Parallel { limit } => self.poll_parallel(scope, cx, limit),
        };
        if progress == Progress::Waiting && foreign {
            let token = &self.terms.undoing.token;
            let cancelled = self.cancelled.get_or_insert_with(|| token.cancelled());
            if cancelled.poll_unpin(cx).is_ready() {
                return Progress::Stopped;
            }
        }
        progress
    }

    fn poll_sequential(&mut self, scope: &CompensationScope, cx: &mut Context<'_>) -> Progress {
        let mut left = ACTIONS_PER_POLL;
        while left > 0 {
            if self.current.is_busy() {
                let Self { current, terms, ended, .. } = self;
                let signals = &scope.inner.signals;
                let mut counted = 0;
                let polled = current.poll_actions(cx, |taken| {
                    counted += 1;
                    signals.tell_succeeded(ended.succeeded + counted);
                    // Whether the next action may run without a look at the session.
                    counted < left
                        && !taken.is_empty()
                        && !signals.is_wanted()
                        && !terms.undoing.token.is_cancelled()
                });
                ended.succeeded += counted;
                left -= counted.min(left);
                match polled {
                    Poll::Pending => {
                        self.give_batch_back(scope);
                        return Progress::Waiting;
                    }
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(failed)) => {
                        self.ended.add_failed(*failed);
                        left = left.saturating_sub(1);
                    }
                }
                continue;
            }
            match self.settle_and_take(scope, self.batch) {
                Next::Run => self.batch = (2 * self.batch).min(LARGEST_BATCH),
                Next::Empty => return Progress::Idle,
                Next::Stop => return Progress::Stopped,
            }
            self.current.start();
        }
        self.give_batch_back(scope);
        Progress::Yielded
    }

    fn poll_parallel(
        &mut self,
        scope: &CompensationScope,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Progress {
        let mut left = ACTIONS_PER_POLL;
        while left > 0 {
            while left > 0 && self.at_once() < limit {
                match self.settle_and_take(scope, 1) {
                    Next::Run => self.start_parallel(),
                    Next::Empty if self.at_once() == 0 => return Progress::Idle,
                    Next::Empty => break,
                    Next::Stop => return Progress::Stopped,
                }
                left -= 1;
            }
            let polled = self.parallel.as_mut().map(|parallel| parallel.poll_next_unpin(cx));
            match polled {
                Some(Poll::Ready(Some(result))) => self.ended.add(result),
                Some(Poll::Pending) if left > 0 => {
                    self.give_batch_back(scope);
                    return Progress::Waiting;
                }
                _ => {}
            }
            left = left.saturating_sub(1);
        }
        self.give_batch_back(scope);
        Progress::Yielded
    }

    /// How many actions run at once.
    fn at_once(&self) -> usize {
        self.parallel.as_ref().map_or(0, FuturesUnordered::len)
    }

    /// Starts the action that was taken beside those that run.
    fn start_parallel(&mut self) {
        let mut single = Single::new(&self.terms);
        std::mem::swap(&mut single.taken, &mut self.current.taken);
        single.start();
        self.parallel.get_or_insert_default().push(single);
    }

    /// Tells the session what has ended, and takes what is next.
    fn settle_and_take(&mut self, scope: &CompensationScope, most: usize) -> Next {
        let batch = self.terms.policy.order == RunOrder::SequentialReverse;
        let cancelled = self.terms.undoing.token.is_cancelled();
        let next = self.settle(scope, |session, staged, taken| {
            if session.orphaned {
                return Next::Stop;
            }
            if staged.is_empty() {
                return Next::Empty;
            }
            if cancelled {
                return Next::Stop;
            }
            let before = taken.len();
            staged.take_last(most, taken);
            let count = taken.len() - before;
            session.running += count;
            if batch {
                session.batch = count;
            }
            Next::Run
        });
        next.unwrap_or(Next::Stop)
    }

    /// Puts back what was taken and not started, so that it is staged while nobody drives, and books
    /// what has ended.
    fn give_batch_back(&mut self, scope: &CompensationScope) {
        let rest = self.current.taken.len() > usize::from(self.current.is_busy());
        if rest {
            self.batch = 1;
        }
        if rest || self.ended.succeeded > 0 || !self.ended.failures.is_empty() {
            self.settle(scope, |_, _, _| ());
        }
    }

    /// Books what has ended, puts back what was taken and not started, and goes on with `then`,
    /// all under one lock.
    fn settle<T>(
        &mut self,
        scope: &CompensationScope,
        then: impl FnOnce(&mut Session, &mut Columns, &mut Columns) -> T,
    ) -> Option<T> {
        let Ended { succeeded, mut failed, mut failures } = std::mem::take(&mut self.ended);
        let count = succeeded + failures.len();
        COUNTERS.compensations_run.add(succeeded as u64);
        COUNTERS.compensations_failed.add(failures.len() as u64);
        let mut rest = self.current.take_rest();
        let (mut cleared, mut withdrawn) = (Columns::default(), Vec::new());
        let mut after = Afterwards::default();
        let taken = &mut self.current.taken;
        let value = scope.inner.look(|state| {
            let mut session = state.session.take()?;
            let given_back = count + rest.len();
            session.running -= given_back;
            session.succeeded += succeeded;
            scope.inner.signals.reset();
            session.batch = 0;
            if std::mem::take(&mut session.cleared) {
                std::mem::swap(&mut cleared, &mut rest);
            }
            // Under the lock: who disarms from here on finds them.
            failed.withdraw_disarmed(&mut withdrawn);
            rest.withdraw_disarmed(&mut withdrawn);
            if state.forward.is_some() {
                session.failures.extend(failures.iter().cloned());
                let back = GivenBack { count: given_back, succeeded, failed, failures, rest };
                state.give_back(scope.inner.born, back, &mut after);
            } else {
                session.failed.append(&mut failed);
                session.failures.append(&mut failures);
                state.staged.append(&mut rest);
            }
            let value = then(&mut session, &mut state.staged, taken);
            state.session = Some(session);
            Some(value)
        });
        after.finish();
        COUNTERS.compensations_cleared.add((cleared.len() + withdrawn.len()) as u64);
        drop(cleared);
        panics::drop_each(withdrawn);
        value
    }

    /// Drops the attempts, and stages their actions again.
    pub(super) fn abandon(mut self: Box<Self>, scope: &CompensationScope) {
        // First what was not started: a scope that was cleared keeps only what was running.
        self.settle(scope, |_, _, _| ());
        self.current.abandon();
        for single in self.parallel.iter_mut().flatten() {
            single.abandon();
            self.current.taken.append(&mut single.taken);
        }
        self.parallel = None;
        self.settle(scope, |_, _, _| ());
    }
}
