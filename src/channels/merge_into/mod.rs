//! Many sources, one destination.
//!
//! A merge asks its destination for room, takes one message from the source whose turn it is, and
//! sends it. Which source that is, [`merge`](super::merge) says.
//!
//! - `running`: from the sources to the destination
//! - `report`: what comes out

mod report;
mod running;

pub use report::{MergeReport, MergedSource};

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use self::running::RunningMerge;
use super::destination::{Destination, IntoDestination, Settings, Undelivered};
use super::merge::{Choice, NoStrategy, SourceState};
use crate::error::Error;
use crate::operation::{Operation, OperationFuture, option};
use crate::panics::{Held, HeldEach};
use crate::source::{Source, Unsettled};
use crate::step::StepContext;

/// Moves every message of every source to one destination, and then closes it.
///
/// A message is taken from its source when the destination has room for it, as far as that can
/// tell; see [`SenderDestination`](crate::channels::SenderDestination) for channels, which cannot.
/// Which source it is taken from, [`merge`](crate::channels::merge()) says: within one source
/// messages keep their order, and ready sources have turns by their weight and priority, unless
/// there is a [`strategy`](MergeInto::strategy).
///
/// The merge ends when all sources have ended, or with the first source fault, the failure of the
/// destination, its timeout or its cancellation. However it ends, it closes the destination behind
/// the last message, unless told to [keep it open](MergeInto::keep_open). At the end at most one
/// message has been taken and not been delivered: it is tried once more without waiting, and then
/// goes to the [callback](MergeInto::undelivered).
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
/// use watershed::channels::merge_into;
///
/// let (sender, receiver) = async_channel::bounded(16);
/// let sources = [stream::iter([1, 2]), stream::iter([3, 4])];
/// let report = merge_into(&StepContext::new("merge"), sources, sender).await?;
/// assert_eq!(report.delivered(), 4);
/// assert_eq!(receiver.collect::<Vec<_>>().await, [1, 2, 3, 4]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn merge_into<I, D>(
    context: &StepContext,
    sources: I,
    destination: D,
) -> MergeInto<I::Item, D::Destination>
where
    I: IntoIterator<Item: Source<Receipt = Unsettled>>,
    D: IntoDestination<Destination: Destination<Message = <I::Item as Source>::Message>>,
{
    MergeInto {
        context: context.clone(),
        sources: sources.into_iter().collect(),
        destination: destination.into_destination(),
        choice: Choice::default(),
        undelivered: None,
        settings: Settings::default(),
    }
}

/// A merge that has not started, made by [`merge_into`]. Awaiting it starts it.
///
/// | option | default |
/// | --- | --- |
/// | [`quantum`](MergeInto::quantum) | 64 messages |
/// | [`strategy`](MergeInto::strategy) | turns that go round |
/// | [`timeout`](MergeInto::timeout) | never |
/// | [`cancellation`](MergeInto::cancellation) | that of the context alone |
/// | [`keep_open`](MergeInto::keep_open) | the destination is closed |
/// | [`grace`](MergeInto::grace) | 5 seconds |
/// | [`undelivered`](MergeInto::undelivered) | nobody is told |
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use futures::stream;
/// use watershed::StepContext;
/// use watershed::channels::merge_into;
///
/// let (sender, receiver) = async_channel::bounded(16);
/// merge_into(&StepContext::new("merge"), [stream::iter(0..9)], sender.clone())
///     .timeout(Duration::from_secs(60))
///     .keep_open()
///     .await?;
/// assert!(!sender.is_closed());
/// assert_eq!(receiver.len(), 9);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a merge does nothing unless it is awaited"]
pub struct MergeInto<
    S,
    D,
    P = fn(&[SourceState]) -> Option<usize>,
    U = fn(Undelivered<<S as Source>::Message>),
> {
    context: StepContext,
    sources: HeldEach<S>,
    destination: D,
    choice: Choice<P>,
    undelivered: Option<Held<U>>,
    settings: Settings,
}

impl<S, D, U> MergeInto<S, D, NoStrategy, U>
where
    S: Source<Receipt = Unsettled>,
{
    /// Asks `strategy` before each message for the index of the source to take it from, as
    /// [`Merge::strategy`](crate::channels::Merge::strategy) does. Default: turns that go round.
    pub fn strategy<P>(self, strategy: P) -> MergeInto<S, D, P, U>
    where
        P: FnMut(&[SourceState]) -> Option<usize>,
    {
        let Self { context, sources, destination, choice, undelivered, settings } = self;
        let choice = Choice { quantum: choice.quantum, strategy: Some(Held::new(strategy)) };
        MergeInto { context, sources, destination, choice, undelivered, settings }
    }
}

impl<S: Source<Receipt = Unsettled>, D, P, U> MergeInto<S, D, P, U> {
    option!(quantum: choice.quantum);
    option!(timeout: settings.timeout);
    option!(cancellation: settings.cancellation);
    option!(grace: settings.grace);

    /// Leaves the destination open at the end, only flushed. Default: it is closed, whether the
    /// merge succeeded, failed, or was dropped midway.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::StepContext;
    /// use watershed::channels::merge_into;
    /// let (sender, _receiver) = async_channel::bounded(16);
    /// merge_into(&StepContext::new("merge"), [stream::iter([7])], sender.clone()).keep_open().await?;
    /// assert!(!sender.is_closed());
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn keep_open(mut self) -> Self {
        self.settings.keep_open = true;
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
    /// use watershed::channels::merge_into;
    /// let stop = watershed::CancellationSource::new();
    /// let context = StepContext::new("merge").with_cancellation(stop.token());
    /// let (sender, receiver) = async_channel::bounded(1);
    /// let mut left = None;
    /// let merge = merge_into(&context, [stream::iter([1, 2, 3])], sender)
    ///     .undelivered(|message| left = message.into_message().ok());
    /// let (result, ()) = futures::join!(merge.into_future(), async { stop.cancel() });
    /// assert_eq!(result.unwrap_err().metadata("undelivered"), Some("1"));
    /// assert_eq!((receiver.recv().await, left), (Ok(1), Some(2)));
    /// # });
    /// ```
    pub fn undelivered<C>(self, callback: C) -> MergeInto<S, D, P, C>
    where
        C: FnMut(Undelivered<S::Message>),
    {
        let Self { context, sources, destination, choice, settings, .. } = self;
        MergeInto {
            context,
            sources,
            destination,
            choice,
            undelivered: Some(Held::new(callback)),
            settings,
        }
    }
}

impl<S, D, P, U> IntoFuture for MergeInto<S, D, P, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination<Message = S::Message>,
    P: FnMut(&[SourceState]) -> Option<usize>,
    U: FnMut(Undelivered<S::Message>),
{
    type Output = Result<MergeReport, Error>;
    type IntoFuture = OperationFuture<Self, RunningMerge<S, D, P, U>>;

    fn into_future(self) -> Self::IntoFuture {
        OperationFuture::new(self)
    }
}

impl<S, D, P, U> Operation for MergeInto<S, D, P, U>
where
    S: Source<Receipt = Unsettled>,
    D: Destination<Message = S::Message>,
    P: FnMut(&[SourceState]) -> Option<usize>,
    U: FnMut(Undelivered<S::Message>),
{
    type Output = Result<MergeReport, Error>;
    type Running = RunningMerge<S, D, P, U>;
    const COUNTED: bool = true;

    fn start(self) -> Self::Running {
        RunningMerge::start(self)
    }

    fn poll(running: Pin<&mut Self::Running>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let running = running.get_mut();
        ready!(running.poll(cx));
        Poll::Ready(running.finish())
    }
}

impl<S, D, P, U> fmt::Debug for MergeInto<S, D, P, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merge")
            .field("context", &self.context)
            .field("sources", &self.sources.len())
            .field("choice", &self.choice)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
