//! Messages in batches: by count, by time, or by whichever comes first.
//!
//! A window opens with its first message and closes when it is full or old enough. It is pulled:
//! nothing is read ahead of a window that nobody has taken yet.
//!
//! - here: a window as a source, whose messages are batches
//! - `open`: the messages of the window that is open, and when it closes
//! - `stream`: the same as a plain stream

mod open;
mod stream;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

pub use stream::Windows;

use crate::error::Error;
use crate::panics;
use crate::source::{Body, Delivery, DeliveryOf, Gate, Hold, Polled, Profile, Source, Unsettled};
use crate::step::StepContext;
use open::Open;

pin_project! {
    /// Gathers the messages of a source in windows: a [`Source`] of `Vec`s. At least one of
    /// [`count`](Window::count) and [`every`](Window::every) must be given; of both, whichever comes
    /// first closes a window.
    ///
    /// | option | units | default |
    /// | --- | --- | --- |
    /// | [`count`](Window::count) | messages | no limit |
    /// | [`every`](Window::every) | time since the first message of the window | no limit |
    ///
    /// A window is never empty. One that is open at the end of its source, or when the drain is
    /// idle, is handed out as it is. What is open when the drain ends otherwise, or the source is
    /// removed, goes back message by message, each as a window of one. While a source is paused
    /// its window stays open, and its time goes on.
    ///
    /// A window takes the room of what is in it, and a fault of the source does not wait for the
    /// window that is open.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, channels, fan_in};
    ///
    /// let context = StepContext::new("rows");
    /// let batches = channels::Window::new(&context, stream::iter(1..=5)).count(2);
    /// let mut sizes = Vec::new();
    /// fan_in(&context, [batches], |rows: Vec<i32>, _| {
    ///     sizes.push(rows.len());
    ///     async { Ok::<_, BoxError>(()) }
    /// })
    /// .await?;
    /// assert_eq!(sizes, [2, 2, 1]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use = "a source does nothing unless it is drained"]
    pub struct Window<S: Source> {
        context: StepContext,
        #[pin]
        source: Option<S>,
        // The source has ended; it may be there still.
        ended: bool,
        open: Open<S::Message, S::Receipt>,
    }

    impl<S: Source> PinnedDrop for Window<S> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            panics::drop_contained(|| this.source.set(None));
        }
    }
}

impl<S: Source> Window<S> {
    /// Windows over a source, by the context's clock.
    pub fn new(context: &StepContext, source: S) -> Self {
        Self {
            open: Open::new(Arc::clone(context.clock())),
            context: context.clone(),
            source: Some(source),
            ended: false,
        }
    }

    /// Closes a window when it has so many messages; 0 is
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation) before anything is taken.
    pub fn count(mut self, messages: usize) -> Self {
        self.open.count = Some(messages);
        self
    }

    /// Closes a window so long after its first message, by the context's clock.
    /// [`Duration::MAX`]: never by time; zero is
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation) before anything is taken.
    pub fn every(mut self, interval: Duration) -> Self {
        self.open.every = Some(interval);
        self
    }

    /// The windows as a plain stream, for use without a drain.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::Validation`](crate::ErrorCode::Validation) when neither a count nor an interval
    ///   was given, one of them is zero, or the source has an option that is wrong or has no effect
    ///   here
    /// - [`ErrorCode::Clock`](crate::ErrorCode::Clock) when there is an interval and the context's
    ///   clock cannot wait
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{TryStreamExt, stream};
    /// use watershed::{StepContext, channels};
    ///
    /// let context = StepContext::new("batches");
    /// let windows = channels::Window::new(&context, stream::iter(1..=5)).count(2).stream()?;
    /// let windows: Vec<_> = windows.try_collect().await?;
    /// assert_eq!(windows, [vec![1, 2], vec![3, 4], vec![5]]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn stream(self) -> Result<Windows<S>, Error>
    where
        S: Source<Receipt = Unsettled>,
    {
        let name = self.profile().heeded_by("a stream of windows", false)?.name;
        Ok(Windows::new(self, name))
    }

    /// The source has ended: it is dropped at once, unless its owner can still ask for something
    /// while the last window is handled.
    fn end(self: Pin<&mut Self>) -> Option<DeliveryOf<Self>> {
        let mut this = self.project();
        *this.ended = true;
        let live = this.source.as_ref().as_pin_ref().is_some_and(|source| source.profile().live);
        if !live {
            panics::drop_contained(|| this.source.set(None));
        }
        this.open.close()
    }
}

impl<S: Source> Source for Window<S> {
    type Message = Vec<S::Message>;
    type Receipt = S::Receipt;

    /// Takes one message at most, so that whoever polls can look for a reason to end.
    fn poll_delivery(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self> {
        let this = self.as_mut().project();
        if this.open.is_due() {
            if let Some(window) = this.open.close() {
                return Poll::Ready(Some(Ok(window)));
            }
        }
        let (Some(source), false) = (this.source.as_pin_mut(), *this.ended) else {
            return Poll::Ready(None);
        };
        let mut source = source;
        let (body, receipt) = match source.as_mut().poll_delivery(cx) {
            Poll::Ready(Some(Ok(Delivery { body, receipt }))) => (body, receipt),
            Poll::Ready(Some(Err(fault))) => return Poll::Ready(Some(Err(fault))),
            Poll::Ready(None) => return Poll::Ready(self.end().map(Ok)),
            Poll::Pending => {
                this.open.forget_recalled();
                let ends = source.is_exhausted() && this.open.close_at_once();
                let window = match this.open.poll_due(cx) {
                    Poll::Pending if !ends => None,
                    _ => this.open.close(),
                };
                return window.map_or(Poll::Pending, |window| Poll::Ready(Some(Ok(window))));
            }
        };
        let body = match body {
            Body::Message(message) => {
                this.open.push(message, receipt);
                let full = this.open.is_full_of_ours().then(|| this.open.close()).flatten();
                return Poll::Ready(Some(Ok(full.unwrap_or_else(Delivery::held))));
            }
            // What is no message belongs to no window.
            Body::Failed(error, raw) => Body::Failed(error, raw),
            Body::Skipped => Body::Skipped,
            Body::Held => Body::Held,
        };
        Poll::Ready(Some(Ok(Delivery { body, receipt })))
    }

    fn poll_gate(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Gate> {
        let source = self.project().source.as_pin_mut();
        source.map_or(Poll::Ready(Gate::Open), |source| source.poll_gate(cx))
    }

    fn take_held(self: Pin<&mut Self>) -> Option<DeliveryOf<Self>> {
        let this = self.project();
        this.open.pop().or_else(|| {
            let held = this.source.as_pin_mut()?.take_held()?;
            Some(held.map(|message| vec![message]))
        })
    }

    fn give_out(self: Pin<&mut Self>) -> bool {
        if self.is_paused() {
            return false;
        }
        let this = self.project();
        let within = this.source.as_pin_mut().is_some_and(Source::give_out);
        this.open.close_at_once() || within
    }

    fn hold(self: Pin<&mut Self>, hold: Hold) {
        if let Some(source) = self.project().source.as_pin_mut() {
            source.hold(hold);
        }
    }

    fn is_paused(&self) -> bool {
        self.source.as_ref().is_some_and(Source::is_paused)
    }

    fn holds(&self) -> bool {
        self.open.len() > 0 || self.source.as_ref().is_some_and(Source::holds)
    }

    fn is_exhausted(&self) -> bool {
        self.ended || self.source.as_ref().is_none_or(Source::is_exhausted)
    }

    fn profile(&self) -> Profile {
        let inner = self.source.as_ref().map(Source::profile).unwrap_or_default();
        let invalid = inner.invalid.or_else(|| self.open.check().err());
        let invalid = invalid.or_else(|| self.open.check_size(&inner.desks).err());
        Profile { invalid, gathers: true, ..inner }
    }
}

impl<S: Source> fmt::Debug for Window<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("context", &self.context)
            .field("count", &self.open.count)
            .field("every", &self.open.every)
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}
