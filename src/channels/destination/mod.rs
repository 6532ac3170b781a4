//! Where messages go: a channel, a sink, or anything else that can be asked for room.
//!
//! A destination is asked for room before a message is taken from its source, and takes the message
//! in a second step. A message that it could neither take nor keep comes back, so that an operation
//! that ends in between loses nothing.

mod ending;
mod route;
mod sender;
mod sink;
mod undelivered;

pub(super) use ending::{Ending, Settings};
pub use route::Route;
pub use sender::SenderDestination;
pub use sink::SinkDestination;
pub use undelivered::Undelivered;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::{Error, ErrorCode};

/// What [`merge_into`](crate::channels::merge_into) and [`broadcast`](crate::channels::broadcast) write to.
///
/// An [`async_channel::Sender`] is turned into one as it is, see [`IntoDestination`]; any
/// [`futures::Sink`] by [`SinkDestination`]; `&mut D` is one where `D` is.
///
/// An error ends the destination: it is not asked again. One with
/// [`ErrorCode::ChannelCompleted`] says that nobody receives any more.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::pin::Pin;
/// use std::task::{Context, Poll};
/// use futures::stream;
/// use watershed::channels::{Destination, Refused, merge_into};
/// use watershed::{Error, StepContext};
///
/// /// Adds up what it gets; there is always room.
/// struct Sum(u32);
///
/// impl Destination for Sum {
///     type Message = u32;
///     fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
///         Poll::Ready(Ok(()))
///     }
///     fn try_send(
///         mut self: Pin<&mut Self>,
///         _: &mut Context<'_>,
///         message: u32,
///     ) -> Result<(), Refused<u32>> {
///         self.0 += message;
///         Ok(())
///     }
///     fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
///         Poll::Ready(Ok(()))
///     }
///     fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
///         Poll::Ready(Ok(()))
///     }
/// }
///
/// let mut sum = Sum(0);
/// merge_into(&StepContext::new("sum"), [stream::iter(1..=3), stream::iter(4..=4)], &mut sum).await?;
/// assert_eq!(sum.0, 10);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no destination",
    label = "this is no destination",
    note = "an `async_channel::Sender` is one as it is, a `futures::Sink` by `channels::into_sink`; \
            a sender of tokio becomes a sink by `tokio_util::sync::PollSender::new`"
)]
pub trait Destination {
    /// What it takes.
    type Message;

    /// Ready when a message may be taken from its source. A destination that can only tell by
    /// trying, such as a channel, is ready until it is closed.
    ///
    /// # Errors
    ///
    /// When the destination is closed or has failed.
    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;

    /// Delivers a message at once, or gives it back. The waker of `cx` is woken when a destination
    /// that was full and can tell has room again.
    ///
    /// # Errors
    ///
    /// When there is no room, or the destination is closed or has failed.
    fn try_send(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: Self::Message,
    ) -> Result<(), Refused<Self::Message>>;

    /// Delivers the message in `hand`, and is ready when it has been taken. While it is pending
    /// the message is in the hand, or with the destination, which waits for room with it: it is
    /// called again with the same hand, until it is ready or the message is
    /// [taken back](Destination::take_back).
    ///
    /// By default it waits until it [is ready](Destination::poll_ready) and
    /// [tries](Destination::try_send).
    ///
    /// # Errors
    ///
    /// When the destination is closed or has failed. The message is in the hand if it is still
    /// there.
    fn poll_send(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        hand: &mut Option<Self::Message>,
    ) -> Poll<Result<(), Error>> {
        if self.as_mut().poll_ready(cx)?.is_pending() {
            return Poll::Pending;
        }
        let Some(message) = hand.take() else { return Poll::Ready(Ok(())) };
        match self.try_send(cx, message) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Refused::Full(message)) => {
                *hand = Some(message);
                Poll::Pending
            }
            Err(refused) => Poll::Ready(Err(refused.into_error(hand))),
        }
    }

    /// The message that the destination waits for room with, see
    /// [`poll_send`](Destination::poll_send); it waits no longer. By default there is none.
    #[must_use = "the message is lost otherwise"]
    fn take_back(self: Pin<&mut Self>) -> Option<Undelivered<Self::Message>> {
        None
    }

    /// Whether [`force_send`](Destination::force_send) makes room. By default it does not.
    fn makes_room(&self) -> bool {
        false
    }

    /// Whether what it does not take always comes back.
    #[doc(hidden)]
    fn gives_back(&self) -> bool {
        false
    }

    /// Delivers a message at once, in place of the oldest undelivered one where there is no room;
    /// that one is given out. By default it only [tries](Destination::try_send).
    ///
    /// # Errors
    ///
    /// When the destination is closed or has failed.
    fn force_send(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: Self::Message,
    ) -> Result<Option<Self::Message>, Refused<Self::Message>> {
        self.try_send(cx, message).map(|()| None)
    }

    /// Ready when everything delivered has left the destination's own buffers.
    ///
    /// # Errors
    ///
    /// When the destination has failed.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;

    /// Flushes and closes: whoever receives sees the end behind the last message. It may be called
    /// again after it was ready.
    ///
    /// # Errors
    ///
    /// When the destination has failed.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;

    /// Ready when nobody receives any more, so that an operation without messages hears of it as
    /// well. By default it is pending, and that is noticed when something is sent.
    fn poll_closed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Pending
    }
}

/// What can be given as a destination: every [`Destination`], and the sender of a channel.
///
/// ```
/// use watershed::channels::{IntoDestination, SenderDestination};
///
/// let (sender, _receiver) = async_channel::bounded::<u32>(4);
/// let destination: SenderDestination<u32> = sender.into_destination();
/// # let _ = destination;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no destination",
    label = "this is no destination",
    note = "an `async_channel::Sender` is one as it is, a `futures::Sink` by `channels::into_sink`; \
            a sender of tokio becomes a sink by `tokio_util::sync::PollSender::new`"
)]
pub trait IntoDestination {
    /// The destination it becomes.
    type Destination: Destination;

    /// The destination.
    fn into_destination(self) -> Self::Destination;
}

#[diagnostic::do_not_recommend]
impl<D: Destination> IntoDestination for D {
    type Destination = D;

    fn into_destination(self) -> D {
        self
    }
}

impl<D: Destination + Unpin + ?Sized> Destination for &mut D {
    type Message = D::Message;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut **self).poll_ready(cx)
    }

    fn try_send(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: D::Message,
    ) -> Result<(), Refused<D::Message>> {
        Pin::new(&mut **self).try_send(cx, message)
    }

    fn poll_send(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        hand: &mut Option<D::Message>,
    ) -> Poll<Result<(), Error>> {
        Pin::new(&mut **self).poll_send(cx, hand)
    }

    fn take_back(mut self: Pin<&mut Self>) -> Option<Undelivered<D::Message>> {
        Pin::new(&mut **self).take_back()
    }

    fn gives_back(&self) -> bool {
        (**self).gives_back()
    }

    fn makes_room(&self) -> bool {
        (**self).makes_room()
    }

    fn force_send(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: D::Message,
    ) -> Result<Option<D::Message>, Refused<D::Message>> {
        Pin::new(&mut **self).force_send(cx, message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut **self).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut **self).poll_close(cx)
    }

    fn poll_closed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut **self).poll_closed(cx)
    }
}

/// Why a destination did not take a message, and the message where it still exists.
///
/// ```
/// use watershed::channels::Refused;
///
/// assert_eq!(Refused::Full(7).into_message(), Some(7));
/// ```
pub enum Refused<M> {
    /// There is no room.
    Full(M),
    /// Nobody receives any more.
    Closed(M),
    /// The destination failed, perhaps with the message.
    Failed(Error, Option<M>),
}

impl<M> Refused<M> {
    /// The message, unless it is gone.
    ///
    /// ```
    /// use watershed::channels::Refused;
    /// assert_eq!(Refused::Closed("late").into_message(), Some("late"));
    /// ```
    #[must_use]
    pub fn into_message(self) -> Option<M> {
        match self {
            Self::Full(message) | Self::Closed(message) => Some(message),
            Self::Failed(_, message) => message,
        }
    }

    /// The error, and the message into the hand.
    pub(super) fn into_error(self, hand: &mut Option<M>) -> Error {
        let error = match &self {
            Self::Full(_) => full(),
            Self::Closed(_) => closed(),
            Self::Failed(error, _) => error.clone(),
        };
        *hand = self.into_message();
        error
    }
}

impl<M> fmt::Debug for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("Full(..)"),
            Self::Closed(_) => f.write_str("Closed(..)"),
            Self::Failed(error, _) => f.debug_tuple("Failed").field(error).finish_non_exhaustive(),
        }
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorCode::ChannelCompleted, "the destination is closed")
}

pub(super) fn full() -> Error {
    Error::new(ErrorCode::ChannelFull, "the destination is full")
}
