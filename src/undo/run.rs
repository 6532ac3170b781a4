//! The actions that are being run, each under the terms of the rollback that started it.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};

use super::behind::{self, WhoseTurn};
use super::column::Withdrawn;
use super::columns::Columns;
use super::ended::EndedActions;
use super::given_up::Since;
use super::local::Home;
use super::moves::{Afterwards, GivenBack};
use super::policy::RunOrder;
use super::scope::CompensationScope;
use super::session::Session;
use super::single::{Single, Terms};
use crate::diagnostics::COUNTERS;
use crate::panics;

/// Actions that one poll starts or ends before it lets the executor have its thread back.
const ACTIONS_PER_POLL: usize = 128;

/// Actions that are taken under one lock; fewer as long as batches have to go back.
const LARGEST_BATCH: usize = 64;

pub(super) struct ActionRun {
    /// The action that runs alone, and those taken to run next.
    current: Single,
    /// The actions that run at once.
    parallel: Option<FuturesUnordered<Single>>,
    /// How many actions to take next.
    batch: usize,
    ended: EndedActions,
}

/// The rollback that is polled: it drives whatever runs, and starts actions under its own terms.
#[derive(Clone, Copy)]
pub(super) struct DrivingRollback<'a> {
    pub(super) terms: &'a Arc<Terms>,
    pub(super) id: u64,
    pub(super) home: Option<&'a Home>,
}

impl DrivingRollback<'_> {
    /// Begins the actions that are not `Send` and were asked for. Returns whether there were any.
    fn begin(self, cx: &mut Context<'_>) -> bool {
        self.home.is_some_and(|home| home.begin(cx, &self.terms.undoing))
    }

    /// Whether one of these has ended, and what waits for it is still to be polled.
    fn is_owed(self) -> bool {
        self.home.is_some_and(Home::is_owed)
    }
}

/// What became of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunProgress {
    /// Attempts are on their way.
    Waiting,
    /// It is the turn of others; there is more to do.
    Yielded,
    /// Nothing is staged and nothing runs.
    Idle,
    /// The driver is to stop, or a rollback whose attempts it drives has gone away.
    Stopped,
}

/// What a run does next.
enum NextActions {
    /// Who else is to run these, where some have given them up.
    Run(Columns, Option<Since>),
    Empty,
    Stop,
}

impl ActionRun {
    pub(super) fn new(driver: DrivingRollback<'_>) -> Box<Self> {
        Box::new(Self {
            current: Single::new(driver.terms, driver.id),
            parallel: None,
            batch: 1,
            ended: EndedActions::default(),
        })
    }

    /// Whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.at_once() == 0
    }

    /// Runs actions until they wait, or it is the turn of others, or there are none.
    pub(super) fn poll(
        &mut self,
        scope: &CompensationScope,
        cx: &mut Context<'_>,
        driver: DrivingRollback<'_>,
    ) -> RunProgress {
        match driver.terms.policy.order {
            RunOrder::None => RunProgress::Idle,
            RunOrder::SequentialReverse => self.poll_sequential(scope, cx, driver),
            RunOrder::Parallel { limit } => self.poll_parallel(scope, cx, driver, limit),
        }
    }

    fn poll_sequential(
        &mut self,
        scope: &CompensationScope,
        cx: &mut Context<'_>,
        driver: DrivingRollback<'_>,
    ) -> RunProgress {
        let mut left = ACTIONS_PER_POLL;
        // What another rollback runs at once comes first.
        while left > 0 && self.parallel.as_ref().is_some_and(|parallel| !parallel.is_empty()) {
            let current = self.poll_current(cx);
            if current.is_pending() && self.poll_started(cx).is_pending() && !driver.is_owed() {
                self.give_batch_back(scope);
                return RunProgress::Waiting;
            }
            left -= 1;
        }
        while left > 0 {
            if self.current.is_busy() {
                let own = self.current.owner == driver.id;
                let Self { current, ended, .. } = self;
                let signals = &scope.inner.signals;
                let mut counted = 0;
                let polled = current.poll_actions(cx, |taken| {
                    counted += 1;
                    signals.tell_succeeded(ended.succeeded + counted);
                    // Whether the next action may run without a look at the session.
                    own && counted < left
                        && !taken.is_empty()
                        && !signals.is_wanted()
                        && !driver.terms.undoing.token.is_cancelled()
                });
                ended.succeeded += counted;
                left -= counted.min(left);
                match polled {
                    Poll::Pending if driver.begin(cx) => {}
                    Poll::Pending => {
                        self.give_batch_back(scope);
                        return RunProgress::Waiting;
                    }
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(failed)) => {
                        self.ended.add_ended(*failed);
                        left = left.saturating_sub(1);
                    }
                }
                continue;
            }
            match self.settle_and_take(scope, driver, self.batch) {
                NextActions::Run(taken, again) => self.start(taken, again, driver),
                NextActions::Empty => return RunProgress::Idle,
                NextActions::Stop => return RunProgress::Stopped,
            }
        }
        self.give_batch_back(scope);
        RunProgress::Yielded
    }

    fn poll_parallel(
        &mut self,
        scope: &CompensationScope,
        cx: &mut Context<'_>,
        driver: DrivingRollback<'_>,
        limit: usize,
    ) -> RunProgress {
        let mut left = ACTIONS_PER_POLL;
        while left > 0 {
            // One that another rollback runs alone.
            if self.poll_current(cx).is_ready() {
                left -= 1;
            }
            while left > 0 && self.at_once() < limit {
                match self.settle_and_take(scope, driver, 1) {
                    NextActions::Run(taken, again) => self.start_parallel(cx, taken, again, driver),
                    NextActions::Empty if self.is_empty() => return RunProgress::Idle,
                    NextActions::Empty => break,
                    NextActions::Stop => return RunProgress::Stopped,
                }
                left -= 1;
            }
            if self.poll_started(cx).is_pending() && left > 0 && !driver.is_owed() {
                self.give_batch_back(scope);
                return RunProgress::Waiting;
            }
            left = left.saturating_sub(1);
        }
        self.give_batch_back(scope);
        RunProgress::Yielded
    }

    /// Polls the action that runs alone. Ready when one has ended.
    fn poll_current(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.current.is_busy() {
            return Poll::Pending;
        }
        self.current.poll_unpin(cx).map(|result| self.ended.add(result))
    }

    /// Polls the actions that run at once. Ready when one has ended.
    fn poll_started(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.parallel.as_mut().map(|parallel| parallel.poll_next_unpin(cx));
        let Some(Poll::Ready(Some(result))) = polled else { return Poll::Pending };
        self.ended.add(result);
        Poll::Ready(())
    }

    /// How many actions run at once.
    fn at_once(&self) -> usize {
        let parallel = self.parallel.as_ref().map_or(0, FuturesUnordered::len);
        parallel + usize::from(self.current.is_busy())
    }

    /// Starts the last of the actions that were taken, to run alone.
    fn start(&mut self, taken: Columns, again: Option<Since>, driver: DrivingRollback<'_>) {
        self.batch = (2 * self.batch).min(LARGEST_BATCH);
        if self.current.owner != driver.id {
            self.current = Single::new(driver.terms, driver.id);
        }
        self.current.start_with(taken, again);
    }

    /// Starts the action that was taken beside those that run.
    fn start_parallel(
        &mut self,
        cx: &mut Context<'_>,
        taken: Columns,
        again: Option<Since>,
        driver: DrivingRollback<'_>,
    ) {
        let mut single = Single::new(driver.terms, driver.id);
        single.start_with(taken, again);
        if driver.home.is_some() {
            // It begins at once, where it lives: what is started later begins behind it. A panic is
            // that of an executor's waker, which the next poll meets again.
            let mut poll = |cx: &mut Context<'_>| {
                panics::contain(|| single.poll_unpin(cx)).unwrap_or(Poll::Pending)
            };
            let mut polled = poll(cx);
            if polled.is_pending() && driver.begin(cx) {
                // It may have ended.
                polled = poll(cx);
            }
            if let Poll::Ready(result) = polled {
                return self.ended.add(result);
            }
        }
        self.parallel.get_or_insert_default().push(single);
    }

    /// Tells the session what has ended, and takes what is next.
    fn settle_and_take(
        &mut self,
        scope: &CompensationScope,
        driver: DrivingRollback<'_>,
        most: usize,
    ) -> NextActions {
        let batch = driver.terms.policy.order == RunOrder::SequentialReverse;
        let cancelled = driver.terms.undoing.token.is_cancelled();
        let busy = self.current.is_busy();
        let idle = self.is_empty();
        let asker = driver.terms.asker(driver.id);
        let next = self.settle(scope, |session, staged, taken| {
            if !session.gone.is_empty() {
                return NextActions::Stop;
            }
            if staged.is_empty() && session.given_up.again_for(asker).is_none() {
                return NextActions::Empty;
            }
            if cancelled {
                return NextActions::Stop;
            }
            // The columns of the actions before are used again.
            let mut next = if busy { Columns::default() } else { std::mem::take(taken) };
            let mut again = None;
            if staged.is_empty() {
                // One by one: each is put back where it was.
                again = behind::take_again(session, asker, idle, &mut next);
                if again.is_none() {
                    return NextActions::Empty;
                }
            } else {
                match behind::turn(session, staged, most, !batch, idle) {
                    WhoseTurn::Usual(0) | WhoseTurn::Wait => return NextActions::Empty,
                    WhoseTurn::Usual(most) => staged.take_last(most, &mut next),
                    WhoseTurn::Alone => staged.take_last(1, &mut next),
                    WhoseTurn::OthersFirst => staged.take_not_last(&mut next),
                }
            }
            session.running += next.len();
            if batch {
                session.batch = next.len();
            }
            NextActions::Run(next, again)
        });
        next.unwrap_or(NextActions::Stop)
    }

    /// Puts back what was taken and not started, so that it is staged while nobody drives, and books
    /// what has ended.
    fn give_batch_back(&mut self, scope: &CompensationScope) {
        let rest = self.current.taken.len() > usize::from(self.current.is_busy());
        if rest {
            self.batch = 1;
        }
        if rest || !self.ended.is_empty() {
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
        let mut ended = std::mem::take(&mut self.ended);
        COUNTERS.compensations_run.add(ended.succeeded as u64);
        COUNTERS.compensations_failed.add(ended.failures.len() as u64);
        let mut rest = self.current.take_rest();
        let (mut cleared, mut withdrawn) = (Columns::default(), Withdrawn::default());
        let mut after = Afterwards::default();
        let taken = &mut self.current.taken;
        let value = scope.inner.look(|state| {
            let mut session = state.session.take()?;
            let count = ended.len() + rest.len();
            session.running -= count;
            scope.inner.signals.reset();
            session.batch = 0;
            if std::mem::take(&mut session.cleared) {
                std::mem::swap(&mut cleared, &mut rest);
            }
            rest.append(&mut ended.stopped);
            // Under the lock: who disarms one, or succeeds, from here on finds it.
            rest.withdraw_over(&mut withdrawn);
            ended.withdraw_over(&mut withdrawn);
            ended.succeeded += withdrawn.done.len();
            session.succeeded += ended.succeeded;
            session.undone.extend(ended.undone.iter().chain(&withdrawn.done));
            if state.forward.is_some() {
                session.add_failures(ended.failures.iter().cloned());
                for (_, action) in &mut ended.again {
                    rest.append(action);
                }
                state.give_back(scope.inner.born, GivenBack { count, ended, rest }, &mut after);
            } else {
                for (since, action) in ended.again.drain(..) {
                    session.given_up.add(since, action);
                }
                session.give_up(ended, &mut after);
                state.staged.append(&mut rest);
            }
            let value = then(&mut session, &mut state.staged, taken);
            state.session = Some(session);
            Some(value)
        });
        after.finish();
        cleared.clear();
        let Withdrawn { actions, done } = withdrawn;
        COUNTERS.compensations_run.add(done.len() as u64);
        COUNTERS.compensations_cleared.add((actions.len() - done.len()) as u64);
        panics::drop_each(actions);
        value
    }

    /// Drops the attempts of some rollbacks, and stages their actions again.
    pub(super) fn abandon(&mut self, scope: &CompensationScope, of: impl Fn(u64) -> bool) {
        // First what was not started: a scope that was cleared keeps only what was running.
        self.settle(scope, |_, _, _| ());
        if self.current.is_busy() && of(self.current.owner) {
            self.ended.add_ended(self.current.abandon());
        }
        let some = |parallel: &mut FuturesUnordered<Single>| parallel.iter().any(|s| of(s.owner));
        for mut single in self.parallel.take_if(some).into_iter().flatten() {
            if of(single.owner) {
                self.ended.add_ended(single.abandon());
            } else {
                self.parallel.get_or_insert_default().push(single);
            }
        }
        self.settle(scope, |_, _, _| ());
    }
}
