//! Many sources as one stream.
//!
//! Sources are polled directly, each with a waker of its own, so that an idle source costs nothing
//! and a ready one little more than taking its message.
//!
//! - `ready`: which sources are to be polled; `sources`: the sources themselves
//! - `intake`: what takes the next message: `turns` that go round, or what a strategy `picks`

mod intake;
mod picks;
#[cfg(all(test, watershed_loom))]
mod proof;
mod ready;
mod sources;
mod turns;

pub(super) use intake::{Choice, Intake};
pub use picks::SourceState;
pub(super) use ready::ReadyQueue;
pub(super) use sources::POLLS_AT_ONCE;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::FusedStream;

use crate::cancellation::CancellationToken;
use crate::error::Error;
use crate::operation::{Limits, option};
use crate::panics::{self, Held, HeldEach};
use crate::source::{Source, Unsettled};
use crate::step::StepContext;

/// A strategy of nobody's: what a merge without one is of.
pub(super) type NoStrategy = fn(&[SourceState]) -> Option<usize>;

/// Many sources as one stream of their messages.
///
/// A message is taken from its source when the stream is polled for it, and not before. Within one
/// source messages keep their order. Ready sources have their turns one after another, so that
/// between two turns of one source every other ready source has one: a turn is at most a
/// [`quantum`](Merge::quantum) of messages, times the [weight](crate::Source::weighted) of the
/// source; while a source of a more urgent [priority](crate::Source::prioritized) is known to be
/// ready, it is one message. A [`strategy`](Merge::strategy) replaces all of this.
///
/// The stream ends when all sources have ended. A source's fault, a panic of a source, the timeout
/// and the cancellation are its last item, an error, and the sources are dropped. From its first
/// poll on it waits for the token of the context and for its own.
///
/// # Errors
///
/// As items, see above:
///
/// - [`ErrorCode::Validation`](crate::ErrorCode::Validation), before a message is taken: an option
///   is wrong, or an option of a source has no effect here
/// - [`ErrorCode::Source`](crate::ErrorCode::Source) or the source's own [`Error`], with the name
///   of the source; [`ErrorCode::Panic`](crate::ErrorCode::Panic)
/// - [`ErrorCode::Timeout`](crate::ErrorCode::Timeout) with its `duration` as metadata
/// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled)
///
/// # Cancel safety
///
/// Nothing is buffered: every message that the stream has not yielded is still in its source,
/// wherever the stream is dropped.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{TryStreamExt, stream};
/// use watershed::StepContext;
/// use watershed::channels::merge;
///
/// let merged = merge(&StepContext::new("merge"), [stream::iter([1, 2]), stream::iter([3, 4])]);
/// assert_eq!(merged.try_collect::<Vec<_>>().await?, [1, 2, 3, 4]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn merge<I>(context: &StepContext, sources: I) -> Merge<I::Item>
where
    I: IntoIterator<Item: Source<Receipt = Unsettled>>,
{
    Merge {
        context: context.clone(),
        choice: Choice::default(),
        timeout: None,
        cancellation: CancellationToken::never(),
        state: MergeState::Waiting(sources.into_iter().collect()),
    }
}

/// The stream of [`merge`].
///
/// | option | default |
/// | --- | --- |
/// | [`quantum`](Merge::quantum) | 64 messages |
/// | [`strategy`](Merge::strategy) | turns that go round |
/// | [`timeout`](Merge::timeout) | never |
/// | [`cancellation`](Merge::cancellation) | that of the context alone |
///
/// An option that is set after the first poll changes nothing.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{TryStreamExt, stream};
/// use watershed::channels::merge;
/// use watershed::{Source, StepContext};
///
/// let sources = [stream::iter(1..3).weighted(1), stream::iter(3..6).weighted(2)];
/// let merged = merge(&StepContext::new("merge"), sources).quantum(1);
/// assert_eq!(merged.try_collect::<Vec<_>>().await?, [1, 3, 4, 2, 5]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct Merge<S, P = fn(&[SourceState]) -> Option<usize>> {
    context: StepContext,
    choice: Choice<P>,
    timeout: Option<Duration>,
    cancellation: CancellationToken,
    state: MergeState<S, P>,
}

enum MergeState<S, P> {
    Waiting(HeldEach<S>),
    Running(Box<(Intake<S, P>, Limits)>),
    Ended,
}

/// Every source is in a box of its own.
impl<S, P> Unpin for Merge<S, P> {}

impl<S> Merge<S> {
    /// Asks `strategy` before each message for the index of the source to take it from. Default:
    /// turns that go round.
    ///
    /// The strategy is shown what is known of the sources, in their order, and asked only while at
    /// least one may be ready. The source that it names is polled; if it has no message, it counts
    /// as pending until it is woken, and the strategy is asked again. While every source is pending
    /// the merge waits for one to be woken.
    ///
    /// An answer that names no source which may be ready (none at all, an index out of range, a
    /// source that is pending or has ended) is a refusal: the thread is given back to the executor
    /// once, so that the source wanted may become ready, and the strategy is asked again. After 8
    /// refusals in a row the message is taken from the next source in turn that may be ready. So no
    /// strategy can make the merge spin or stop; one that never refuses decides alone. One that
    /// panics ends the merge with [`ErrorCode::Panic`](crate::ErrorCode::Panic).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{TryStreamExt, stream};
    /// use watershed::StepContext;
    /// use watershed::channels::{SourceState, merge};
    ///
    /// // From the last one that may be ready.
    /// let last = |sources: &[SourceState]| sources.iter().rposition(|state| state.is_ready());
    /// let sources = [stream::iter([1, 2]), stream::iter([3, 4])];
    /// let merged = merge(&StepContext::new("merge"), sources).strategy(last);
    /// assert_eq!(merged.try_collect::<Vec<_>>().await?, [3, 4, 1, 2]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn strategy<P>(self, strategy: P) -> Merge<S, P>
    where
        P: FnMut(&[SourceState]) -> Option<usize>,
    {
        let Self { context, choice, timeout, cancellation, state } = self;
        let state = match state {
            MergeState::Waiting(sources) => MergeState::Waiting(sources),
            // A merge that has begun is pinned, and has lost its options with it.
            MergeState::Running(_) | MergeState::Ended => MergeState::Ended,
        };
        let choice = Choice { quantum: choice.quantum, strategy: Some(Held::new(strategy)) };
        Merge { context, choice, timeout, cancellation, state }
    }
}

impl<S, P> Merge<S, P> {
    option!(quantum: choice.quantum);
    option!(timeout: timeout);
    option!(cancellation: cancellation);
}

impl<S, P> Merge<S, P>
where
    S: Source<Receipt = Unsettled>,
    P: FnMut(&[SourceState]) -> Option<usize>,
{
    fn start(&mut self) -> Result<(), Error> {
        let MergeState::Waiting(sources) = std::mem::replace(&mut self.state, MergeState::Ended)
        else {
            return Ok(());
        };
        let tokens = [self.context.cancellation().clone(), self.cancellation.clone()];
        let token = CancellationToken::linked(tokens);
        let limits = Limits::new(self.context.clock(), token, self.timeout)?;
        let intake = std::mem::take(&mut self.choice).start(sources.take())?;
        self.state = MergeState::Running(Box::new((intake, limits)));
        Ok(())
    }
}

/// The next item of a stream that has begun.
#[inline]
fn poll_item<S, P>(
    intake: &mut Intake<S, P>,
    limits: &mut Limits,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<S::Message, Error>>>
where
    S: Source<Receipt = Unsettled>,
    P: FnMut(&[SourceState]) -> Option<usize>,
{
    if intake.begins_turn() {
        if let Some(exceeded) = limits.exceeded() {
            return Poll::Ready(Some(Err(exceeded.into_error("the merge"))));
        }
    }
    match intake.poll_take(cx) {
        Poll::Ready(taken) => Poll::Ready(taken.map(|(_, item)| item)),
        Poll::Pending => {
            limits.poll_exceeded(cx).map(|exceeded| Some(Err(exceeded.into_error("the merge"))))
        }
    }
}

impl<S, P> Stream for Merge<S, P>
where
    S: Source<Receipt = Unsettled>,
    P: FnMut(&[SourceState]) -> Option<usize>,
{
    type Item = Result<S::Message, Error>;

    #[inline]
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let MergeState::Waiting(_) = this.state {
            let started = panics::contain(|| this.start());
            let blame = |message: String| Err(Error::panic("the clock or a source", &message));
            if let Err(error) = started.unwrap_or_else(blame) {
                this.state = MergeState::Ended;
                return Poll::Ready(Some(Err(error)));
            }
        }
        let MergeState::Running(running) = &mut this.state else { return Poll::Ready(None) };
        let (intake, limits) = &mut **running;
        let polled = panics::contain(|| poll_item(intake, limits, cx));
        let item = match polled {
            Ok(Poll::Ready(Some(Ok(message)))) => return Poll::Ready(Some(Ok(message))),
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(last)) => last,
            Err(message) => Some(Err(intake.blame(&message))),
        };
        let old = std::mem::replace(&mut this.state, MergeState::Ended);
        panics::drop_contained(|| drop(old));
        Poll::Ready(item)
    }
}

impl<S, P> FusedStream for Merge<S, P>
where
    S: Source<Receipt = Unsettled>,
    P: FnMut(&[SourceState]) -> Option<usize>,
{
    fn is_terminated(&self) -> bool {
        matches!(self.state, MergeState::Ended)
    }
}

impl<S, P> fmt::Debug for Merge<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            MergeState::Waiting(_) => "waiting",
            MergeState::Running(..) => "running",
            MergeState::Ended => "ended",
        };
        f.debug_struct("Merge")
            .field("context", &self.context)
            .field("choice", &self.choice)
            .field("timeout", &self.timeout)
            .field("cancellation", &self.cancellation)
            .field("state", &state)
            .finish()
    }
}
