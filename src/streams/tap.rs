//! An operation for each error.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Stream, TryStream};
use pin_project_lite::pin_project;

use super::item_step::ItemStep;
use super::lifted::Lifted;
use crate::error::{BoxError, Error, ErrorCode};
use crate::outcome::Contained;
use crate::step::StepContext;

pin_project! {
    // What `StepStreamExt::tap_err_step` returns. Nobody can name it: there are closures in its type.
    #[must_use = "a stream does nothing unless it is polled"]
    pub struct TapErrStep<S, O, F, E> {
        #[pin]
        stream: Lifted<S>,
        context: StepContext,
        operation: O,
        // Before the step, so that what its destructor registers is staged as well.
        #[pin]
        running: Option<Contained<F, fn(Result<(), E>) -> Result<(), Error>>>,
        step: Option<ItemStep>,
        // What the operation is about.
        error: Option<Error>,
    }
}

impl<S, O, F, E> TapErrStep<S, O, F, E>
where
    S: TryStream<Error: Into<BoxError>>,
    O: FnMut(Error, StepContext) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    pub(super) fn new(stream: S, context: &StepContext, operation: O) -> Self {
        let stream = Lifted::new(stream, context);
        Self { stream, context: context.clone(), operation, running: None, step: None, error: None }
    }
}

impl<S, O, F, E> Stream for TapErrStep<S, O, F, E>
where
    S: TryStream<Error: Into<BoxError>>,
    O: FnMut(Error, StepContext) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    type Item = Result<S::Ok, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        if this.error.is_none() {
            let error = match ready!(this.stream.poll_next(cx)) {
                Some(Err(error)) => error,
                item => return Poll::Ready(item),
            };
            let step = ItemStep::new(this.context);
            let call = || (this.operation)(error.clone(), step.step());
            match Contained::call("the operation", call, settle as fn(_) -> _) {
                Ok(running) => this.running.set(Some(running)),
                Err(panicked) => return Poll::Ready(Some(Err(error.with_related([panicked])))),
            }
            *this.step = Some(step);
            *this.error = Some(error);
        }
        let result = match this.running.as_mut().as_pin_mut() {
            Some(running) => ready!(running.poll(cx)),
            None => Ok(()),
        };
        this.running.set(None);
        *this.step = None;
        let error = this.error.take().map(|error| error.with_related(result.err()));
        Poll::Ready(error.map(Err))
    }
}

fn settle<E: Into<BoxError>>(result: Result<(), E>) -> Result<(), Error> {
    result.map_err(|error| Error::from_error(ErrorCode::Handler, error))
}

impl<S, O, F, E> fmt::Debug for TapErrStep<S, O, F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TapErrStep").field("context", &self.context).finish_non_exhaustive()
    }
}
