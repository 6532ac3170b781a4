//! Any sink as a destination.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Sink;
use futures::channel::mpsc;
use pin_project_lite::pin_project;

use super::{Destination, Refused, closed, full};
use crate::error::{BoxError, Error, ErrorCode};

pin_project! {
    /// Any [`Sink`] of `M` as a [`Destination`].
    ///
    /// A message is taken from its source only when the sink is ready for one. An error of the sink
    /// comes back under the code `error.destination` with the error as its cause, or as it is when it
    /// is an [`Error`]; that of a [`futures::channel::mpsc`] sender without a receiver is
    /// [`ErrorCode::ChannelCompleted`]. A message that the sink was given when it failed is the sink's.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{StreamExt, channel::mpsc, stream};
    /// use watershed::StepContext;
    /// use watershed::channels::{SinkDestination, merge_into};
    ///
    /// let (sender, receiver) = mpsc::channel(4);
    /// merge_into(&StepContext::new("merge"), [stream::iter([1, 2])], SinkDestination::new(sender)).await?;
    /// assert_eq!(receiver.collect::<Vec<_>>().await, [1, 2]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use = "a destination does nothing unless something is sent to it"]
    pub struct SinkDestination<K, M> {
        #[pin]
        sink: K,
        message: std::marker::PhantomData<fn(M)>,
    }
}

impl<K, M> SinkDestination<K, M>
where
    K: Sink<M, Error: Into<BoxError>>,
{
    /// A sink as a destination.
    pub fn new(sink: K) -> Self {
        Self { sink, message: std::marker::PhantomData }
    }
}

fn failed(error: impl Into<BoxError>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(error) => *error,
        Err(cause) => match cause.downcast_ref::<mpsc::SendError>() {
            Some(error) if error.is_disconnected() => closed().with_source(cause),
            Some(error) if error.is_full() => full().with_source(cause),
            _ => Error::new(ErrorCode::Destination, "the destination failed").with_source(cause),
        },
    }
}

impl<K, M> Destination for SinkDestination<K, M>
where
    K: Sink<M, Error: Into<BoxError>>,
{
    type Message = M;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.project().sink.poll_ready(cx).map_err(failed)
    }

    fn try_send(self: Pin<&mut Self>, cx: &mut Context<'_>, message: M) -> Result<(), Refused<M>> {
        let mut sink = self.project().sink;
        match sink.as_mut().poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                sink.start_send(message).map_err(|error| Refused::Failed(failed(error), None))
            }
            Poll::Ready(Err(error)) => {
                let error = failed(error);
                Err(match error.code() {
                    ErrorCode::ChannelCompleted => Refused::Closed(message),
                    _ => Refused::Failed(error, Some(message)),
                })
            }
            Poll::Pending => Err(Refused::Full(message)),
        }
    }

    fn poll_send(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        hand: &mut Option<M>,
    ) -> Poll<Result<(), Error>> {
        let mut sink = self.project().sink;
        match sink.as_mut().poll_ready(cx) {
            Poll::Ready(Ok(())) => {}
            other => return other.map_err(failed),
        }
        let Some(message) = hand.take() else { return Poll::Ready(Ok(())) };
        Poll::Ready(sink.start_send(message).map_err(failed))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.project().sink.poll_flush(cx).map_err(failed)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.project().sink.poll_close(cx).map_err(failed)
    }
}

impl<K, M> fmt::Debug for SinkDestination<K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkDestination").finish_non_exhaustive()
    }
}
