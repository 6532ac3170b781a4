//! A stream of results whose errors are the crate's.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Stream, TryStream};
use pin_project_lite::pin_project;

use crate::error::{BoxError, Error, ErrorCode};
use crate::operation::{Exceeded, Limits};
use crate::panics;
use crate::step::StepContext;

pin_project! {
    /// The stream of [`StepStreamExt::lifted`](super::StepStreamExt::lifted).
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use watershed::{StepContext, streams::StepStreamExt};
    /// let items = stream::iter([Ok(1), Err("no")]).lifted(&StepContext::new("feed"));
    /// assert_eq!(futures::executor::block_on(items.count()), 2);
    /// ```
    #[must_use = "a stream does nothing unless it is polled"]
    pub struct Lifted<S> {
        // Gone as soon as it has ended.
        #[pin]
        stream: Option<S>,
        limits: Limits,
    }
}

impl<S: TryStream<Error: Into<BoxError>>> Lifted<S> {
    pub(super) fn new(stream: S, context: &StepContext) -> Self {
        let limits = Limits::by_token(context.cancellation().clone());
        Self { stream: Some(stream), limits }
    }
}

impl<S: TryStream<Error: Into<BoxError>>> Stream for Lifted<S> {
    type Item = Result<S::Ok, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.as_mut().project();
        let Some(mut stream) = this.stream.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let cancelled = |exceeded: Exceeded| Some(Err(exceeded.into_error("the stream")));
        let lift = |error: S::Error| Error::from_error(ErrorCode::Source, error);
        let last = match this.limits.exceeded() {
            Some(exceeded) => cancelled(exceeded),
            None => match panics::contain(|| {
                let polled = stream.as_mut().try_poll_next(cx);
                polled.map(|item| item.map(|item| item.map_err(lift)))
            }) {
                Ok(Poll::Ready(Some(item))) => return Poll::Ready(Some(item)),
                Ok(Poll::Ready(None)) => None,
                Ok(Poll::Pending) => cancelled(ready!(this.limits.poll_exceeded(cx))),
                Err(message) => Some(Err(Error::panic("the source", &message))),
            },
        };
        self.close();
        Poll::Ready(last)
    }
}

impl<S> Lifted<S> {
    /// Ends it here: the stream is dropped and not polled again.
    pub(super) fn close(self: Pin<&mut Self>) {
        let mut this = self.project();
        panics::drop_contained(|| this.stream.set(None));
    }
}

impl<S> fmt::Debug for Lifted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifted").field("ended", &self.stream.is_none()).finish_non_exhaustive()
    }
}
