//! A stream for each item.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Stream, TryStream};
use pin_project_lite::pin_project;

use super::item_step::ItemStep;
use super::lifted::Lifted;
use crate::error::{BoxError, Error};
use crate::panics;
use crate::step::StepContext;

/// Inner streams without items that are gone through before the executor has its thread back.
const STREAMS_PER_POLL: usize = 256;

pin_project! {
    // What `StepStreamExt::flat_map_step` returns. Nobody can name it: there are closures in its type.
    #[must_use = "a stream does nothing unless it is polled"]
    pub struct FlatMapStep<S, O, I> {
        #[pin]
        stream: Lifted<S>,
        context: StepContext,
        operation: O,
        // Before the step, so that what its destructor registers is staged as well.
        #[pin]
        inner: Option<Lifted<I>>,
        step: Option<ItemStep>,
    }
}

impl<S, O, I> FlatMapStep<S, O, I>
where
    S: TryStream<Error: Into<BoxError>>,
    O: FnMut(S::Ok, StepContext) -> I,
    I: TryStream<Error: Into<BoxError>>,
{
    pub(super) fn new(stream: S, context: &StepContext, operation: O) -> Self {
        let stream = Lifted::new(stream, context);
        Self { stream, context: context.clone(), operation, inner: None, step: None }
    }
}

impl<S, O, I> Stream for FlatMapStep<S, O, I>
where
    S: TryStream<Error: Into<BoxError>>,
    O: FnMut(S::Ok, StepContext) -> I,
    I: TryStream<Error: Into<BoxError>>,
{
    type Item = Result<I::Ok, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        for _ in 0..STREAMS_PER_POLL {
            if let Some(mut inner) = this.inner.as_mut().as_pin_mut() {
                let item = ready!(inner.as_mut().poll_next(cx));
                if let Some(Ok(item)) = item {
                    return Poll::Ready(Some(Ok(item)));
                }
                // The stream goes before its step, also where its destructor panics.
                inner.close();
                this.inner.set(None);
                *this.step = None;
                if item.is_some() {
                    this.stream.close();
                    return Poll::Ready(item);
                }
            }
            let failure = match ready!(this.stream.as_mut().poll_next(cx)) {
                Some(Ok(item)) => {
                    let step = this.step.insert(ItemStep::new(this.context)).step();
                    match panics::contain(|| (this.operation)(item, step)) {
                        Ok(inner) => {
                            this.inner.set(Some(Lifted::new(inner, this.context)));
                            continue;
                        }
                        Err(message) => Some(Error::panic("the operation", &message)),
                    }
                }
                Some(Err(error)) => Some(error),
                None => None,
            };
            *this.step = None;
            this.stream.close();
            return Poll::Ready(failure.map(Err));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S, O, I> fmt::Debug for FlatMapStep<S, O, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlatMapStep").field("context", &self.context).finish_non_exhaustive()
    }
}
