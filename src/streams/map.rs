//! An operation for each item, and what it returns.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Stream, TryStream};
use pin_project_lite::pin_project;

use super::each::Each;
use crate::error::{BoxError, Error};
use crate::step::StepContext;

/// Items that are left out before the executor has its thread back.
const LEFT_OUT_PER_POLL: usize = 256;

pin_project! {
    // What `StepStreamExt::map_step` returns. Nobody can name it: there are closures in its type.
    #[must_use = "a stream does nothing unless it is polled"]
    pub struct MapStep<S, O, F, U, E> {
        #[pin]
        each: Each<S, O, F, U, E>,
    }
}

impl<S, O, F, U, E> MapStep<S, O, F, U, E>
where
    S: TryStream<Error: Into<BoxError>>,
    O: FnMut(S::Ok, StepContext) -> F,
    F: Future<Output = Result<U, E>>,
    E: Into<BoxError>,
{
    pub(super) fn new(stream: S, context: &StepContext, operation: O) -> Self {
        Self { each: Each::new(stream, context, operation, None) }
    }
}

impl<S, O, F, U, E> Stream for MapStep<S, O, F, U, E>
where
    S: TryStream<Error: Into<BoxError>>,
    O: FnMut(S::Ok, StepContext) -> F,
    F: Future<Output = Result<U, E>>,
    E: Into<BoxError>,
{
    type Item = Result<U, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.project().each.poll_each(cx)
    }
}

impl<S, O, F, U, E> fmt::Debug for MapStep<S, O, F, U, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapStep").finish_non_exhaustive()
    }
}

pin_project! {
    // What `StepStreamExt::filter_map_step` returns. Nobody can name it: there are closures in its type.
    #[must_use = "a stream does nothing unless it is polled"]
    pub struct FilterMapStep<S, O, F, U, E> {
        #[pin]
        each: Each<S, O, F, Option<U>, E>,
    }
}

impl<S, O, F, U, E> FilterMapStep<S, O, F, U, E>
where
    S: TryStream<Error: Into<BoxError>>,
    O: FnMut(S::Ok, StepContext) -> F,
    F: Future<Output = Result<Option<U>, E>>,
    E: Into<BoxError>,
{
    pub(super) fn new(stream: S, context: &StepContext, operation: O) -> Self {
        Self { each: Each::new(stream, context, operation, None) }
    }
}

impl<S, O, F, U, E> Stream for FilterMapStep<S, O, F, U, E>
where
    S: TryStream<Error: Into<BoxError>>,
    O: FnMut(S::Ok, StepContext) -> F,
    F: Future<Output = Result<Option<U>, E>>,
    E: Into<BoxError>,
{
    type Item = Result<U, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        for _ in 0..LEFT_OUT_PER_POLL {
            let item = ready!(self.as_mut().project().each.poll_each(cx));
            if let Some(item) = item.map(Result::transpose) {
                if let Some(item) = item {
                    return Poll::Ready(Some(item));
                }
            } else {
                return Poll::Ready(None);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S, O, F, U, E> fmt::Debug for FilterMapStep<S, O, F, U, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterMapStep").finish_non_exhaustive()
    }
}
