//! Where messages come from: any stream, perhaps with a name, perhaps with faults.

use std::fmt;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, TryStream};
use pin_project_lite::pin_project;

use crate::error::{BoxError, Error, ErrorCode};

/// The priority of a source that was given none.
const DEFAULT_PRIORITY: u32 = 100;

/// A source of messages. Every [`Stream`] is one as it is, `&mut S` and boxed streams included.
///
/// Sources of one drain have one type; streams of different types are boxed first.
///
/// ```
/// use futures::{StreamExt, stream};
/// use watershed::Source;
///
/// let (_sender, receiver) = async_channel::bounded::<u32>(4);
/// let sources = [receiver.boxed().named("queue"), stream::iter([1, 2]).boxed().named("fixed")];
/// # let _ = sources;
/// ```
pub trait Source {
    /// What the source yields and the handler takes.
    type Message;

    /// The next message, a fault, or the end of the source.
    ///
    /// # Errors
    ///
    /// When the source failed: that ends the drain.
    fn poll_message(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Self::Message, Error>>>;

    /// The name that errors and reports show.
    fn name(&self) -> Option<Arc<str>> {
        None
    }

    /// How many turns' worth of messages the source may have in one turn, see
    /// [`weighted`](Source::weighted).
    fn weight(&self) -> NonZeroU32 {
        NonZeroU32::MIN
    }

    /// How urgent the source is, see [`prioritized`](Source::prioritized).
    fn priority(&self) -> u32 {
        DEFAULT_PRIORITY
    }

    /// The number of the message yielded last, where the source counts better than a drain can: an
    /// offset, say. Otherwise the drain counts from 1.
    fn number(&self) -> Option<u64> {
        None
    }

    /// Ready when the source was taken out of its drain, and has gone back to whoever did so, see
    /// [`SourceHandle::remove`](crate::channels::SourceHandle::remove). A drain asks this of a
    /// source that waits for a permit, of which it takes no message.
    fn poll_removed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Pending
    }

    /// Another handle on the same source, where there can be one: a drain makes as many as its
    /// [`per_source_concurrency`](crate::FanIn::per_source_concurrency) allows.
    fn another_handle(&self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// The same source with turns that are `weight` times as long: among sources that are always
    /// ready, each has a share of the messages in proportion to its weight. Default: 1.
    ///
    /// ```
    /// use std::num::NonZeroU32;
    /// use futures::stream;
    /// use watershed::Source;
    ///
    /// let heavy = stream::iter([1]).weighted(NonZeroU32::new(3).unwrap());
    /// assert_eq!(heavy.weight().get(), 3);
    /// ```
    fn weighted(self, weight: NonZeroU32) -> Tuned<Self>
    where
        Self: Sized,
    {
        let priority = self.priority();
        Tuned { weight, priority, source: self }
    }

    /// The same source with another priority; lower numbers are more urgent. As long as a source is
    /// known to be ready, the turns of less urgent ones are one message long: they are slow, and
    /// never starve. Default: 100.
    ///
    /// ```
    /// use futures::stream;
    /// use watershed::Source;
    /// assert_eq!(stream::iter([1]).prioritized(1).priority(), 1);
    /// ```
    fn prioritized(self, priority: u32) -> Tuned<Self>
    where
        Self: Sized,
    {
        let weight = self.weight();
        Tuned { weight, priority, source: self }
    }

    /// The same source with a name, which errors and reports show beside the number of a message.
    ///
    /// ```
    /// use futures::stream;
    /// use watershed::Source;
    /// assert_eq!(stream::iter([1]).named("ak").name().as_deref(), Some("ak"));
    /// ```
    fn named(self, name: impl Into<Arc<str>>) -> Named<Self>
    where
        Self: Sized,
    {
        Named { name: name.into(), source: self }
    }

    /// The same source with its `Err` items taken as faults, which end the drain, and its `Ok`
    /// items as messages. Like a message, a fault is noticed at the source's next turn.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, ErrorCode, Source, StepContext, fan_in};
    ///
    /// let source = stream::iter([Ok(1), Err("connection lost")]).faults();
    /// let context = StepContext::new("drain");
    /// let error = fan_in(&context, [source], |_, _| async { Ok::<_, BoxError>(()) })
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.code(), ErrorCode::Source);
    /// # });
    /// ```
    fn faults(self) -> Faults<Self>
    where
        Self: Sized + TryStream,
    {
        Faults { stream: self }
    }
}

impl<S: Stream> Source for S {
    type Message = S::Item;

    fn poll_message(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<S::Item, Error>>> {
        self.poll_next(cx).map(|item| item.map(Ok))
    }
}

pin_project! {
    /// A source with a name, see [`Source::named`].
    ///
    /// ```
    /// use futures::stream;
    /// use watershed::Source;
    /// let named = stream::iter([1]).named("ak");
    /// # let _ = named;
    /// ```
    #[must_use = "a source does nothing unless it is drained"]
    pub struct Named<S> {
        name: Arc<str>,
        #[pin]
        source: S,
    }
}

impl<S: Source> Source for Named<S> {
    type Message = S::Message;

    fn poll_message(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<S::Message, Error>>> {
        self.project().source.poll_message(cx)
    }

    fn poll_removed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().source.poll_removed(cx)
    }

    fn name(&self) -> Option<Arc<str>> {
        Some(Arc::clone(&self.name))
    }

    fn weight(&self) -> NonZeroU32 {
        self.source.weight()
    }

    fn priority(&self) -> u32 {
        self.source.priority()
    }

    fn number(&self) -> Option<u64> {
        self.source.number()
    }

    fn another_handle(&self) -> Option<Self> {
        Some(Self { name: Arc::clone(&self.name), source: self.source.another_handle()? })
    }
}

impl<S> fmt::Debug for Named<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("name", &self.name).finish_non_exhaustive()
    }
}

pin_project! {
    /// A source of results whose `Err` is a fault, see [`Source::faults`].
    ///
    /// ```
    /// use futures::stream;
    /// use watershed::Source;
    /// let source = stream::iter([Ok::<_, std::io::Error>(1)]).faults().named("ak");
    /// # let _ = source;
    /// ```
    #[must_use = "a source does nothing unless it is drained"]
    pub struct Faults<S> {
        #[pin]
        stream: S,
    }
}

impl<S: TryStream<Error: Into<BoxError>>> Source for Faults<S> {
    type Message = S::Ok;

    fn poll_message(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<S::Ok, Error>>> {
        let item = self.project().stream.try_poll_next(cx);
        item.map(|item| {
            item.map(|result| result.map_err(|error| Error::from_error(ErrorCode::Source, error)))
        })
    }
}

impl<S> fmt::Debug for Faults<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

pin_project! {
    /// A source with a share or an urgency of its own, see [`Source::weighted`] and
    /// [`Source::prioritized`].
    ///
    /// ```
    /// use futures::stream;
    /// use watershed::Source;
    /// let urgent = stream::iter([1]).named("alarms").prioritized(0);
    /// assert_eq!(urgent.name().as_deref(), Some("alarms"));
    /// ```
    #[must_use = "a source does nothing unless it is drained"]
    pub struct Tuned<S> {
        weight: NonZeroU32,
        priority: u32,
        #[pin]
        source: S,
    }
}

impl<S: Source> Source for Tuned<S> {
    type Message = S::Message;

    fn poll_message(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<S::Message, Error>>> {
        self.project().source.poll_message(cx)
    }

    fn poll_removed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().source.poll_removed(cx)
    }

    fn name(&self) -> Option<Arc<str>> {
        self.source.name()
    }

    fn weight(&self) -> NonZeroU32 {
        self.weight
    }

    fn priority(&self) -> u32 {
        self.priority
    }

    fn number(&self) -> Option<u64> {
        self.source.number()
    }

    fn another_handle(&self) -> Option<Self> {
        let source = self.source.another_handle()?;
        Some(Self { weight: self.weight, priority: self.priority, source })
    }
}

impl<S> fmt::Debug for Tuned<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tuned")
            .field("weight", &self.weight)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}
