//! One source, many destinations.
//!
//! - `settings`: what a destination that is full or closed does; `report`: what comes out
//! - `leg`: one destination and what it did with the item in hand; `delivery`: all of them with it
//! - `subscribers`: destinations that come and go meanwhile; `changes`: what that does
//! - `running`: from the source to all of them; `end`: how that ends
//! - `fan_out`: the same into channels of its own

mod changes;
mod delivery;
mod doorbell;
mod end;
mod fan_out;
mod leg;
mod report;
mod running;
mod settings;
mod subscribers;

pub use fan_out::fan_out;
pub use report::{BroadcastReport, DestinationReport};
pub use settings::{OnClosed, Overflow};
pub use subscribers::Subscribers;

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use self::running::RunningBroadcast;
use self::subscribers::Entrance;
use super::destination::{Destination, IntoDestination, Settings, Undelivered};
use crate::error::{Error, Failure};
use crate::operation::{Operation, OperationFuture, option};
use crate::panics::{Held, HeldEach};
use crate::source::{Source, Unsettled};
use crate::step::StepContext;

/// Hands every item of a source to every destination, and then closes them.
///
/// The destinations get each item in their order, and have it all before the next one is taken.
/// What happens where there is no room is said by [`overflow`](Broadcast::overflow); where nobody
/// receives any more, by [`on_closed`](Broadcast::on_closed). An item is taken when every
/// destination is ready for it, as far as they can tell, if it is waited for without a limit; one
/// that is not waited for, or only for an [`item_timeout`](Broadcast::item_timeout), is taken first.
///
/// The broadcast ends when the source has ended, or with the source's fault, a destination's
/// failure, its timeout or its cancellation. However it ends, it closes the destinations behind the
/// last item, unless told to [keep them open](Broadcast::keep_open). At most one item has then been
/// delivered to some destinations and not to others: those that it waits for room at are tried once
/// more, the report says who has it, and the [callback](Broadcast::undelivered) gets it.
///
/// # Errors
///
/// With the report of what was done all the same. The metadata of the error of a destination has its
/// position as `destination`; the report [marks](DestinationReport::is_failed) it as well.
///
/// - [`ErrorCode::Validation`](crate::ErrorCode::Validation), before an item is taken: there is no
///   destination and none [can come](Broadcast::subscribers), one cannot do what [`overflow`](Broadcast::overflow) says, or an option of the
///   source is wrong or has no effect here
/// - [`ErrorCode::Source`](crate::ErrorCode::Source) or the source's own [`Error`];
///   [`ErrorCode::Panic`](crate::ErrorCode::Panic)
/// - [`ErrorCode::ChannelCompleted`](crate::ErrorCode::ChannelCompleted) when a destination was
///   closed, or no destination is left and none can come; or the destination's own error; the code `error.channel.full` where it had no room
/// - [`ErrorCode::Timeout`](crate::ErrorCode::Timeout) with its `duration` as metadata
/// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled)
///
/// # Cancel safety
///
/// Dropping the future after its first poll ends the broadcast as cancelling it does, except that
/// it does not wait for the destinations to flush: every item is in the source, with all
/// destinations, or with the callback, which is told who has it.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{StreamExt, stream};
/// use watershed::StepContext;
/// use watershed::channels::broadcast;
///
/// let (left, from_left) = async_channel::bounded(4);
/// let (right, from_right) = async_channel::bounded(4);
/// broadcast(&StepContext::new("news"), stream::iter([1, 2, 3]), [left, right]).await?;
/// assert_eq!(from_left.collect::<Vec<_>>().await, [1, 2, 3]);
/// assert_eq!(from_right.collect::<Vec<_>>().await, [1, 2, 3]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn broadcast<S, I>(
    context: &StepContext,
    source: S,
    destinations: I,
) -> Broadcast<S, <I::Item as IntoDestination>::Destination>
where
    S: Source<Receipt = Unsettled, Message: Clone>,
    I: IntoIterator<Item: IntoDestination<Destination: Destination<Message = S::Message>>>,
{
    let destinations = destinations.into_iter().map(IntoDestination::into_destination);
    Broadcast {
        context: context.clone(),
        source: Held::new(source),
        destinations: destinations.collect(),
        options: BroadcastOptions::default(),
        undelivered: None,
        door: None,
    }
}

/// A broadcast that has not started, made by [`broadcast`] or [`fan_out`]. Awaiting it starts it.
///
/// | option | default |
/// | --- | --- |
/// | [`overflow`](Broadcast::overflow) | [`Overflow::Wait`] |
/// | [`on_closed`](Broadcast::on_closed) | [`OnClosed::Fail`] |
/// | [`item_timeout`](Broadcast::item_timeout), [`timeout`](Broadcast::timeout) | never |
/// | [`cancellation`](Broadcast::cancellation) | that of the context alone |
/// | [`keep_open`](Broadcast::keep_open) | the destinations are closed |
/// | [`grace`](Broadcast::grace) | 5 seconds |
/// | [`undelivered`](Broadcast::undelivered) | nobody is told |
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use futures::stream;
/// use watershed::StepContext;
/// use watershed::channels::{OnClosed, Overflow, broadcast};
///
/// let (open, receiver) = async_channel::bounded(2);
/// let (closed, _) = async_channel::bounded(2);
/// let report = broadcast(&StepContext::new("news"), stream::iter([1, 2, 3]), [open, closed])
///     .overflow(Overflow::DropOldest)
///     .on_closed(OnClosed::Detach)
///     .timeout(Duration::from_secs(60))
///     .await?;
/// assert!(report.destinations()[1].is_detached());
/// assert_eq!((receiver.recv().await, receiver.recv().await), (Ok(2), Ok(3)));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a broadcast does nothing unless it is awaited"]
pub struct Broadcast<S, D, U = fn(Undelivered<<S as Source>::Message>)> {
    context: StepContext,
    source: Held<S>,
    destinations: HeldEach<D>,
    options: BroadcastOptions,
    undelivered: Option<Held<U>>,
    /// Where destinations come and go, once somebody has asked for it.
    door: Option<Entrance<D>>,
}

#[derive(Clone, Debug, Default)]
struct BroadcastOptions {
    settings: Settings,
    overflow: Overflow,
    on_closed: OnClosed,
    item_timeout: Option<Duration>,
    /// Why the broadcast cannot begin.
    invalid: Option<Error>,
}

impl<S: Source<Receipt = Unsettled>, D, U> Broadcast<S, D, U> {
    /// What is done with an item for a destination that has no room. Default: [`Overflow::Wait`].
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::StepContext;
    /// use watershed::channels::{Overflow, broadcast};
    /// let (sender, _receiver) = async_channel::bounded(1);
    /// let failure = broadcast(&StepContext::new("news"), stream::iter([1, 2]), [sender])
    ///     .overflow(Overflow::Fail)
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(failure.error().code().as_str(), "error.channel.full");
    /// assert_eq!((failure.report().items(), failure.report().missed_by()), (2, &[0][..]));
    /// # });
    /// ```
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.options.overflow = overflow;
        self
    }

    /// What a destination that is closed does. Default: [`OnClosed::Fail`].
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::StepContext;
    /// use watershed::channels::{OnClosed, broadcast};
    /// let (open, _receiver) = async_channel::bounded(4);
    /// let (closed, _) = async_channel::bounded(4);
    /// let report = broadcast(&StepContext::new("news"), stream::iter([1, 2]), [open, closed])
    ///     .on_closed(OnClosed::Detach)
    ///     .await?;
    /// assert_eq!(report.destinations()[0].delivered(), 2);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn on_closed(mut self, on_closed: OnClosed) -> Self {
        self.options.on_closed = on_closed;
        self
    }

    /// A deadline for each item, counted from when it is taken by the context's clock. An item
    /// that is not with every destination by then ends the broadcast. Default: never.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use std::time::Duration;
    /// use watershed::StepContext;
    /// use watershed::channels::broadcast;
    /// let (sender, _receiver) = async_channel::bounded(1);
    /// let failure = broadcast(&StepContext::new("news"), stream::iter([1, 2]), [sender])
    ///     .item_timeout(Duration::from_millis(1))
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(failure.error().code(), watershed::ErrorCode::Timeout);
    /// assert_eq!(failure.report().missed_by(), [0]);
    /// # });
    /// ```
    pub fn item_timeout(mut self, timeout: Duration) -> Self {
        self.options.item_timeout = Some(timeout);
        self
    }

    option!(timeout: options.settings.timeout);

    option!(cancellation: options.settings.cancellation);

    /// Leaves the destinations open at the end, only flushed. Default: they are closed, whether
    /// the broadcast succeeded, failed, or was dropped midway.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::StepContext;
    /// use watershed::channels::broadcast;
    /// let (sender, _receiver) = async_channel::bounded(1);
    /// broadcast(&StepContext::new("news"), stream::iter([7]), [sender.clone()]).keep_open().await?;
    /// assert!(!sender.is_closed());
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn keep_open(mut self) -> Self {
        self.options.settings.keep_open = true;
        self
    }

    option!(grace: options.settings.grace);

    /// Who gets the item that had not reached every destination when the broadcast ended; it is
    /// called at most once, also when the future is dropped. An item that was dropped as
    /// [`overflow`](Broadcast::overflow) says counts as settled. Default: nobody; the report says
    /// who missed it. A panic of the callback is attached to the error.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::StepContext;
    /// use watershed::channels::{Overflow, broadcast};
    /// let (sender, _receiver) = async_channel::bounded(1);
    /// let mut missed = None;
    /// broadcast(&StepContext::new("news"), stream::iter(["old", "new"]), [sender])
    ///     .overflow(Overflow::Fail)
    ///     .undelivered(|item| missed = item.into_message().ok())
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(missed, Some("new"));
    /// # });
    /// ```
    pub fn undelivered<C: FnMut(Undelivered<S::Message>)>(self, callback: C) -> Broadcast<S, D, C> {
        let Self { context, source, destinations, options, door, .. } = self;
        Broadcast {
            context,
            source,
            destinations,
            options,
            undelivered: Some(Held::new(callback)),
            door,
        }
    }

    /// A handle by which destinations are added and removed while the broadcast runs; without it there
    /// are those that it was given, and at least one. See [`Subscribers`].
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::StepContext;
    /// use watershed::channels::{SenderDestination, broadcast};
    ///
    /// let none = None::<SenderDestination<u32>>;
    /// let mut news = broadcast(&StepContext::new("news"), stream::iter([1, 2]), none);
    /// let subscribers = news.subscribers();
    /// let (sender, receiver) = async_channel::bounded(2);
    /// assert_eq!(subscribers.add(sender).unwrap(), 0);
    /// assert_eq!(news.await?.destinations()[0].delivered(), 2);
    /// assert_eq!(receiver.len(), 2);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn subscribers(&mut self) -> Subscribers<D> {
        let destinations = self.destinations.len();
        Subscribers::new(self.door.get_or_insert_with(|| Entrance::new(destinations)))
    }
}

impl<S, D, U> IntoFuture for Broadcast<S, D, U>
where
    S: Source<Receipt = Unsettled, Message: Clone>,
    D: Destination<Message = S::Message>,
    U: FnMut(Undelivered<S::Message>),
{
    type Output = Result<BroadcastReport, Failure<BroadcastReport>>;
    type IntoFuture = OperationFuture<Self, RunningBroadcast<S, D, U>>;

    fn into_future(self) -> Self::IntoFuture {
        OperationFuture::new(self)
    }
}

impl<S, D, U> Operation for Broadcast<S, D, U>
where
    S: Source<Receipt = Unsettled, Message: Clone>,
    D: Destination<Message = S::Message>,
    U: FnMut(Undelivered<S::Message>),
{
    type Output = Result<BroadcastReport, Failure<BroadcastReport>>;
    type Running = RunningBroadcast<S, D, U>;
    const COUNTED: bool = true;

    fn start(self) -> Self::Running {
        RunningBroadcast::start(self)
    }

    fn poll(running: Pin<&mut Self::Running>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let running = running.get_mut();
        ready!(running.poll(cx));
        Poll::Ready(running.finish())
    }
}

impl<S, D, U> fmt::Debug for Broadcast<S, D, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast")
            .field("context", &self.context)
            .field("destinations", &self.destinations.len())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
