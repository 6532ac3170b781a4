//! A message that was taken and not delivered.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A send that waits for room, and gives the message back when its channel is closed.
pub(super) type WaitingSend<M> = Pin<Box<dyn Future<Output = Result<(), M>> + Send>>;

/// A message that had been taken from its source and was not delivered when the operation ended: what
/// the callbacks of [`MergeInto::undelivered`](crate::channels::MergeInto::undelivered) and
/// [`Broadcast::undelivered`](crate::channels::Broadcast::undelivered) get. One of a broadcast may have
/// reached some destinations and not others, and says which.
///
/// It is the message itself, with one exception: a message that waits in front of a channel that
/// is full and stays open cannot be had back. There it is the delivery, which goes on when it is
/// awaited. [`into_message`](Undelivered::into_message) tells the two apart, and awaiting works
/// for both: it ends with `Ok` when the message was delivered late, and with the message when it
/// was not.
///
/// # Cancel safety
///
/// Dropping it drops the message.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{FutureExt, stream};
/// use std::future::IntoFuture;
/// use watershed::StepContext;
/// use watershed::channels::merge_into;
///
/// let (sender, _receiver) = async_channel::bounded(1);
/// let mut left = None;
/// let sources = [stream::iter([1, 2])];
/// let merge = merge_into(&StepContext::new("merge"), sources, sender)
///     .undelivered(|message| left = message.into_message().ok());
/// // Dropped when it waits in front of the full channel.
/// assert!(merge.into_future().now_or_never().is_none());
/// assert_eq!(left, Some(2));
/// # });
/// ```
#[must_use = "a message that is dropped here is lost"]
pub struct Undelivered<M> {
    state: SendState<M>,
    /// Who has the message and who does not, where there were several.
    who: Option<Box<(Vec<usize>, Vec<usize>)>>,
}

enum SendState<M> {
    Message(Option<M>),
    Waiting(WaitingSend<M>),
}

impl<M> Undelivered<M> {
    /// A message that is at hand.
    ///
    /// ```
    /// let left = watershed::channels::Undelivered::message(7);
    /// assert_eq!(left.into_message().ok(), Some(7));
    /// ```
    pub fn message(message: M) -> Self {
        Self { state: SendState::Message(Some(message)), who: None }
    }

    pub(super) fn waiting(waiting: WaitingSend<M>) -> Self {
        Self { state: SendState::Waiting(waiting), who: None }
    }

    /// The same message, which these destinations have, and those do not.
    pub(in super::super) fn of(mut self, delivered_to: Vec<usize>, missed_by: Vec<usize>) -> Self {
        self.who = Some(Box::new((delivered_to, missed_by)));
        self
    }

    /// The positions of the destinations that have it, in order: some of a broadcast, none of a
    /// merge.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::future::IntoFuture;
    /// use futures::{FutureExt, stream};
    /// use watershed::StepContext;
    /// use watershed::channels::broadcast;
    ///
    /// let (wide, _wide) = async_channel::bounded(8);
    /// let (narrow, _narrow) = async_channel::bounded(1);
    /// let mut left = None;
    /// let broadcast = broadcast(&StepContext::new("news"), stream::iter([1, 2]), [wide, narrow])
    ///     .undelivered(|item| left = Some(item));
    /// // Dropped while the second item waits in front of the narrow channel.
    /// assert!(broadcast.into_future().now_or_never().is_none());
    /// let left = left.unwrap();
    /// assert_eq!((left.delivered_to(), left.missed_by()), (&[0][..], &[1][..]));
    /// assert_eq!(left.into_message().ok(), Some(2));
    /// # });
    /// ```
    #[must_use]
    pub fn delivered_to(&self) -> &[usize] {
        self.who.as_ref().map_or(&[], |who| &who.0)
    }

    /// The positions of the destinations of a broadcast that do not have it, in order.
    #[must_use]
    pub fn missed_by(&self) -> &[usize] {
        self.who.as_ref().map_or(&[], |who| &who.1)
    }

    /// The message, if it is at hand.
    ///
    /// # Errors
    ///
    /// The same value, when the message waits in front of a channel that is full and open.
    ///
    /// ```
    /// use watershed::channels::Undelivered;
    /// assert!(Undelivered::message("late").into_message().is_ok());
    /// ```
    pub fn into_message(self) -> Result<M, Self> {
        match self.state {
            SendState::Message(Some(message)) => Ok(message),
            state => Err(Self { state, who: self.who }),
        }
    }
}

/// Nothing is pinned but a box.
impl<M> Unpin for Undelivered<M> {}

impl<M> Future for Undelivered<M> {
    type Output = Result<(), M>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M>> {
        match &mut self.state {
            SendState::Message(message) => {
                message.take().map_or(Poll::Pending, |message| Poll::Ready(Err(message)))
            }
            SendState::Waiting(waiting) => waiting.as_mut().poll(cx),
        }
    }
}

impl<M> fmt::Debug for Undelivered<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = matches!(self.state, SendState::Waiting(_));
        f.debug_struct("Undelivered").field("waiting", &waiting).finish_non_exhaustive()
    }
}
