//! The room of a call, which is used for one call after another.
//!
//! A transport that answers at once, with a message in each call, has a future made, polled once and
//! dropped for every message: an allocation each time is 20 to 30 ns of a message. A seat is allocated
//! once, and a future is put into it in place. One whose call has to wait goes with it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::panics;

/// Where calls are made one after another: a future, once a call has begun.
pub(super) trait Sits<I>: Future + Send {
    /// Begins a call. There is none.
    fn begin(self: Pin<&mut Self>, input: I);
}

/// A seat for calls with this input and this answer.
pub(super) type Seat<I, R> = Pin<Box<dyn Sits<I, Output = R>>>;

/// A seat for the calls that `make` makes.
pub(super) fn seat<I, F>(make: impl Fn(I) -> F + Send + 'static) -> Seat<I, F::Output>
where
    F: Future + Send + 'static,
{
    Box::pin(SeatPlace { make, call: None })
}

pin_project! {
    struct SeatPlace<M, F> {
        make: M,
        // Gone as soon as it has ended.
        #[pin]
        call: Option<F>,
    }
}

impl<M, F: Future> Future for SeatPlace<M, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let Some(call) = this.call.as_mut().as_pin_mut() else { return Poll::Pending };
        let polled = call.poll(cx);
        if polled.is_ready() {
            panics::drop_contained(|| this.call.set(None));
        }
        polled
    }
}

impl<I, M, F> Sits<I> for SeatPlace<M, F>
where
    M: Fn(I) -> F + Send,
    F: Future + Send,
{
    fn begin(self: Pin<&mut Self>, input: I) {
        let mut this = self.project();
        let call = (this.make)(input);
        this.call.set(Some(call));
    }
}
