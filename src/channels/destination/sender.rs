//! A channel as a destination.
//!
//! A channel has no way to wait for room but with a message: a full one is given the message in a
//! send of its own, which is polled until there is room. What waits in there can be had back when
//! the channel is closed, which an operation does when it ends, and not before.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use async_channel::{SendError, Sender, TrySendError};

use super::undelivered::{Undelivered, WaitingSend};
use super::{Destination, IntoDestination, Refused, closed};
use crate::error::Error;
use crate::panics::{self, ContainedWaker};

/// The sender of a channel as a [`Destination`]. Closing it closes the channel, whoever else holds
/// a sender of it.
///
/// It is ready until the channel is closed: a channel can only tell by a message whether it has
/// room. So one message may be waiting in front of a full channel, and none more.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::StepContext;
/// use watershed::channels::merge_into;
///
/// let (sender, receiver) = async_channel::bounded(4);
/// merge_into(&StepContext::new("merge"), [stream::iter([1, 2])], sender).await?;
/// assert_eq!(receiver.recv().await, Ok(1));
/// assert!(receiver.is_closed());
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub struct SenderDestination<T> {
    sender: Sender<T>,
    /// A message that waits for room.
    waiting: Option<WaitingSend<T>>,
    /// Ready when the channel is closed, once somebody has asked for that.
    closed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// What the channel wakes, on the thread that receives.
    waker: Option<Arc<ContainedWaker>>,
}

impl<T: Send + 'static> SenderDestination<T> {
    /// A destination over this sender.
    ///
    /// ```
    /// let (sender, _receiver) = async_channel::bounded::<u32>(4);
    /// let destination = watershed::channels::SenderDestination::new(sender);
    /// # let _ = destination;
    /// ```
    #[must_use]
    pub fn new(sender: Sender<T>) -> Self {
        Self { sender, waiting: None, closed: None, waker: None }
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), T>> {
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(Ok(())) };
        let polled = panics::poll_contained(cx, &mut self.waker, |cx| waiting.as_mut().poll(cx));
        let result = ready!(polled);
        self.waiting = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Destination for SenderDestination<T> {
    type Message = T;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.sender.is_closed() {
            return Poll::Ready(Err(closed()));
        }
        self.poll_waiting(cx).map(|result| result.map_err(|_| closed()))
    }

    #[inline]
    fn try_send(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: T,
    ) -> Result<(), Refused<T>> {
        // What waits from an earlier use goes first.
        if self.waiting.is_some() && self.poll_waiting(cx).is_pending() {
            return Err(Refused::Full(message));
        }
        self.sender.try_send(message).map_err(|error| match error {
            TrySendError::Full(message) => Refused::Full(message),
            TrySendError::Closed(message) => Refused::Closed(message),
        })
    }

    #[inline]
    fn poll_send(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        hand: &mut Option<T>,
    ) -> Poll<Result<(), Error>> {
        loop {
            if self.waiting.is_some() {
                if let Err(message) = ready!(self.poll_waiting(cx)) {
                    if hand.is_none() {
                        *hand = Some(message);
                    } else {
                        self.waiting = Some(Box::pin(std::future::ready(Err(message))));
                    }
                    return Poll::Ready(Err(closed()));
                }
            }
            let Some(message) = hand.take() else { return Poll::Ready(Ok(())) };
            match self.sender.try_send(message) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(TrySendError::Closed(message)) => {
                    *hand = Some(message);
                    return Poll::Ready(Err(closed()));
                }
                Err(TrySendError::Full(message)) => {
                    let sender = self.sender.clone();
                    self.waiting = Some(Box::pin(async move {
                        sender.send(message).await.map_err(SendError::into_inner)
                    }));
                }
            }
        }
    }

    fn take_back(mut self: Pin<&mut Self>) -> Option<Undelivered<T>> {
        if self.sender.is_closed() {
            let polled = self.poll_waiting(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(result) = polled {
                return result.err().map(Undelivered::message);
            }
        }
        self.waiting.take().map(Undelivered::waiting)
    }

    fn gives_back(&self) -> bool {
        true
    }

    fn makes_room(&self) -> bool {
        true
    }

    fn force_send(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        message: T,
    ) -> Result<Option<T>, Refused<T>> {
        self.sender.force_send(message).map_err(|SendError(message)| Refused::Closed(message))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.sender.close();
        Poll::Ready(Ok(()))
    }

    fn poll_closed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.sender.is_closed() {
            return Poll::Ready(());
        }
        let closed = this.closed.get_or_insert_with(|| {
            let sender = this.sender.clone();
            Box::pin(async move { sender.closed().await })
        });
        panics::poll_contained(cx, &mut this.waker, |cx| closed.as_mut().poll(cx))
    }
}

impl<T: Send + 'static> IntoDestination for Sender<T> {
    type Destination = SenderDestination<T>;

    fn into_destination(self) -> SenderDestination<T> {
        SenderDestination::new(self)
    }
}

impl<T> fmt::Debug for SenderDestination<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderDestination")
            .field("waiting", &self.waiting.is_some())
            .finish_non_exhaustive()
    }
}
