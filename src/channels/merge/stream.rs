//! Many sources as one stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::FusedStream;

use super::intake::{FairTurns, Intake, Order, Turns};
use crate::cancellation::CancellationToken;
use crate::error::Error;
use crate::limits::Limits;
use crate::panics;
use crate::source::{Source, Unsettled};
use crate::step::StepContext;

/// Many sources as one stream of their messages.
///
/// A message is taken from its source when the stream is polled for it, and not before. Within one
/// source messages keep their order; ready sources have their turns one after another, a turn
/// being at most a [`quantum`](Merged::quantum) of messages, so that between two turns of one
/// source every other ready source has one.
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
/// use watershed::channels::merged;
///
/// let merged = merged(&StepContext::new("merge"), [stream::iter([1, 2]), stream::iter([3, 4])]);
/// assert_eq!(merged.try_collect::<Vec<_>>().await?, [1, 2, 3, 4]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn merged<I>(context: &StepContext, sources: I) -> Merged<I::Item>
where
    I: IntoIterator<Item: Source<Receipt = Unsettled>>,
{
    Merged {
        context: context.clone(),
        turns: FairTurns::default(),
        timeout: None,
        cancellation: CancellationToken::never(),
        state: State::Waiting(sources.into_iter().collect()),
    }
}

/// The stream of [`merged`].
///
/// | option | default |
/// | --- | --- |
/// | [`quantum`](Merged::quantum) | 64 messages |
/// | [`timeout`](Merged::timeout) | never |
/// | [`cancellation`](Merged::cancellation) | that of the context alone |
///
/// An option that is set after the first poll changes nothing.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{StreamExt, stream};
/// use watershed::channels::merged;
/// use watershed::{CancellationSource, StepContext};
///
/// let stop = CancellationSource::new();
/// let mut merged = merged(&StepContext::new("merge"), [stream::repeat(7)])
///     .cancellation(stop.token());
/// assert_eq!(merged.next().await.unwrap()?, 7);
/// stop.cancel();
/// let left = merged.skip_while(|item| std::future::ready(item.is_ok()));
/// let left = left.collect::<Vec<_>>().await;
/// assert_eq!(left[0].as_ref().unwrap_err().code(), watershed::ErrorCode::Canceled);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct Merged<S> {
    context: StepContext,
    turns: FairTurns,
    timeout: Option<Duration>,
    cancellation: CancellationToken,
    state: State<S>,
}

enum State<S> {
    Waiting(Vec<S>),
    Running(Box<(Turns<S>, Limits)>),
    Ended,
}

/// Every source is in a box of its own.
impl<S> Unpin for Merged<S> {}

impl<S: Source<Receipt = Unsettled>> Merged<S> {
    /// How many messages of one source may be taken before every other ready source has its turn.
    /// Default: 64; 0 is
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation). Token and timeout are looked at once a
    /// turn.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{TryStreamExt, stream};
    /// use watershed::StepContext;
    /// use watershed::channels::merged;
    ///
    /// let sources = [stream::iter([1, 2]), stream::iter([3, 4])];
    /// let merged = merged(&StepContext::new("merge"), sources).quantum(1);
    /// assert_eq!(merged.try_collect::<Vec<_>>().await?, [1, 3, 2, 4]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn quantum(mut self, messages: usize) -> Self {
        self.turns.quantum = messages;
        self
    }

    /// One absolute deadline for the whole stream, counted from its first poll by the context's
    /// clock. Zero times out before a message is taken; [`Duration::MAX`] never does.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{StreamExt, stream};
    /// use std::time::Duration;
    /// use watershed::StepContext;
    /// use watershed::channels::merged;
    ///
    /// let mut merged = merged(&StepContext::new("merge"), [stream::repeat(7)])
    ///     .timeout(Duration::ZERO);
    /// let error = merged.next().await.unwrap().unwrap_err();
    /// assert_eq!(error.code(), watershed::ErrorCode::Timeout);
    /// # });
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// A token that ends the stream, beside that of the context.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{StreamExt, stream};
    /// use watershed::StepContext;
    /// use watershed::channels::merged;
    ///
    /// let stop = watershed::CancellationSource::new();
    /// stop.cancel();
    /// let mut merged = merged(&StepContext::new("merge"), [stream::repeat(7)])
    ///     .cancellation(stop.token());
    /// let error = merged.next().await.unwrap().unwrap_err();
    /// assert_eq!(error.code(), watershed::ErrorCode::Canceled);
    /// # });
    /// ```
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    fn start(&mut self) -> Result<(), Error> {
        let State::Waiting(sources) = std::mem::replace(&mut self.state, State::Ended) else {
            return Ok(());
        };
        let tokens = [self.context.cancellation().clone(), self.cancellation.clone()];
        let token = CancellationToken::linked(tokens);
        let limits = Limits::new(self.context.clock(), token, self.timeout)?;
        let turns = self.turns.start(sources)?;
        self.state = State::Running(Box::new((turns, limits)));
        Ok(())
    }
}

/// The next item of a stream that has begun.
#[inline]
fn poll_item<S: Source<Receipt = Unsettled>>(
    turns: &mut Turns<S>,
    limits: &mut Limits,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<S::Message, Error>>> {
    if turns.begins_turn() {
        if let Some(exceeded) = limits.exceeded() {
            return Poll::Ready(Some(Err(exceeded.into_error("the merge"))));
        }
    }
    match turns.poll_take(cx) {
        Poll::Ready(taken) => Poll::Ready(taken.map(|(_, item)| item)),
        Poll::Pending => {
            limits.poll_exceeded(cx).map(|exceeded| Some(Err(exceeded.into_error("the merge"))))
        }
    }
}

impl<S: Source<Receipt = Unsettled>> Stream for Merged<S> {
    type Item = Result<S::Message, Error>;

    #[inline]
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let State::Waiting(_) = this.state {
            let started = panics::contain(|| this.start());
            let blame = |message: String| Err(Error::panic("the clock or a source", &message));
            if let Err(error) = started.unwrap_or_else(blame) {
                this.state = State::Ended;
                return Poll::Ready(Some(Err(error)));
            }
        }
        let State::Running(running) = &mut this.state else { return Poll::Ready(None) };
        let (turns, limits) = &mut **running;
        let polled = panics::contain(|| poll_item(turns, limits, cx));
        let item = match polled {
            Ok(Poll::Ready(Some(Ok(message)))) => return Poll::Ready(Some(Ok(message))),
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(last)) => last,
            Err(message) => Some(Err(turns.blame(&message))),
        };
        let old = std::mem::replace(&mut this.state, State::Ended);
        panics::drop_contained(|| drop(old));
        Poll::Ready(item)
    }
}

impl<S: Source<Receipt = Unsettled>> FusedStream for Merged<S> {
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

impl<S> fmt::Debug for Merged<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting(_) => "waiting",
            State::Running(..) => "running",
            State::Ended => "ended",
        };
        f.debug_struct("Merged")
            .field("context", &self.context)
            .field("turns", &self.turns)
            .field("timeout", &self.timeout)
            .field("cancellation", &self.cancellation)
            .field("state", &state)
            .finish()
    }
}
