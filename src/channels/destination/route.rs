//! A destination that is two: a partition.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::{Destination, IntoDestination, Refused, Undelivered};
use crate::error::Error;
use crate::panics;

pin_project! {
    /// One destination out of two: a message for which `predicate` is true goes to `left`, any other to
    /// `right`. A message is taken when both have room, in the order of the source; both are closed
    /// together, and where one of them fails or has no receiver any more, so is the other one.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{StreamExt, stream};
    /// use watershed::{StepContext, channels::{merge_into, Route}};
    ///
    /// let (even, from_even) = async_channel::unbounded();
    /// let (odd, from_odd) = async_channel::unbounded();
    /// let destination = Route::new(|number: &u32| number % 2 == 0, even, odd);
    /// merge_into(&StepContext::new("partition"), [stream::iter(1..=5)], destination).await?;
    /// assert_eq!(from_even.collect::<Vec<_>>().await, [2, 4]);
    /// assert_eq!(from_odd.collect::<Vec<_>>().await, [1, 3, 5]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use = "a destination does nothing unless something is sent to it"]
    pub struct Route<L, R, P> {
        #[pin]
        left: L,
        #[pin]
        right: R,
        predicate: P,
        // Where the message goes that is being sent.
        sending: Option<Side>,
    }
}

impl<L: Destination, R: Destination<Message = L::Message>, P> Route<L, R, P>
where
    P: FnMut(&L::Message) -> bool,
{
    /// Two destinations as one.
    pub fn new(
        predicate: P,
        left: impl IntoDestination<Destination = L>,
        right: impl IntoDestination<Destination = R>,
    ) -> Self {
        let (left, right) = (left.into_destination(), right.into_destination());
        Self { left, right, predicate, sending: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl<L, R, P> Route<L, R, P>
where
    L: Destination,
    R: Destination<Message = L::Message>,
    P: FnMut(&L::Message) -> bool,
{
    /// Which side a message is for.
    fn side(self: Pin<&mut Self>, message: &L::Message) -> Result<Side, Error> {
        let this = self.project();
        match panics::contain(|| (this.predicate)(message)) {
            Ok(true) => Ok(Side::Left),
            Ok(false) => Ok(Side::Right),
            Err(text) => Err(Error::panic("the predicate of a route", &text)),
        }
    }

    /// Closes what has not failed where something has, as far as that can be done without waiting.
    fn fail(self: Pin<&mut Self>, failed: Option<Side>) {
        let this = self.project();
        let mut cx = Context::from_waker(Waker::noop());
        if failed != Some(Side::Left) {
            panics::drop_contained(|| drop(this.left.poll_close(&mut cx)));
        }
        if failed != Some(Side::Right) {
            panics::drop_contained(|| drop(this.right.poll_close(&mut cx)));
        }
    }

    /// What one side says; an error ends the other one.
    fn said<T>(
        self: Pin<&mut Self>,
        side: Side,
        polled: Poll<Result<T, Error>>,
    ) -> Result<Poll<T>, Error> {
        match polled {
            Poll::Ready(Ok(done)) => Ok(Poll::Ready(done)),
            Poll::Ready(Err(error)) => {
                self.fail(Some(side));
                Err(error)
            }
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Sends to the side that the message is for.
    fn send<T>(
        mut self: Pin<&mut Self>,
        message: L::Message,
        left: impl FnOnce(Pin<&mut L>, L::Message) -> Result<T, Refused<L::Message>>,
        right: impl FnOnce(Pin<&mut R>, L::Message) -> Result<T, Refused<L::Message>>,
    ) -> Result<T, Refused<L::Message>> {
        let side = match self.as_mut().side(&message) {
            Ok(side) => side,
            Err(error) => {
                self.fail(None);
                return Err(Refused::Failed(error, Some(message)));
            }
        };
        let this = self.as_mut().project();
        let sent = match side {
            Side::Left => left(this.left, message),
            Side::Right => right(this.right, message),
        };
        if let Err(Refused::Closed(_) | Refused::Failed(..)) = &sent {
            self.fail(Some(side));
        }
        sent
    }
}

impl<L, R, P> Destination for Route<L, R, P>
where
    L: Destination,
    R: Destination<Message = L::Message>,
    P: FnMut(&L::Message) -> bool,
{
    type Message = L::Message;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let left = self.as_mut().project().left.poll_ready(cx);
        let left = self.as_mut().said(Side::Left, left)?;
        let right = self.as_mut().project().right.poll_ready(cx);
        let right = self.as_mut().said(Side::Right, right)?;
        // What one side has goes on while the other one has no room.
        if left.is_pending() {
            let flushed = self.as_mut().project().right.poll_flush(cx);
            let _ = self.said(Side::Right, flushed)?;
        } else if right.is_pending() {
            let flushed = self.as_mut().project().left.poll_flush(cx);
            let _ = self.said(Side::Left, flushed)?;
        }
        both(left, right)
    }

    fn try_send(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: L::Message,
    ) -> Result<(), Refused<L::Message>> {
        let cx = RefCell::new(cx);
        self.send(
            message,
            |left, message| left.try_send(&mut cx.borrow_mut(), message),
            |right, message| right.try_send(&mut cx.borrow_mut(), message),
        )
    }

    fn poll_send(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        hand: &mut Option<L::Message>,
    ) -> Poll<Result<(), Error>> {
        if let (None, Some(message)) = (self.sending, &hand) {
            match self.as_mut().side(message) {
                Ok(side) => *self.as_mut().project().sending = Some(side),
                Err(error) => {
                    self.fail(None);
                    return Poll::Ready(Err(error));
                }
            }
        }
        let Some(side) = self.sending else { return Poll::Ready(Ok(())) };
        let this = self.as_mut().project();
        let sent = match side {
            Side::Left => this.left.poll_send(cx, hand),
            Side::Right => this.right.poll_send(cx, hand),
        };
        if self.as_mut().said(side, sent)?.is_pending() {
            let this = self.as_mut().project();
            let (other, flushed) = match side {
                Side::Left => (Side::Right, this.right.poll_flush(cx)),
                Side::Right => (Side::Left, this.left.poll_flush(cx)),
            };
            let _ = self.said(other, flushed)?;
            return Poll::Pending;
        }
        *self.project().sending = None;
        Poll::Ready(Ok(()))
    }

    fn take_back(self: Pin<&mut Self>) -> Option<Undelivered<L::Message>> {
        let this = self.project();
        *this.sending = None;
        this.left.take_back().or_else(|| this.right.take_back())
    }

    fn gives_back(&self) -> bool {
        self.left.gives_back() && self.right.gives_back()
    }

    fn makes_room(&self) -> bool {
        self.left.makes_room() && self.right.makes_room()
    }

    fn force_send(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: L::Message,
    ) -> Result<Option<L::Message>, Refused<L::Message>> {
        let cx = RefCell::new(cx);
        self.send(
            message,
            |left, message| left.force_send(&mut cx.borrow_mut(), message),
            |right, message| right.force_send(&mut cx.borrow_mut(), message),
        )
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let left = self.as_mut().project().left.poll_flush(cx);
        let left = self.as_mut().said(Side::Left, left)?;
        let right = self.as_mut().project().right.poll_flush(cx);
        let right = self.said(Side::Right, right)?;
        both(left, right)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.project();
        // Both are asked, so that a failure of one leaves the other closed as well.
        let (left, right) = (this.left.poll_close(cx), this.right.poll_close(cx));
        both(left?, right?)
    }

    /// A message for the side that is closed would end the operation, whatever the other one does.
    fn poll_closed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.as_mut().project();
        let (left, right) = (this.left.poll_closed(cx), this.right.poll_closed(cx));
        if left.is_pending() && right.is_pending() {
            return Poll::Pending;
        }
        self.fail(None);
        Poll::Ready(())
    }
}

fn both(left: Poll<()>, right: Poll<()>) -> Poll<Result<(), Error>> {
    if left.is_ready() && right.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
}

impl<L: fmt::Debug, R: fmt::Debug, P> fmt::Debug for Route<L, R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("left", &self.left)
            .field("right", &self.right)
            .field("sending", &self.sending)
            .finish_non_exhaustive()
    }
}
