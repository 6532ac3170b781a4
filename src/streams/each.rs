//! One operation after another.
//!
//! [`Each`] takes an item of its stream, calls the operation with a child step, and polls it to
//! its end before it takes the next. It ends with the first `Err`, wherever that comes from.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, TryStream};
use pin_project_lite::pin_project;

use super::lifted::Lifted;
use crate::cancellation::CancellationToken;
use crate::clock::{Sleep, Tick};
use crate::context::{ChildStep, StepContext};
use crate::error::{BoxError, Error, ErrorCode};
use crate::limits::Limits;
use crate::outcome::Contained;

pin_project! {
    pub(super) struct Each<S, O, F, U, E> {
        #[pin]
        stream: Option<Lifted<S>>,
        context: StepContext,
        limits: Limits,
        operation: O,
        // Before the step, so that what its destructor registers is staged as well.
        #[pin]
        running: Option<Contained<F, fn(Result<U, E>) -> Result<U, Error>>>,
        step: Option<ChildStep>,
        item_timeout: Option<Duration>,
        deadline: Option<Sleep>,
    }
}

impl<S, O, F, U, E> Each<S, O, F, U, E>
where
    S: TryStream<Error: Into<BoxError>>,
    O: FnMut(S::Ok, StepContext) -> F,
    F: Future<Output = Result<U, E>>,
    E: Into<BoxError>,
{
    pub(super) fn new(
        stream: S,
        context: &StepContext,
        operation: O,
        item_timeout: Option<Duration>,
    ) -> Self {
        Self {
            stream: Some(Lifted::new(stream, context)),
            limits: Limits::new(context.clock(), context.cancellation().clone(), None),
            context: context.clone(),
            operation,
            running: None,
            step: None,
            item_timeout,
            deadline: None,
        }
    }

    pub(super) fn poll_each(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<U, Error>>> {
        loop {
            if self.running.is_some() {
                let result = ready!(self.as_mut().poll_running(cx));
                let mut this = self.project();
                this.running.set(None);
                if let Some(step) = this.step.take() {
                    // Whatever still works for this item hears that it is over.
                    step.cancel();
                }
                *this.deadline = None;
                if result.is_err() {
                    this.stream.set(None);
                }
                return Poll::Ready(Some(result));
            }
            let mut this = self.as_mut().project();
            let Some(stream) = this.stream.as_mut().as_pin_mut() else { return Poll::Ready(None) };
            match ready!(stream.poll_next(cx)) {
                Some(Ok(item)) => {
                    if let Err(error) = self.as_mut().start(item) {
                        self.project().stream.set(None);
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                end => {
                    this.stream.set(None);
                    return Poll::Ready(end.and_then(Result::err).map(Err));
                }
            }
        }
    }

    fn start(self: Pin<&mut Self>, item: S::Ok) -> Result<(), Error> {
        let mut this = self.project();
        let step = ChildStep::new(this.context, None, &CancellationToken::never());
        let call = || (this.operation)(item, step.step());
        let running = Contained::call("the operation", call, settle as fn(_) -> _);
        *this.step = Some(step);
        let clock = this.context.clock();
        let at = this.item_timeout.map(|timeout| clock.now() + timeout);
        *this.deadline = at.filter(|at| *at != Tick::MAX).map(|at| clock.sleep_until(at));
        this.running.set(Some(running?));
        Ok(())
    }

    fn poll_running(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<U, Error>> {
        let this = self.project();
        if let Some(exceeded) = this.limits.exceeded() {
            return Poll::Ready(Err(exceeded.into_error("the stream")));
        }
        if let Some(running) = this.running.as_pin_mut() {
            if let Poll::Ready(result) = running.poll(cx) {
                return Poll::Ready(result);
            }
        }
        if let (Some(deadline), Some(timeout)) = (this.deadline, *this.item_timeout) {
            if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Error::timeout("the operation", timeout)));
            }
        }
        this.limits.poll_exceeded(cx).map(|exceeded| Err(exceeded.into_error("the stream")))
    }
}

fn settle<U, E: Into<BoxError>>(result: Result<U, E>) -> Result<U, Error> {
    result.map_err(|error| Error::from_error(ErrorCode::Handler, error))
}
