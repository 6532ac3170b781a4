//! Where messages come from: any stream, perhaps with a name, perhaps with faults.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, TryStream};
use pin_project_lite::pin_project;

use crate::error::{BoxError, Error, ErrorCode};

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

    fn name(&self) -> Option<Arc<str>> {
        Some(Arc::clone(&self.name))
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
