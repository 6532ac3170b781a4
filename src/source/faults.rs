//! A source of results whose errors are faults.

use std::fmt;
use std::pin::Pin;
use std::task::Context;

use futures::TryStream;
use pin_project_lite::pin_project;

use super::{Delivery, Polled, Source, Unsettled};
use crate::error::{BoxError, Error, ErrorCode};

pin_project! {
    /// A source of results whose `Err` is a fault, see [`Source::faults`].
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{Source, StepContext, channels};
    ///
    /// let (sender, _receiver) = async_channel::unbounded();
    /// let lines = stream::iter([Ok("a"), Err("the disk is gone")]).faults().named("log");
    /// let error = channels::merge_into(&StepContext::new("logs"), [lines], sender).await.unwrap_err();
    /// assert!(error.to_string().contains("log"));
    /// # });
    /// ```
    #[must_use = "a source does nothing unless it is drained"]
    pub struct Faults<S> {
        #[pin]
        stream: S,
    }
}

impl<S> Faults<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream }
    }
}

impl<S: TryStream<Error: Into<BoxError>>> Source for Faults<S> {
    type Message = S::Ok;
    type Receipt = Unsettled;

    #[inline]
    fn poll_delivery(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self> {
        self.project().stream.try_poll_next(cx).map(|item| {
            item.map(|result| match result {
                Ok(message) => Ok(Delivery::message(message, Unsettled)),
                Err(error) => Err(Error::from_error(ErrorCode::Source, error)),
            })
        })
    }
}

impl<S> fmt::Debug for Faults<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}
