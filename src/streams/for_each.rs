//! An operation for each item, to the end.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::TryStream;
use pin_project_lite::pin_project;

use super::each::Each;
use crate::error::{BoxError, Error};
use crate::operation::{Operation, OperationFuture};
use crate::step::StepContext;

/// Items that one poll goes through before the executor has its thread back.
const ITEMS_PER_POLL: u64 = 256;

/// A run over a stream that has not started, made by
/// [`StepStreamExt::for_each_step`](super::StepStreamExt::for_each_step). Awaiting it gives the
/// number of items.
///
/// Every item has a step of its own, with a token of its own that is linked to the context's.
///
/// | option | default |
/// | --- | --- |
/// | [`item_timeout`](ForEachStep::item_timeout) | never |
///
/// # Errors
///
/// The first `Err`, of the stream or of an operation, with the codes of
/// [`map_step`](super::StepStreamExt::map_step), or
/// [`ErrorCode::Timeout`](crate::ErrorCode::Timeout). Nothing is taken after it.
///
/// # Cancel safety
///
/// Dropping the future drops the operation in flight with its item; what it has registered is
/// staged on the context's scope, and the rest is still in the stream.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use futures::stream;
/// use watershed::{BoxError, ErrorCode, StepContext, streams::StepStreamExt};
///
/// let context = StepContext::new("all");
/// let error = stream::iter([Ok::<_, BoxError>(1)])
///     .for_each_step(&context, |_, _| std::future::pending::<Result<(), BoxError>>())
///     .item_timeout(Duration::from_millis(1))
///     .await
///     .unwrap_err();
/// assert_eq!(error.code(), ErrorCode::Timeout);
/// # });
/// ```
#[must_use = "a run does nothing unless it is awaited"]
pub struct ForEachStep<S, O> {
    stream: S,
    context: StepContext,
    operation: O,
    item_timeout: Option<Duration>,
}

impl<S, O> ForEachStep<S, O> {
    pub(super) fn new(stream: S, context: &StepContext, operation: O) -> Self {
        Self { stream, context: context.clone(), operation, item_timeout: None }
    }

    /// A deadline for each item, counted from the call of its operation by the context's clock: an
    /// operation that is not done by then is dropped, and the run has failed. Zero: it is polled
    /// once. [`Duration::MAX`], and the default: never.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, streams::StepStreamExt};
    ///
    /// let context = StepContext::new("all");
    /// let items = stream::iter([Ok::<_, BoxError>(1)]);
    /// let run = items.for_each_step(&context, async |_, _| Ok::<_, BoxError>(()));
    /// assert_eq!(run.item_timeout(Duration::from_secs(1)).await?, 1);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn item_timeout(mut self, timeout: Duration) -> Self {
        self.item_timeout = Some(timeout);
        self
    }
}

impl<S, O, F, E> IntoFuture for ForEachStep<S, O>
where
    S: TryStream<Error: Into<BoxError>>,
    O: FnMut(S::Ok, StepContext) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    type Output = Result<u64, Error>;
    type IntoFuture = OperationFuture<Self, RunningForEach<S, O, F, E>>;

    fn into_future(self) -> Self::IntoFuture {
        OperationFuture::new(self)
    }
}

impl<S, O> fmt::Debug for ForEachStep<S, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForEachStep")
            .field("context", &self.context)
            .field("item_timeout", &self.item_timeout)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// A run between its first poll and its result.
    pub struct RunningForEach<S, O, F, E> {
        #[pin]
        each: Each<S, O, F, (), E>,
        count: u64,
    }
}

impl<S, O, F, E> Operation for ForEachStep<S, O>
where
    S: TryStream<Error: Into<BoxError>>,
    O: FnMut(S::Ok, StepContext) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    type Output = Result<u64, Error>;
    type Running = RunningForEach<S, O, F, E>;

    fn start(self) -> Self::Running {
        let Self { stream, context, operation, item_timeout } = self;
        RunningForEach { each: Each::new(stream, &context, operation, item_timeout), count: 0 }
    }

    fn poll(running: Pin<&mut Self::Running>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = running.project();
        for _ in 0..ITEMS_PER_POLL {
            match ready!(this.each.as_mut().poll_each(cx)) {
                Some(Ok(())) => *this.count += 1,
                Some(Err(error)) => {
                    return Poll::Ready(Err(error.with_metadata("handled", *this.count)));
                }
                None => return Poll::Ready(Ok(*this.count)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
