//! The future of every operation: its builder until the first poll, then what runs, then nothing.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::diagnostics::COUNTERS;
use crate::error::{Error, ErrorCode, Failure};
use crate::panics;

/// An operation between its builder and its result.
pub trait Operation: Sized {
    /// What awaiting it gives.
    type Output: Output;

    /// What is there from the first poll on.
    type Running;

    /// Whether its result is counted among those of the operations, and not by itself.
    const COUNTED: bool = false;

    /// Begins: called in the first poll.
    fn start(self) -> Self::Running;

    /// Goes on.
    fn poll(running: Pin<&mut Self::Running>, cx: &mut Context<'_>) -> Poll<Self::Output>;
}

/// What an operation comes to.
pub trait Output {
    /// An error where there is nothing else to tell.
    fn over(error: Error) -> Self;

    /// Counts it.
    fn count(&self);
}

impl<T> Output for Result<T, Error> {
    fn over(error: Error) -> Self {
        Err(error)
    }

    fn count(&self) {
        COUNTERS.count_operation(self);
    }
}

impl<R: Default> Output for Result<R, Failure<R>> {
    fn over(error: Error) -> Self {
        Err(Failure::new(error, R::default()))
    }

    fn count(&self) {
        COUNTERS.count_operation(self);
    }
}

/// The future of an operation: what `IntoFuture` makes of its builder `B`. Name it as
/// `<B as IntoFuture>::IntoFuture`.
///
/// It begins with its first poll. It is `Send` when everything that the builder was given is, with
/// the futures of its functions, and `Unpin` whatever they are. Polled after its end it gives an
/// error.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::future::IntoFuture;
/// use futures::stream;
/// use watershed::StepContext;
/// use watershed::channels::{MergeInto, SenderDestination, merge_into};
///
/// type Numbers = stream::Iter<std::vec::IntoIter<u32>>;
/// type Merge = MergeInto<Numbers, SenderDestination<u32>>;
/// struct Copying(<Merge as IntoFuture>::IntoFuture);
///
/// let (sender, _receiver) = async_channel::bounded(4);
/// let merge = merge_into(&StepContext::new("merge"), [stream::iter(vec![1])], sender);
/// let mut copying = Copying(merge.into_future());
/// assert_eq!((&mut copying.0).await?.delivered(), 1);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "an operation does nothing unless it is awaited"]
pub struct OperationFuture<B, R> {
    stage: OperationStage<B, R>,
}

// Nothing is demanded of `B` and `R` here. Whether the future is `Send` is then a question of its
// fields alone: what the user's closures are is not asked, which the compiler cannot do in the
// future of an `async fn`.
enum OperationStage<B, R> {
    Waiting(Box<B>),
    Running(Pin<Box<R>>),
    Over,
}

impl<B, R> OperationFuture<B, R> {
    pub(crate) fn new(builder: B) -> Self {
        Self { stage: OperationStage::Waiting(Box::new(builder)) }
    }

    /// Lets go of what is there. What may panic in it is the user's destructors.
    fn end(&mut self) {
        let stage = std::mem::replace(&mut self.stage, OperationStage::Over);
        panics::drop_contained(|| drop(stage));
    }
}

impl<B, R> Unpin for OperationFuture<B, R> {}

impl<B: Operation<Running = R>, R> Future for OperationFuture<B, R> {
    type Output = B::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let OperationStage::Waiting(_) = &this.stage {
            if let OperationStage::Waiting(builder) =
                std::mem::replace(&mut this.stage, OperationStage::Over)
            {
                this.stage = OperationStage::Running(Box::pin(builder.start()));
            }
        }
        let OperationStage::Running(running) = &mut this.stage else {
            let error = Error::new(ErrorCode::Unspecified, "the operation had ended already");
            return Poll::Ready(Output::over(error));
        };
        let polled = B::poll(running.as_mut(), cx);
        if let Poll::Ready(output) = &polled {
            if B::COUNTED {
                output.count();
            }
            this.end();
        }
        polled
    }
}

impl<B, R> Drop for OperationFuture<B, R> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<B, R> fmt::Debug for OperationFuture<B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            OperationStage::Waiting(_) => "not started",
            OperationStage::Running(_) => "running",
            OperationStage::Over => "over",
        };
        f.debug_struct("OperationFuture").field("stage", &stage).finish()
    }
}
