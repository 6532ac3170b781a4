//! A source with a name.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::{DeliveryOf, Gate, Polled, Profile, Source};

pin_project! {
    /// A source with a name, see [`Source::named`].
    ///
    /// ```
    /// use futures::stream;
    /// use watershed::{Named, Source};
    ///
    /// let sources: Vec<Named<_>> =
    ///     ["ak", "nc"].map(|region| stream::iter([1]).named(region)).into();
    /// # drop(sources);
    /// ```
    #[must_use = "a source does nothing unless it is drained"]
    pub struct Named<S> {
        name: Arc<str>,
        #[pin]
        source: S,
    }
}

impl<S> Named<S> {
    pub(super) fn new(name: Arc<str>, source: S) -> Self {
        Self { name, source }
    }
}

/// What a wrapper leaves to the source within it; its profile is its own.
macro_rules! as_the_source_within {
    () => {
        type Message = S::Message;
        type Receipt = S::Receipt;

        #[inline]
        fn poll_delivery(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self> {
            self.project().source.poll_delivery(cx)
        }

        #[inline]
        fn poll_gate(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Gate> {
            self.project().source.poll_gate(cx)
        }

        #[inline]
        fn take_held(self: Pin<&mut Self>) -> Option<DeliveryOf<Self>> {
            self.project().source.take_held()
        }

        #[inline]
        fn give_out(self: Pin<&mut Self>) -> bool {
            self.project().source.give_out()
        }

        #[inline]
        fn is_paused(&self) -> bool {
            self.source.is_paused()
        }

        #[inline]
        fn holds(&self) -> bool {
            self.source.holds()
        }
    };
}
pub(super) use as_the_source_within;

impl<S: Source> Source for Named<S> {
    as_the_source_within!();

    fn profile(&self) -> Profile {
        Profile { name: Some(Arc::clone(&self.name)), ..self.source.profile() }
    }
}

impl<S> fmt::Debug for Named<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("name", &self.name).finish_non_exhaustive()
    }
}
