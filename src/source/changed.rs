//! A source whose messages are made into something else, whatever they are settled by.

use std::fmt;
use std::pin::Pin;
use std::task::Context;

use pin_project_lite::pin_project;

use super::passing::leave_to_source;
use super::{Body, DeliveryOf, Polled, Source};
use crate::error::{BoxError, Error, ErrorCode};
use crate::panics;

/// What becomes of a message.
pub trait Change<M> {
    /// What it is made into.
    type Message;

    #[doc(hidden)]
    fn change(&mut self, message: M) -> Body<Self::Message>;
}

/// See [`Source::decoded`].
#[derive(Clone, Copy, Debug)]
pub struct Decode<F>(F);

/// See [`Source::picked`].
#[derive(Clone, Copy, Debug)]
pub struct Pick<F>(F);

impl<M: Clone + Send + Sync + 'static, N, E, F> Change<M> for Decode<F>
where
    E: Into<BoxError>,
    F: FnMut(M) -> Result<N, E>,
{
    type Message = N;

    fn change(&mut self, message: M) -> Body<N> {
        let error = match panics::contain(|| (self.0)(message.clone())) {
            Ok(Ok(message)) => return Body::Message(message),
            Ok(Err(error)) => Error::from_error(ErrorCode::Validation, error)
                .wrapped_as(ErrorCode::Validation, "the message cannot be decoded"),
            Err(text) => Error::panic("the function of `decoded`", &text),
        };
        Body::Failed(error, Some(Box::new(message)))
    }
}

impl<M, N, F: FnMut(M) -> Option<N>> Change<M> for Pick<F> {
    type Message = N;

    fn change(&mut self, message: M) -> Body<N> {
        match panics::contain(|| (self.0)(message)) {
            Ok(picked) => picked.map_or(Body::Skipped, Body::Message),
            Err(text) => Body::Failed(Error::panic("the function of `picked`", &text), None),
        }
    }
}

pin_project! {
    /// A source whose messages are made into something else, see [`Source::decoded`] and
    /// [`Source::picked`].
    #[must_use = "a source does nothing unless it is drained"]
    pub struct Changed<S, C> {
        #[pin]
        source: S,
        change: C,
    }
}

impl<S, F> Changed<S, Decode<F>> {
    pub(super) fn decoded(source: S, decode: F) -> Self {
        Self { source, change: Decode(decode) }
    }
}

impl<S, F> Changed<S, Pick<F>> {
    pub(super) fn picked(source: S, pick: F) -> Self {
        Self { source, change: Pick(pick) }
    }
}

impl<S: Source, C: Change<S::Message>> Source for Changed<S, C> {
    type Message = C::Message;
    type Receipt = S::Receipt;

    leave_to_source!(profile);

    #[inline]
    fn poll_delivery(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self> {
        let this = self.project();
        let polled = this.source.poll_delivery(cx);
        polled.map(|item| {
            item.map(|delivery| {
                delivery.map(|it| it.and_then(|message| this.change.change(message)))
            })
        })
    }

    #[inline]
    fn take_held(self: Pin<&mut Self>) -> Option<DeliveryOf<Self>> {
        let this = self.project();
        this.source.take_held().map(|it| it.and_then(|message| this.change.change(message)))
    }
}

impl<S, C> fmt::Debug for Changed<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changed").finish_non_exhaustive()
    }
}
