//! A stream of results whose errors are the crate's.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Stream, TryStream};
use pin_project_lite::pin_project;

use crate::context::StepContext;
use crate::error::{BoxError, Error, ErrorCode};
use crate::limits::Limits;
use crate::panics;

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
        #[pin]
        stream: S,
        limits: Limits,
        ended: bool,
    }
}

impl<S: TryStream<Error: Into<BoxError>>> Lifted<S> {
    pub(super) fn new(stream: S, context: &StepContext) -> Self {
        let limits = Limits::new(context.clock(), context.cancellation().clone(), None);
        Self { stream, limits, ended: false }
    }
}

impl<S: TryStream<Error: Into<BoxError>>> Stream for Lifted<S> {
    type Item = Result<S::Ok, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        if let Some(exceeded) = this.limits.exceeded() {
            *this.ended = true;
            return Poll::Ready(Some(Err(exceeded.into_error("the stream"))));
        }
        let lift = |error: S::Error| Error::from_error(ErrorCode::Source, error);
        let polled = panics::contain(|| {
            let polled = this.stream.as_mut().try_poll_next(cx);
            polled.map(|item| item.map(|item| item.map_err(lift)))
        });
        match polled {
            Ok(Poll::Ready(Some(item))) => Poll::Ready(Some(item)),
            Ok(Poll::Ready(None)) => {
                *this.ended = true;
                Poll::Ready(None)
            }
            Err(message) => {
                *this.ended = true;
                Poll::Ready(Some(Err(Error::panic("the source", &message))))
            }
            Ok(Poll::Pending) => this.limits.poll_exceeded(cx).map(|exceeded| {
                *this.ended = true;
                Some(Err(exceeded.into_error("the stream")))
            }),
        }
    }
}

impl<S> fmt::Debug for Lifted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifted").field("ended", &self.ended).finish_non_exhaustive()
    }
}
