//! The run of a scope's actions in the hands of whichever rollback drives it.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use super::run::{ActionRun, DrivingRollback, RunProgress};
use super::scope::CompensationScope;
use super::state::{self, ScopeInner, Wakers};
use crate::sync::{ThreadId, Weak, this_thread};

/// Wakes every rollback of a scope: whichever is polled first drives the run.
pub(super) struct RunBell(Weak<ScopeInner>);

impl Wake for RunBell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(scope) = self.0.upgrade() {
            ring(&CompensationScope::from(scope));
        }
    }
}

pub(super) fn ring(scope: &CompensationScope) {
    let waiters = |state: &mut state::ScopeState| Some(state.session.as_mut()?.waiters.take());
    // The lock is free before anybody is woken.
    let woken = waiters(&mut scope.inner.lock());
    state::wake(woken);
}

/// This thread polls attempts of a scope beside its run.
pub(super) struct PolledBeside<'a>(&'a CompensationScope);

impl<'a> PolledBeside<'a> {
    pub(super) fn new(scope: &'a CompensationScope) -> Self {
        let beside = Self(scope);
        beside.change(|threads| threads.push(this_thread()));
        beside
    }

    fn change(&self, change: impl FnOnce(&mut Vec<ThreadId>)) {
        self.0.inner.look(|state| {
            if let Some(session) = &mut state.session {
                change(&mut session.beside);
            }
        });
    }
}

impl Drop for PolledBeside<'_> {
    fn drop(&mut self) {
        self.change(|threads| threads.retain(|thread| *thread != this_thread()));
    }
}

/// The run in the hands of a driver. However the driver ends, it is put back.
pub(super) struct Hand {
    pub(super) scope: CompensationScope,
    pub(super) run: Option<Box<ActionRun>>,
}

impl Hand {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        alone: bool,
        driver: DrivingRollback<'_>,
    ) -> RunProgress {
        let Self { scope, run } = self;
        let Some(run) = run else { return RunProgress::Idle };
        if alone {
            return run.poll(scope, cx, driver);
        }
        // Whoever is polled next goes on.
        let bell = Arc::new(RunBell(crate::sync::Arc::downgrade(&scope.inner)));
        run.poll(scope, &mut Context::from_waker(&Waker::from(bell)), driver)
    }

    /// Puts down what is left of the run, for whoever looks next.
    pub(super) fn put_down(&mut self) {
        loop {
            drop(self.run.take_if(|run| run.is_empty()));
            if self.give(|_| true) {
                return;
            }
        }
    }

    /// Puts the run back, to be driven on by whoever is polled next. Returns whether it is to be
    /// waited for; otherwise somebody has gone away meanwhile, whose attempts were abandoned.
    pub(super) fn put_back(&mut self, alone: bool, progress: RunProgress) -> bool {
        // The waker of the driver is that of the attempts where it was alone: if it is not any
        // more, another one is to poll them with the waker of all.
        let news = |members| progress == RunProgress::Yielded || (alone && members > 1);
        let given = self.give(news);
        if !given {
            self.put_down();
        }
        given
    }

    /// Puts the run back unless a rollback has gone away meanwhile: then its attempts are abandoned.
    /// `news`: whether the others are to be woken, by how many members there are.
    fn give(&mut self, news: impl Fn(usize) -> bool) -> bool {
        let Self { scope, run } = self;
        let given = scope.inner.look(|state| -> Result<Option<Wakers>, Vec<u64>> {
            let Some(session) = state.session.as_mut() else { return Ok(None) };
            let gone = std::mem::take(&mut session.gone);
            if !gone.is_empty() && run.is_some() {
                return Err(gone);
            }
            session.run = run.take();
            session.driver = None;
            Ok(news(session.members).then(|| session.waiters.take()))
        });
        match (given, run) {
            (Ok(woken), _) => {
                state::wake(woken);
                true
            }
            (Err(gone), run) => {
                if let Some(run) = run {
                    run.abandon(scope, |owner| gone.contains(&owner));
                }
                false
            }
        }
    }
}

/// A driver that panics, because its executor's waker does, leaves the run to the others.
impl Drop for Hand {
    fn drop(&mut self) {
        if self.run.is_some() {
            self.put_back(true, RunProgress::Yielded);
        }
    }
}
