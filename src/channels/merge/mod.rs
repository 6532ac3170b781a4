//! Many sources, one destination.
//!
//! A merge asks its destination for room, takes one message from the source whose turn it is, and
//! sends it. Sources are polled directly, each with a waker of its own, so that an idle source
//! costs nothing and a ready one little more than taking its message.
//!
//! - `ready`: which sources are to be polled; `sources`: the sources themselves
//! - `intake`: which one the next message is taken from: turns of a quantum, by default
//! - `running`: from the sources to the destination; `future`: what is awaited; `stream`: the same
//!   without a destination
//! - `report`: what comes out

mod future;
mod intake;
#[cfg(all(test, watershed_loom))]
mod proof;
mod ready;
mod report;
mod running;
mod sources;
mod stream;

pub use future::MergeFuture;
pub use intake::FairTurns;
pub(super) use intake::{Intake, Order, POLLS_AT_ONCE, Taken};
pub(super) use ready::ReadyQueue;
pub use report::{MergeReport, MergedSource};
pub(super) use sources::Sources;
pub use stream::{Merged, merged};

use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use super::destination::{Destination, IntoDestination, Settings, Undelivered};
use crate::cancellation::CancellationToken;
use crate::error::Error;
use crate::source::{Source, Unsettled};
use crate::step::StepContext;

/// Moves every message of every source to one destination, and then closes it.
///
/// A message is taken from its source when the destination has room for it, as far as that can
/// tell; see [`SenderDestination`](crate::channels::SenderDestination) for channels, which cannot.
/// Within one source messages keep their order; ready sources have their turns one after another,
/// a turn being at most a [`quantum`](Merge::quantum) of messages, so that between two turns of
/// one source every other ready source has one.
///
/// The merge ends when all sources have ended, or with the first source fault, the failure of the
/// destination, its timeout or its cancellation. However it ends, it closes the destination behind
/// the last message, unless told to [keep it open](Merge::keep_open). At the end at most one
/// message has been taken and not been delivered: it is tried once more without waiting, and then
/// goes to the [callback](Merge::undelivered).
///
/// # Errors
///
/// All with the number of messages `delivered` as metadata, and `undelivered` where there was one:
///
/// - [`ErrorCode::Validation`](crate::ErrorCode::Validation), before a message is taken: an option
///   is wrong, or an option of a source has no effect here
/// - [`ErrorCode::Source`](crate::ErrorCode::Source) or the source's own [`Error`], with the name
///   of the source; [`ErrorCode::Panic`](crate::ErrorCode::Panic)
/// - [`ErrorCode::ChannelCompleted`](crate::ErrorCode::ChannelCompleted) when nobody receives from
///   the destination any more, or the destination's own error
/// - [`ErrorCode::Timeout`](crate::ErrorCode::Timeout) with its `duration` as metadata
/// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled)
///
/// # Cancel safety
///
/// Dropping the future after its first poll ends the merge as cancelling it does, except that it
/// does not wait for the destination to flush: every message is in its source, with the
/// destination, or with the callback.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{StreamExt, stream};
/// use watershed::StepContext;
/// use watershed::channels::merge;
///
/// let (sender, receiver) = async_channel::bounded(16);
/// let sources = [stream::iter([1, 2]), stream::iter([3, 4])];
/// let report = merge(&StepContext::new("merge"), sources, sender).await?;
/// assert_eq!(report.delivered(), 4);
/// assert_eq!(receiver.collect::<Vec<_>>().await, [1, 2, 3, 4]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn merge<I, D>(
    context: &StepContext,
    sources: I,
    destination: D,
) -> Merge<I::Item, D::Destination>
where
    I: IntoIterator<Item: Source<Receipt = Unsettled>>,
    D: IntoDestination<Destination: Destination<Message = <I::Item as Source>::Message>>,
{
    Merge::new(context, sources, destination, FairTurns::default())
}

/// A merge that has not started, made by [`merge`] or
/// [`merge_with_strategy`](crate::channels::merge_with_strategy). Awaiting it starts it.
///
/// | option | default |
/// | --- | --- |
/// | [`quantum`](Merge::quantum), without a strategy | 64 messages |
/// | [`timeout`](Merge::timeout) | never |
/// | [`cancellation`](Merge::cancellation) | that of the context alone |
/// | [`keep_open`](Merge::keep_open) | the destination is closed |
/// | [`grace`](Merge::grace) | 5 seconds |
/// | [`undelivered`](Merge::undelivered) | nobody is told |
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use futures::stream;
/// use watershed::StepContext;
/// use watershed::channels::merge;
///
/// let (sender, receiver) = async_channel::bounded(16);
/// merge(&StepContext::new("merge"), [stream::iter(0..9)], sender.clone())
///     .timeout(Duration::from_secs(60))
///     .keep_open()
///     .await?;
/// assert!(!sender.is_closed());
/// assert_eq!(receiver.len(), 9);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a merge does nothing unless it is awaited"]
pub struct Merge<S, D, P = FairTurns, U = fn(Undelivered<<S as Source>::Message>)> {
    context: StepContext,
    sources: Vec<S>,
    destination: D,
    order: P,
    undelivered: Option<U>,
    settings: Settings,
}

impl<S: Source<Receipt = Unsettled>, D: Destination, P> Merge<S, D, P> {
    pub(super) fn new<I, T>(context: &StepContext, sources: I, destination: T, order: P) -> Self
    where
        I: IntoIterator<Item = S>,
        T: IntoDestination<Destination = D>,
    {
        Self {
            context: context.clone(),
            sources: sources.into_iter().collect(),
            destination: destination.into_destination(),
            order,
            undelivered: None,
            settings: Settings::default(),
        }
    }
}

impl<S, D, U> Merge<S, D, FairTurns, U> {
    /// How many messages of one source may be moved before every other ready source has its turn.
    /// Default: 64; 0 is
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation). Token and timeout are looked at once a
    /// turn.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{StreamExt, stream};
    /// use watershed::StepContext;
    /// use watershed::channels::merge;
    /// let (sender, receiver) = async_channel::bounded(16);
    /// let sources = [stream::iter([1, 2]), stream::iter([3, 4])];
    /// merge(&StepContext::new("merge"), sources, sender).quantum(1).await?;
    /// assert_eq!(receiver.collect::<Vec<_>>().await, [1, 3, 2, 4]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn quantum(mut self, messages: usize) -> Self {
        self.order.quantum = messages;
        self
    }
}

impl<S: Source<Receipt = Unsettled>, D, P, U> Merge<S, D, P, U> {
    /// One absolute deadline for the whole merge, counted from its first poll by the context's
    /// clock. Zero times out before a message is taken; [`Duration::MAX`] never does.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use std::time::Duration;
    /// use watershed::StepContext;
    /// use watershed::channels::merge;
    /// let (sender, _receiver) = async_channel::bounded(16);
    /// let error = merge(&StepContext::new("merge"), [stream::repeat(7)], sender)
    ///     .timeout(Duration::ZERO)
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.code(), watershed::ErrorCode::Timeout);
    /// # });
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// A token that ends the merge, beside that of the context.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::StepContext;
    /// use watershed::channels::merge;
    /// let stop = watershed::CancellationSource::new();
    /// stop.cancel();
    /// let (sender, _receiver) = async_channel::bounded(16);
    /// let error = merge(&StepContext::new("merge"), [stream::repeat(7)], sender)
    ///     .cancellation(stop.token())
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.code(), watershed::ErrorCode::Canceled);
    /// # });
    /// ```
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.settings.cancellation = token;
        self
    }

    /// Leaves the destination open at the end, only flushed. Default: it is closed, whether the
    /// merge succeeded, failed, or was dropped midway.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::StepContext;
    /// use watershed::channels::merge;
    /// let (sender, _receiver) = async_channel::bounded(16);
    /// merge(&StepContext::new("merge"), [stream::iter([7])], sender.clone()).keep_open().await?;
    /// assert!(!sender.is_closed());
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn keep_open(mut self) -> Self {
        self.settings.keep_open = true;
        self
    }

    /// How long a merge that has failed waits for its destination to flush and close. Default: 5
    /// seconds, by the context's clock. A channel closes at once.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use std::time::Duration;
    /// use watershed::StepContext;
    /// use watershed::channels::{into_sink, merge};
    /// let (sender, _receiver) = futures::channel::mpsc::channel(16);
    /// merge(&StepContext::new("merge"), [stream::iter([7])], into_sink(sender))
    ///     .grace(Duration::from_secs(1))
    ///     .await?;
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// Who gets the message that was taken and could not be delivered when the merge ended; it is
    /// called at most once, also when the future is dropped. Default: nobody; the error says
    /// that there was one. A panic of the callback is attached to the error.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::StepContext;
    /// use watershed::channels::merge;
    /// let stop = watershed::CancellationSource::new();
    /// let context = StepContext::new("merge").with_cancellation(stop.token());
    /// let (sender, receiver) = async_channel::bounded(1);
    /// let mut left = None;
    /// let merge = merge(&context, [stream::iter([1, 2, 3])], sender)
    ///     .undelivered(|message| left = message.into_message().ok());
    /// let (result, ()) = futures::join!(merge.into_future(), async { stop.cancel() });
    /// assert_eq!(result.unwrap_err().metadata("undelivered"), Some("1"));
    /// assert_eq!((receiver.recv().await, left), (Ok(1), Some(2)));
    /// # });
    /// ```
    pub fn undelivered<C>(self, callback: C) -> Merge<S, D, P, C>
    where
        C: FnMut(Undelivered<S::Message>),
    {
        let Self { context, sources, destination, order, settings, .. } = self;
        Merge { context, sources, destination, order, undelivered: Some(callback), settings }
    }
}

impl<S, D, P, U> IntoFuture for Merge<S, D, P, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination<Message = S::Message>,
    P: Order<S>,
    U: FnMut(Undelivered<S::Message>),
{
    type Output = Result<MergeReport, Error>;
    type IntoFuture = MergeFuture<S, D, P, U>;

    fn into_future(self) -> Self::IntoFuture {
        MergeFuture::new(self)
    }
}

impl<S, D, P: fmt::Debug, U> fmt::Debug for Merge<S, D, P, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merge")
            .field("context", &self.context)
            .field("sources", &self.sources.len())
            .field("order", &self.order)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
