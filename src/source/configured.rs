//! A source with options of its own.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use pin_project_lite::pin_project;

use super::passing::leave_to_source;
use super::{DeliveryOf, Polled, Profile, Source};
use crate::error::Error;

pin_project! {
    /// A source with a name, a share, an urgency or a rate of its own, see [`Source::named`],
    /// [`Source::weighted`], [`Source::prioritized`] and [`Source::rate`]. It is of one type
    /// whichever of them it was given:
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures::stream;
    /// use watershed::Source;
    ///
    /// let sources = [
    ///     stream::iter([1]).named("alarms").prioritized(0),
    ///     stream::iter([2]).weighted(3),
    ///     stream::iter([3]).named("mails").prioritized(200).rate(10, Duration::from_secs(1)),
    /// ];
    /// # drop(sources);
    /// ```
    #[must_use = "a source does nothing unless it is drained"]
    pub struct Configured<S> {
        name: Option<Arc<str>>,
        weight: Option<u32>,
        priority: Option<u32>,
        rate: Option<(usize, Duration)>,
        #[pin]
        source: S,
    }
}

impl<S> Configured<S> {
    pub(super) fn new(source: S) -> Self {
        Self { name: None, weight: None, priority: None, rate: None, source }
    }

    /// As [`Source::named`], without another wrapper.
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// As [`Source::weighted`], without another wrapper.
    pub fn weighted(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// As [`Source::prioritized`], without another wrapper.
    pub fn prioritized(mut self, priority: u32) -> Self {
        self.priority = Some(priority);
        self
    }

    /// As [`Source::rate`], without another wrapper.
    pub fn rate(mut self, messages: usize, per: Duration) -> Self {
        self.rate = Some((messages, per));
        self
    }

    fn wrong(&self) -> Option<&'static str> {
        match (self.weight, self.rate) {
            (Some(0), _) => Some("the weight of a source must not be zero"),
            (_, Some((0, _))) => Some("the rate of a source must not be zero messages"),
            (_, Some((_, Duration::ZERO))) => Some("the span of a rate must not be zero"),
            _ => None,
        }
    }
}

impl<S: Source> Source for Configured<S> {
    type Message = S::Message;
    type Receipt = S::Receipt;

    leave_to_source!();

    #[inline]
    fn poll_delivery(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self> {
        self.project().source.poll_delivery(cx)
    }

    #[inline]
    fn take_held(self: Pin<&mut Self>) -> Option<DeliveryOf<Self>> {
        self.project().source.take_held()
    }

    fn profile(&self) -> Profile {
        let inner = self.source.profile();
        Profile {
            name: self.name.clone().or(inner.name),
            weight: self.weight.unwrap_or(inner.weight),
            priority: self.priority.unwrap_or(inner.priority),
            rate: self.rate.or(inner.rate),
            invalid: inner.invalid.or_else(|| self.wrong().map(Error::validation)),
            ..inner
        }
    }
}

impl<S> fmt::Debug for Configured<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configured")
            .field("name", &self.name)
            .field("weight", &self.weight)
            .field("priority", &self.priority)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}
