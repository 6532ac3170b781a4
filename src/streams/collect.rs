//! All values, or all errors.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Stream, TryStream};
use pin_project_lite::pin_project;

use super::lifted::Lifted;
use crate::cancellation::CancellationToken;
use crate::error::{BoxError, Error, ErrorCode};
use crate::step::StepContext;

/// Items that one poll takes before the executor has its thread back.
const ITEMS_PER_POLL: usize = 256;

pin_project! {
    /// The future of [`StepStreamExt::collect_all`](super::StepStreamExt::collect_all).
    ///
    /// ```
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, streams::StepStreamExt};
    /// let all = stream::iter([Ok::<_, BoxError>(1)]).collect_all(&StepContext::new("x"));
    /// assert_eq!(futures::executor::block_on(all).unwrap(), [1]);
    /// ```
    #[must_use = "a future does nothing unless it is polled"]
    pub struct CollectAll<S: TryStream> {
        #[pin]
        stream: Lifted<S>,
        token: CancellationToken,
        values: Vec<S::Ok>,
        errors: Vec<Error>,
    }
}

impl<S: TryStream<Error: Into<BoxError>>> CollectAll<S> {
    pub(super) fn new(stream: S, context: &StepContext) -> Self {
        Self {
            stream: Lifted::new(stream, context),
            token: context.cancellation().clone(),
            values: Vec::new(),
            errors: Vec::new(),
        }
    }
}

impl<S: TryStream<Error: Into<BoxError>>> Future for CollectAll<S> {
    type Output = Result<Vec<S::Ok>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        for _ in 0..ITEMS_PER_POLL {
            match ready!(this.stream.as_mut().poll_next(cx)) {
                Some(Ok(value)) => this.values.push(value),
                Some(Err(error)) => this.errors.push(error),
                None => {
                    let values = std::mem::take(this.values);
                    let errors = std::mem::take(this.errors);
                    return Poll::Ready(result(values, errors, this.token.is_cancelled()));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn result<T>(values: Vec<T>, mut errors: Vec<Error>, cancelled: bool) -> Result<Vec<T>, Error> {
    if errors.is_empty() {
        return Ok(values);
    }
    let last_is_its_end = errors.last().is_some_and(|last| last.code() == ErrorCode::Canceled);
    let ended = if cancelled && last_is_its_end { errors.pop() } else { None };
    let error = ended.unwrap_or_else(|| {
        Error::new(ErrorCode::Aggregate, format!("{} items failed", errors.len()))
    });
    Err(error.with_related(errors).with_metadata("succeeded", values.len()))
}

impl<S: TryStream> fmt::Debug for CollectAll<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectAll")
            .field("values", &self.values.len())
            .field("errors", &self.errors.len())
            .finish_non_exhaustive()
    }
}
