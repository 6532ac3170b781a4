//! A destination that is two: a partition.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::{Destination, IntoDestination, Refused, Undelivered};
use crate::error::Error;

pin_project! {
    /// One destination out of two: a message for which `predicate` is true goes to `left`, any other to
    /// `right`. A message is taken when both have room, in the order of the source; both are closed
    /// together.
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

impl<L, R, P> Destination for Route<L, R, P>
where
    L: Destination,
    R: Destination<Message = L::Message>,
    P: FnMut(&L::Message) -> bool,
{
    type Message = L::Message;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut this = self.project();
        let left = this.left.as_mut().poll_ready(cx)?;
        let right = this.right.as_mut().poll_ready(cx)?;
        // What one side has goes on while the other one has no room.
        if left.is_pending() {
            let _ = this.right.poll_flush(cx)?;
        } else if right.is_pending() {
            let _ = this.left.poll_flush(cx)?;
        }
        both(left, right)
    }

    fn try_send(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: L::Message,
    ) -> Result<(), Refused<L::Message>> {
        let this = self.project();
        if (this.predicate)(&message) {
            this.left.try_send(cx, message)
        } else {
            this.right.try_send(cx, message)
        }
    }

    fn poll_send(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        hand: &mut Option<L::Message>,
    ) -> Poll<Result<(), Error>> {
        let mut this = self.project();
        if let (None, Some(message)) = (&this.sending, &hand) {
            let left = (this.predicate)(message);
            *this.sending = Some(if left { Side::Left } else { Side::Right });
        }
        let sent = match this.sending {
            Some(Side::Left) => this.left.as_mut().poll_send(cx, hand),
            Some(Side::Right) => this.right.as_mut().poll_send(cx, hand),
            None => Poll::Ready(Ok(())),
        };
        let Poll::Ready(sent) = sent else {
            let _ = match this.sending {
                Some(Side::Left) => this.right.poll_flush(cx)?,
                _ => this.left.poll_flush(cx)?,
            };
            return Poll::Pending;
        };
        *this.sending = None;
        Poll::Ready(sent)
    }

    fn take_back(self: Pin<&mut Self>) -> Option<Undelivered<L::Message>> {
        let this = self.project();
        *this.sending = None;
        this.left.take_back().or_else(|| this.right.take_back())
    }

    fn makes_room(&self) -> bool {
        self.left.makes_room() && self.right.makes_room()
    }

    fn force_send(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: L::Message,
    ) -> Result<Option<L::Message>, Refused<L::Message>> {
        let this = self.project();
        if (this.predicate)(&message) {
            this.left.force_send(cx, message)
        } else {
            this.right.force_send(cx, message)
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.project();
        let left = this.left.poll_flush(cx)?;
        let right = this.right.poll_flush(cx)?;
        both(left, right)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.project();
        // Both are asked, so that a failure of one leaves the other closed as well.
        let (left, right) = (this.left.poll_close(cx), this.right.poll_close(cx));
        both(left?, right?)
    }

    /// A message for the side that is closed would end the operation, whatever the other one does.
    fn poll_closed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let (left, right) = (this.left.poll_closed(cx), this.right.poll_closed(cx));
        if left.is_ready() || right.is_ready() { Poll::Ready(()) } else { Poll::Pending }
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
