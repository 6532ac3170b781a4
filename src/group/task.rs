//! One task of a group.
//!
//! It drives the user's future as a child step and posts to the board how it ended: after its
//! compensations were handed over, and also when it is dropped half way. It begins when it has its
//! permit, where there is a limit; a task that was told to stop before it began does not begin.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::board::{Board, EndedTask};
use super::permits::Permit;
use crate::cancellation::{CancellationToken, Cancelled};
use crate::diagnostics::COUNTERS;
use crate::error::{Error, ErrorCode};
use crate::lock::Lock;
use crate::outcome::{Contained, HandlerOutput, settle_for_good};
use crate::step::{ChildStep, StepContext};

pin_project! {
    /// A task that has not ended has its child step.
    pub(super) struct GroupTask<F, M, T> {
        #[pin]
        work: Contained<F, M>,
        child: Option<ChildStep>,
        post: Post<T>,
    }

    impl<F, M, T> PinnedDrop for GroupTask<F, M, T> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let Some(child) = this.child.take() else { return };
            // Whoever still works for the task hears that it is gone.
            child.cancel();
            let panicked = this.work.as_mut().abandon();
            drop(child);
            this.post.dropped(panicked);
        }
    }
}

/// A task in a group's queue.
pub(super) type InPlace<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Makes the task that calls `work` at its first poll.
pub(super) fn task<'a, W, F, T>(
    parent: &StepContext,
    name: &str,
    post: Post<T>,
    work: W,
) -> Result<impl Future<Output = ()> + Send + use<'a, W, F, T>, Error>
where
    W: FnOnce(StepContext) -> F + Send + 'a,
    F: Future<Output: HandlerOutput<T>> + Send + 'a,
    T: Send + 'a,
{
    let child = ChildStep::new(parent, Some(name), &CancellationToken::never());
    let step = child.step();
    let scope = child.scope().clone();
    let settle = move |output: F::Output| settle_for_good(output, &scope);
    let work = Contained::call("the task", || async move { work(step).await }, settle)?;
    Ok(GroupTask { work, child: Some(child), post })
}

impl<F, M, T> Future for GroupTask<F, M, T>
where
    F: Future,
    M: FnOnce(F::Output) -> Result<T, Error>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(child) = &*this.child else { return Poll::Ready(()) };
        let is_stopped = || child.context().cancellation().is_cancelled();
        let mut may_go_on = this.post.permit == Permit::Held || !is_stopped();
        if may_go_on && this.post.permit != Permit::Held {
            ready!(this.post.poll_permit(cx));
            // Asked again: a group that stops lets everybody through.
            may_go_on = !is_stopped();
        }
        let ended = if may_go_on {
            match this.work.as_mut().poll(cx) {
                Poll::Ready(Ok(value)) => EndedTask::Succeeded(value),
                Poll::Ready(Err(error)) => EndedTask::Failed(error),
                Poll::Pending if this.post.poll_aborted(cx).is_ready() => {
                    EndedTask::Dropped(this.work.as_mut().abandon())
                }
                Poll::Pending => return Poll::Pending,
            }
        } else {
            EndedTask::Dropped(this.work.as_mut().abandon())
        };
        *this.child = None;
        this.post.ended(ended);
        Poll::Ready(())
    }
}

/// How a task reaches its board.
pub(super) struct Post<T> {
    board: Arc<Board<T>>,
    number: u64,
    name: Arc<str>,
    permit: Permit,
    /// For a task on an executor.
    spawned: Option<Spawned>,
}

struct Spawned {
    standing: Arc<Lock<TaskStanding>>,
    aborted: Cancelled,
}

/// Whether the executor has taken a task.
pub(super) enum TaskStanding {
    /// Its answer is still to come.
    Offered,
    Accepted,
    Refused,
    /// It dropped the task before it had answered.
    Dropped(Error),
}

impl<T> Post<T> {
    pub(super) fn new(board: &Arc<Board<T>>, number: u64, name: Arc<str>) -> Self {
        Self { board: Arc::clone(board), number, name, permit: Permit::None, spawned: None }
    }

    fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.board.poll_permit(&mut self.permit, cx)
    }

    /// The same for a task that is offered to an executor.
    pub(super) fn offered(mut self) -> (Self, TaskOffer<T>) {
        let standing = Arc::new(Lock::new(TaskStanding::Offered));
        let offer = TaskOffer {
            board: Arc::clone(&self.board),
            number: self.number,
            standing: Arc::clone(&standing),
        };
        let aborted = self.board.abort_token().cancelled();
        self.spawned = Some(Spawned { standing, aborted });
        (self, offer)
    }

    fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.spawned {
            Some(spawned) => Pin::new(&mut spawned.aborted).poll(cx),
            None => Poll::Pending,
        }
    }

    /// The same end with the name of the task on its error; a nested group has named the innermost
    /// one already.
    fn named(&self, error: Error) -> Error {
        if error.metadata("task").is_some() {
            error
        } else {
            error.with_metadata("task", &self.name)
        }
    }

    /// The task has come to its end.
    fn ended(&mut self, ended: EndedTask<T>) {
        self.tell(ended);
        // Behind the news, so that no other task begins that a failure keeps from it.
        self.board.give_back(std::mem::take(&mut self.permit));
    }

    fn tell(&self, ended: EndedTask<T>) {
        if let Some(spawned) = &self.spawned {
            let mut standing = spawned.standing.lock();
            match *standing {
                TaskStanding::Refused => return,
                // It has run: what the executor answers now does not matter.
                _ => *standing = TaskStanding::Accepted,
            }
        }
        let ended = match ended {
            EndedTask::Succeeded(value) => EndedTask::Succeeded(value),
            EndedTask::Failed(error) => EndedTask::Failed(self.named(error)),
            EndedTask::Dropped(panicked) => {
                EndedTask::Dropped(panicked.map(|error| self.named(error)))
            }
        };
        self.board.post(self.number, ended);
    }

    /// The task was dropped before its end: by its group, or by its executor, which is a failure.
    fn dropped(&mut self, panicked: Option<Error>) {
        self.tell_dropped(panicked);
        self.board.give_back(std::mem::take(&mut self.permit));
    }

    fn tell_dropped(&self, panicked: Option<Error>) {
        let Some(spawned) = &self.spawned else { return self.tell(EndedTask::Dropped(panicked)) };
        let error = Error::new(ErrorCode::Canceled, "the executor dropped the task");
        let error = self.named(error.with_related(panicked));
        {
            let mut standing = spawned.standing.lock();
            match *standing {
                TaskStanding::Offered => return *standing = TaskStanding::Dropped(error),
                TaskStanding::Refused | TaskStanding::Dropped(_) => return,
                TaskStanding::Accepted => {}
            }
        }
        self.board.post(self.number, EndedTask::Failed(error));
    }
}

/// A task that an executor has been offered: what is done with its answer.
pub(super) struct TaskOffer<T> {
    board: Arc<Board<T>>,
    number: u64,
    standing: Arc<Lock<TaskStanding>>,
}

impl<T> TaskOffer<T> {
    pub(super) fn accept(self) {
        let before = std::mem::replace(&mut *self.standing.lock(), TaskStanding::Accepted);
        if let TaskStanding::Dropped(error) = before {
            self.board.post(self.number, EndedTask::Failed(error));
        }
    }

    /// The task does not count as added, unless it has run all the same.
    pub(super) fn refuse(self) {
        let before = {
            let mut standing = self.standing.lock();
            if let TaskStanding::Accepted = *standing {
                return;
            }
            std::mem::replace(&mut *standing, TaskStanding::Refused)
        };
        if let TaskStanding::Dropped(error) = before {
            // Its answer is what the caller gets; a destructor that panicked has nobody to tell.
            COUNTERS.contained_panics.add(error.related().len() as u64);
        }
        self.board.retract();
    }
}
