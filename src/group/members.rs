//! What both groups have in common: a context, a board, and tasks that wait for their first poll.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::task::{FutureObj, Spawn};

use super::board::Board;
use super::task::{InPlace, Post, task};
use super::wait::GroupWait;
use crate::cancellation::{CancellationSource, CancellationToken};
use crate::error::{Error, ErrorCode};
use crate::lock::Lock;
use crate::outcome::HandlerOutput;
use crate::panics;
use crate::step::{ChildStep, StepContext};
use crate::undo::CompensationPolicy;

pub(super) struct Members<'a> {
    kind: &'static str,
    pub(super) context: StepContext,
    /// The context that the tasks are children of.
    parent: StepContext,
    /// The step between the context and the tasks, where the group keeps what they stage until it
    /// has ended.
    pub(super) child: Lock<Option<ChildStep>>,
    pub(super) board: Arc<Board>,
    /// Tasks that no wait has taken over so far.
    arrivals: Lock<Vec<InPlace<'a>>>,
    pub(super) settings: Settings,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Option<Duration>,
    pub(super) roll_back: Option<CompensationPolicy>,
}

impl<'a> Members<'a> {
    /// Tasks that stage on the context's scope as soon as each has ended.
    pub(super) fn apart(context: &StepContext) -> Self {
        let stop = CancellationSource::new();
        let token = [context.cancellation().clone(), stop.token()];
        let parent = context.clone().with_cancellation(CancellationToken::linked(token));
        Self::new("waitgroup", context, parent, None, Board::new(false, outer(context), stop))
    }

    /// Tasks that stop together, and whose compensations the group keeps until it has ended.
    pub(super) fn together(context: &StepContext) -> Self {
        let stop = CancellationSource::new();
        let child = ChildStep::new(context, None, &stop.token());
        let board = Board::new(true, outer(context), stop);
        Self::new("errgroup", context, child.step(), Some(child), board)
    }

    fn new(
        kind: &'static str,
        context: &StepContext,
        parent: StepContext,
        child: Option<ChildStep>,
        board: Arc<Board>,
    ) -> Self {
        let (child, arrivals) = (Lock::new(child), Lock::default());
        let context = context.clone();
        Self { kind, context, parent, child, board, arrivals, settings: Settings::default() }
    }

    /// Adds a task that whoever awaits the group polls.
    pub(super) fn go<W, F>(&self, name: Option<&str>, work: W) -> Result<(), Error>
    where
        W: FnOnce(StepContext) -> F + Send + 'a,
        F: Future<Output: HandlerOutput> + Send + 'a,
    {
        let number = self.board.admit()?;
        let name = self.name(name);
        let post = Post::new(&self.board, number, Arc::clone(&name));
        let task = Box::pin(task(&self.parent, &name, post, work)?);
        self.arrivals.lock().push(task);
        // The wait may have ended since the task was admitted: then nobody takes it over.
        if self.board.has_ended() {
            self.discard();
        }
        self.board.wake();
        Ok(())
    }

    /// Adds a task that runs on an executor.
    pub(super) fn go_on<S, W, F>(
        &self,
        spawner: &S,
        name: Option<&str>,
        work: W,
    ) -> Result<(), Error>
    where
        S: Spawn + ?Sized,
        W: FnOnce(StepContext) -> F + Send + 'static,
        F: Future<Output: HandlerOutput> + Send + 'static,
    {
        let number = self.board.admit()?;
        let name = self.name(name);
        let (post, offer) = Post::new(&self.board, number, Arc::clone(&name)).offered();
        let task = Box::new(task(&self.parent, &name, post, work)?);
        let error = match panics::contain(|| spawner.spawn_obj(FutureObj::new(task))) {
            Ok(Ok(())) => {
                offer.accept();
                return Ok(());
            }
            Ok(Err(refusal)) => {
                Error::new(ErrorCode::Unspecified, "the executor took no task").with_source(refusal)
            }
            Err(message) => Error::panic("the executor", &message),
        };
        offer.refuse();
        Err(error.with_metadata("task", name))
    }

    pub(super) fn wait(&self) -> GroupWait<'_, 'a> {
        GroupWait::new(self)
    }

    fn name(&self, name: Option<&str>) -> Arc<str> {
        match name {
            Some(name) => name.into(),
            None => format!("{}.{}", self.context.name(), self.kind).into(),
        }
    }

    /// The tasks added since the last call.
    pub(super) fn arrivals(&self) -> Vec<InPlace<'a>> {
        std::mem::take(&mut *self.arrivals.lock())
    }

    pub(super) fn has_arrivals(&self) -> bool {
        !self.arrivals.lock().is_empty()
    }

    /// Drops the tasks that will not be polled any more.
    pub(super) fn discard(&self) {
        drop(self.arrivals());
    }

    /// The step that keeps what the tasks stage: dropping it hands that to the context's scope.
    pub(super) fn take_child(&self) -> Option<ChildStep> {
        self.child.lock().take()
    }
}

fn outer(context: &StepContext) -> CancellationToken {
    context.cancellation().clone()
}

/// Tasks on an executor hear that the group is gone; those in place go with it.
impl Drop for Members<'_> {
    fn drop(&mut self) {
        self.board.end();
        self.discard();
    }
}

impl fmt::Debug for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("kind", &self.kind)
            .field("context", &self.context)
            .field("report", &self.board.report())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
