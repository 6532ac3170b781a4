//! A rollback among those of its scope: joining them, and leaving.

use std::task::Waker;

use super::report::RollbackReport;
use super::run::ActionRun;
use super::scope::CompensationScope;
use super::session::Session;
use super::state::{self, Wakers};
use crate::sync::this_thread;

/// Membership in the session of the scope.
pub(super) struct Joined {
    pub(super) id: u64,
    pub(super) waiter: Option<u64>,
    pub(super) succeeded_before: usize,
    pub(super) failures_before: usize,
}

/// What a rollback takes with it when it leaves.
#[derive(Default)]
pub(super) struct Left {
    /// The run, whose attempts of its own are to be abandoned before it leaves.
    pub(super) run: Option<Box<ActionRun>>,
    /// They are.
    pub(super) asked: bool,
    pub(super) report: RollbackReport,
    pub(super) woken: Option<Wakers>,
    pub(super) waker: Option<Waker>,
    pub(super) session: Option<Box<Session>>,
}

impl Joined {
    pub(super) fn new(session: &mut Session, scope: &CompensationScope) -> Self {
        let id = session.join();
        Self {
            id,
            waiter: None,
            succeeded_before: session.succeeded + scope.inner.signals.succeeded(),
            failures_before: session.failures_so_far,
        }
    }

    /// Leaves the session, or takes out the run, in which there may be attempts of this rollback: then
    /// it is to be called once more. Where another one drives the run, that one is told.
    pub(super) fn leave(
        &self,
        state: &mut state::ScopeState,
        scope: &CompensationScope,
        left: &mut Left,
    ) {
        let Some(mut session) = state.session.take() else { return };
        if !left.asked && session.driver.is_some() {
            session.gone.push(self.id);
            scope.inner.signals.want();
        } else if !left.asked && session.run.is_some() {
            left.run = session.run.take();
            session.driver = Some(this_thread());
            state.session = Some(session);
            return;
        }
        left.waker = self.waiter.and_then(|key| session.waiters.remove(key));
        left.woken = Some(session.waiters.take());
        session.members -= 1;
        left.report = self.report(&mut session, scope);
        if session.members > 0 {
            state.session = Some(session);
            return;
        }
        // Those of a scope that is over have gone where it has.
        session.given_up.take(&mut state.staged);
        left.session = Some(session);
    }

    /// What was done since this rollback joined.
    pub(super) fn report(
        &self,
        session: &mut Session,
        scope: &CompensationScope,
    ) -> RollbackReport {
        let succeeded = session.succeeded + scope.inner.signals.succeeded();
        let failures = session.failures_since(self.failures_before);
        RollbackReport { succeeded: succeeded - self.succeeded_before, failures }
    }
}
