//! One operation after another.
//!
//! [`Each`] takes an item of its stream, calls the operation with a step of the item's own, and
//! polls it to its end before it takes the next. It ends with the first `Err`, wherever that comes
//! from; by then the operation, its step and the stream are gone.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, TryStream};
use pin_project_lite::pin_project;

use super::item_step::ItemStep;
use super::lifted::Lifted;
use crate::clock::Alarm;
use crate::error::{BoxError, Error, ErrorCode};
use crate::operation::Limits;
use crate::outcome::Contained;
use crate::panics;
use crate::step::StepContext;

pin_project! {
    pub(super) struct Each<S, O, F, U, E> {
        #[pin]
        stream: Lifted<S>,
        context: StepContext,
        limits: Limits,
        operation: O,
        // Before the step, so that what its destructor registers is staged as well.
        #[pin]
        running: Option<Contained<F, fn(Result<U, E>) -> Result<U, Error>>>,
        step: Option<ItemStep>,
        item_timeout: Option<Duration>,
        deadline: Option<Alarm>,
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
            stream: Lifted::new(stream, context),
            limits: Limits::by_token(context.cancellation().clone()),
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
        // What may panic here outside the stream and the operation is the clock.
        let polled = panics::contain(|| self.as_mut().poll_item(cx));
        let polled = polled
            .unwrap_or_else(|message| Poll::Ready(Some(Err(Error::panic("the clock", &message)))));
        let item = ready!(polled);
        let destructor = self.as_mut().end_item();
        Poll::Ready(match item {
            Some(Ok(value)) => Some(Ok(value)),
            last => {
                self.project().stream.close();
                last.map(|item| item.map_err(|error| error.with_related(destructor)))
            }
        })
    }

    /// Takes an item if none is being worked on, and polls its operation.
    fn poll_item(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<U, Error>>> {
        if self.running.is_none() {
            match ready!(self.as_mut().project().stream.poll_next(cx)) {
                Some(Ok(item)) => self.as_mut().start(item)?,
                end => return Poll::Ready(end.and_then(Result::err).map(Err)),
            }
        }
        self.poll_running(cx).map(Some)
    }

    /// Drops what is left of the item. What its operation has staged is in the scope then, and
    /// whatever still works for it hears that it is over.
    fn end_item(self: Pin<&mut Self>) -> Option<Error> {
        let mut this = self.project();
        let panicked = this.running.as_mut().as_pin_mut().and_then(Contained::abandon);
        this.running.set(None);
        *this.step = None;
        *this.deadline = None;
        panicked
    }

    fn start(self: Pin<&mut Self>, item: S::Ok) -> Result<(), Error> {
        let mut this = self.project();
        let step = this.step.insert(ItemStep::new(this.context)).step();
        let clock = this.context.clock();
        let deadline = this.item_timeout.map(|timeout| Alarm::after(clock, timeout)).transpose()?;
        let call = || (this.operation)(item, step);
        let running = Contained::call("the operation", call, settle as fn(_) -> _)?;
        this.running.set(Some(running));
        *this.deadline = deadline;
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
            if deadline.poll(cx).is_ready() {
                return Poll::Ready(Err(Error::timeout("the operation", timeout)));
            }
        }
        this.limits.poll_exceeded(cx).map(|exceeded| Err(exceeded.into_error("the stream")))
    }
}

fn settle<U, E: Into<BoxError>>(result: Result<U, E>) -> Result<U, Error> {
    result.map_err(|error| Error::from_error(ErrorCode::Handler, error))
}
