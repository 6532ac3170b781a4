//! A live source as its drain sees it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::super::{DeliveryOf, Gate, Hold, Polled, Profile, Source};
use super::SourceEnd;
use super::control::{Control, Wish};
use super::refusal::Refusal;
use super::registry::Registry;
use crate::panics;
use crate::sync::Arc;

/// A source that was added by [`LiveSources::add`](crate::channels::LiveSources::add), as the drain
/// sees it. Dropping it gives what is left of the source to its handle.
///
/// ```
/// use futures::stream::{self, StreamExt};
/// use watershed::Source;
///
/// let (live, incoming) = watershed::channels::live();
/// live.add(stream::iter([1])).unwrap();
/// let source = futures::executor::block_on(Box::pin(incoming).next()).unwrap();
/// let source = source.named("first");
/// # drop(source);
/// ```
#[must_use = "a source does nothing unless it is drained"]
pub struct LiveSource<S> {
    /// There until it has ended by itself.
    source: Option<Pin<Box<S>>>,
    control: Arc<Control<S>>,
    registry: Arc<Registry<S>>,
    /// Where its owner hears that the drain cannot settle, if it has a transport.
    refusal: Option<std::sync::Arc<Refusal>>,
    /// The waker that was left with the control last.
    registered: Option<Waker>,
    /// What the source knows of that.
    hold: Hold,
}

impl<S> LiveSource<S> {
    pub(super) fn new(
        source: Pin<Box<S>>,
        control: &Arc<Control<S>>,
        registry: &Arc<Registry<S>>,
        refusal: Option<std::sync::Arc<Refusal>>,
    ) -> Self {
        Self {
            source: Some(source),
            control: Arc::clone(control),
            registry: Arc::clone(registry),
            refusal,
            registered: None,
            hold: Hold::No,
        }
    }

    /// The source itself, of which nobody has a handle.
    pub(super) fn into_source(mut self) -> Option<Pin<Box<S>>> {
        self.source.take()
    }

    #[inline]
    fn wish(&mut self, cx: &Context<'_>) -> Wish {
        self.control.listen(&mut self.registered, cx)
    }
}

impl<S: Source> Source for LiveSource<S> {
    type Message = S::Message;
    type Receipt = S::Receipt;

    /// Asks for the owner's wish as well: it may have changed since the gate was asked.
    fn poll_delivery(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self> {
        match self.wish(cx) {
            Wish::Run => {}
            Wish::Pause => return Poll::Pending,
            Wish::Remove => {
                // The gate is to be asked again: a removal is no end of the source.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        let polled = source.as_mut().poll_delivery(cx);
        if let Poll::Ready(None) = polled {
            panics::drop_each(self.source.take());
        }
        polled
    }

    fn poll_gate(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Gate> {
        let wish = self.wish(cx);
        let hold = match wish {
            Wish::Run => Hold::No,
            Wish::Pause => Hold::Pause,
            Wish::Remove => Hold::Leave,
        };
        if self.hold != hold {
            self.hold = hold;
            self.as_mut().hold(hold);
        }
        match (wish, &mut self.source) {
            (Wish::Run, Some(source)) => source.as_mut().poll_gate(cx),
            (Wish::Run, None) => Poll::Ready(Gate::Open),
            (Wish::Pause, _) => Poll::Pending,
            (Wish::Remove, _) => Poll::Ready(Gate::Removed),
        }
    }

    fn take_held(mut self: Pin<&mut Self>) -> Option<DeliveryOf<Self>> {
        self.source.as_mut()?.as_mut().take_held()
    }

    fn give_out(mut self: Pin<&mut Self>) -> bool {
        let running = self.control.wished() == Wish::Run;
        running && self.source.as_mut().is_some_and(|source| source.as_mut().give_out())
    }

    fn hold(mut self: Pin<&mut Self>, hold: Hold) {
        if hold == Hold::End {
            self.control.drain_ends();
        }
        if let Some(source) = &mut self.source {
            source.as_mut().hold(hold);
        }
    }

    fn is_paused(&self) -> bool {
        let within = || self.source.as_ref().is_some_and(|source| source.is_paused());
        self.control.wished() == Wish::Pause || within()
    }

    fn holds(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.holds())
    }

    fn is_exhausted(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is_exhausted())
    }

    fn profile(&self) -> Profile {
        let profile = self.source.as_ref().map(|source| source.profile());
        // The list and the source itself have it, too: without a handle nobody would hear of it.
        let is_held = Arc::strong_count(&self.control) > 2;
        let refusal = self.refusal.clone().filter(|_| is_held);
        let id = Some(self.control.id);
        Profile { id, live: true, refusal, ..profile.unwrap_or_default() }
    }
}

/// The source leaves its drain, in whatever way.
impl<S> Drop for LiveSource<S> {
    fn drop(&mut self) {
        self.registry.remove(self.control.id);
        let source = self.source.take();
        let how = match &source {
            None => SourceEnd::Drained,
            Some(_) if self.control.wished() == Wish::Remove => SourceEnd::Removed,
            Some(_) if self.refusal.as_ref().is_some_and(|it| it.error().is_some()) => {
                SourceEnd::Refused
            }
            Some(_) => SourceEnd::Abandoned,
        };
        self.control.finish(how, source);
    }
}

impl<S> fmt::Debug for LiveSource<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSource")
            .field("id", &self.control.id)
            .field("wish", &self.control.wished())
            .finish_non_exhaustive()
    }
}
