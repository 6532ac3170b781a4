//! What all handles of a group and its wait have in common: the context, the board, and the tasks
//! that wait for their first poll.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::task::{FutureObj, Spawn};

use super::board::Board;
use super::task::{InPlace, Post, task};
use crate::cancellation::CancellationToken;
use crate::drain::OnFailure;
use crate::error::{Error, ErrorCode};
use crate::lock::Lock;
use crate::outcome::HandlerOutput;
use crate::panics;
use crate::step::{ChildStep, StepContext};
use crate::undo::CompensationPolicy;

pub(super) struct GroupShared<'a, T> {
    pub(super) context: StepContext,
    pub(super) board: Arc<Board<T>>,
    /// Tasks that no wait has taken over so far.
    arrivals: Lock<Vec<InPlace<'a>>>,
    pub(super) settings: Lock<GroupSettings>,
}

pub(super) struct GroupSettings {
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Option<Duration>,
    /// The context that the tasks are children of.
    parent: StepContext,
    pub(super) roll_back: Option<RollBack>,
}

/// What a group does that undoes what its tasks did.
pub(super) struct RollBack {
    pub(super) policy: CompensationPolicy,
    /// The step between the context and the tasks, where the group keeps what they stage until it
    /// has ended. Dropping it hands that to the context's scope.
    pub(super) step: ChildStep,
    /// Tasks were added before, which stage on the context.
    pub(super) late: bool,
}

impl<'a, T: Send> GroupShared<'a, T> {
    pub(super) fn new(context: &StepContext) -> Self {
        let context = context.clone();
        let board = Board::new(context.cancellation().clone());
        let token = [context.cancellation().clone(), board.stop.token()];
        let parent = context.clone().with_cancellation(CancellationToken::linked(token));
        let settings = GroupSettings { timeout: None, grace: None, parent, roll_back: None };
        Self { context, board, arrivals: Lock::default(), settings: Lock::new(settings) }
    }

    pub(super) fn set_roll_back(&self, policy: CompensationPolicy) {
        let step = ChildStep::new(&self.context, None, &self.board.stop.token());
        let late = self.board.report().additions > 0;
        let parent = step.step();
        let roll_back = RollBack { policy, step, late };
        let old = {
            let mut settings = self.settings.lock();
            let parent = std::mem::replace(&mut settings.parent, parent);
            (settings.roll_back.replace(roll_back), parent)
        };
        drop(old);
    }

    fn parent(&self) -> StepContext {
        self.settings.lock().parent.clone()
    }

    /// Gives a task its number. The work of one that is refused is the user's, as its destructor is.
    fn admit<W>(&self, needs_room: bool, work: W) -> Result<(u64, W), Error> {
        match self.board.admit(needs_room) {
            Ok(number) => Ok((number, work)),
            Err(error) => {
                panics::drop_each([work]);
                Err(error)
            }
        }
    }

    /// Adds a task that whoever awaits the group polls.
    pub(super) fn go<W, F>(
        &self,
        needs_room: bool,
        name: Option<&str>,
        work: W,
    ) -> Result<(), Error>
    where
        T: 'a,
        W: FnOnce(StepContext) -> F + Send + 'a,
        F: Future<Output: HandlerOutput<T>> + Send + 'a,
    {
        let (number, work) = self.admit(needs_room, work)?;
        let name = self.name(name);
        let post = Post::new(&self.board, number, Arc::clone(&name));
        let task = Box::pin(task(&self.parent(), &name, post, work)?);
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
        needs_room: bool,
        spawner: &S,
        name: Option<&str>,
        work: W,
    ) -> Result<(), Error>
    where
        T: 'static,
        S: Spawn + ?Sized,
        W: FnOnce(StepContext) -> F + Send + 'static,
        F: Future<Output: HandlerOutput<T>> + Send + 'static,
    {
        let (number, work) = self.admit(needs_room, work)?;
        let name = self.name(name);
        let (post, offer) = Post::new(&self.board, number, Arc::clone(&name)).offered();
        let task = Box::new(task(&self.parent(), &name, post, work)?);
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

    fn name(&self, name: Option<&str>) -> Arc<str> {
        let kind = match self.board.on_failure() {
            OnFailure::Abort => "errgroup",
            OnFailure::Continue => "waitgroup",
        };
        name.map_or_else(|| format!("{}.{kind}", self.context.name()).into(), Arc::from)
    }
}

impl<'a, T> GroupShared<'a, T> {
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

    pub(super) fn take_roll_back(&self) -> Option<RollBack> {
        self.settings.lock().roll_back.take()
    }

    /// Ends the group where it is: tasks on an executor hear that it is gone, those in place go with
    /// it.
    pub(super) fn end(&self) {
        self.board.end();
        self.discard();
        drop(self.take_roll_back());
    }
}

impl<T> fmt::Debug for GroupShared<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("context", &self.context)
            .field("on_failure", &self.board.on_failure())
            .field("report", &self.board.report())
            .finish_non_exhaustive()
    }
}
