//! Messages in batches: by count, by time, or by whichever comes first.
//!
//! A window opens with its first message and closes when it is full or old enough. It is pulled:
//! nothing is read ahead of a window that nobody has taken yet. However the source ends, what is
//! open is handed out before the end.

use std::fmt;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use pin_project_lite::pin_project;

use super::source::Source;
use crate::cancellation::CancellationToken;
use crate::clock::{Sleep, Tick};
use crate::context::StepContext;
use crate::error::Error;
use crate::limits::Limits;
use crate::origin::{Origin, SourceName};
use crate::panics;

/// Messages after which a window that is never full lets the executor have its thread back.
const MESSAGES_PER_POLL: usize = 256;

/// Windows up to this size have their room made when they open; larger ones grow.
const LARGEST_RESERVE: usize = 1 << 10;

/// Gathers the messages of a source in windows: see [`Window`] for when one is closed.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::num::NonZeroUsize;
/// use futures::{TryStreamExt, stream};
/// use watershed::{StepContext, channels};
///
/// let context = StepContext::new("batches");
/// let windows = channels::window(&context, stream::iter(1..=5))
///     .count(NonZeroUsize::new(2).unwrap())
///     .stream()?;
/// let windows: Vec<_> = windows.try_collect().await?;
/// assert_eq!(windows, [vec![1, 2], vec![3, 4], vec![5]]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn window<S: Source>(context: &StepContext, source: S) -> Window<S> {
    Window {
        context: context.clone(),
        source,
        count: None,
        every: None,
        timeout: None,
        cancellation: CancellationToken::never(),
    }
}

/// The options of [`window`]. At least one of [`count`](Window::count) and
/// [`every`](Window::every) must be given; of both, whichever comes first closes a window.
///
/// | option | default |
/// | --- | --- |
/// | [`count`](Window::count) | no limit |
/// | [`every`](Window::every) | no limit |
/// | [`timeout`](Window::timeout) | never |
/// | [`cancellation`](Window::cancellation) | that of the context alone |
///
/// ```
/// use std::time::Duration;
/// use futures::stream;
/// use watershed::{ErrorCode, StepContext, channels};
///
/// let context = StepContext::new("batches");
/// let error = channels::window(&context, stream::iter([1])).stream().unwrap_err();
/// assert_eq!(error.code(), ErrorCode::Validation);
/// let window = channels::window(&context, stream::iter([1])).every(Duration::from_secs(1));
/// assert!(window.stream().is_ok());
/// ```
#[must_use = "windows are made by `stream`"]
pub struct Window<S> {
    context: StepContext,
    source: S,
    count: Option<NonZeroUsize>,
    every: Option<Duration>,
    timeout: Option<Duration>,
    cancellation: CancellationToken,
}

impl<S: Source> Window<S> {
    /// Closes a window when it has so many messages.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::num::NonZeroUsize;
    /// use futures::{StreamExt, stream};
    /// use watershed::{StepContext, channels};
    ///
    /// let context = StepContext::new("batches");
    /// let window = channels::window(&context, stream::repeat(7));
    /// let mut windows = Box::pin(window.count(NonZeroUsize::new(3).unwrap()).stream()?);
    /// assert_eq!(windows.next().await.unwrap()?, [7, 7, 7]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn count(mut self, messages: NonZeroUsize) -> Self {
        self.count = Some(messages);
        self
    }

    /// Closes a window so long after its first message, by the context's clock. An empty window is
    /// never handed out. [`Duration::MAX`]: never by time.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use futures::{StreamExt, stream};
    /// use watershed::{StepContext, channels};
    ///
    /// let context = StepContext::new("batches");
    /// let source = stream::iter([1, 2]).chain(stream::pending());
    /// let window = channels::window(&context, source).every(Duration::from_millis(1));
    /// let mut windows = Box::pin(window.stream()?);
    /// assert_eq!(windows.next().await.unwrap()?, [1, 2]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = Some(interval);
        self
    }

    /// One absolute deadline for the whole stream, counted from [`stream`](Window::stream): then it
    /// hands out what is open, and ends with [`ErrorCode::Timeout`](crate::ErrorCode::Timeout).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::num::NonZeroUsize;
    /// use std::time::Duration;
    /// use futures::{StreamExt, stream};
    /// use watershed::{ErrorCode, StepContext, channels};
    ///
    /// let context = StepContext::new("batches");
    /// let window = channels::window(&context, stream::repeat(7)).count(NonZeroUsize::MIN);
    /// let mut windows = Box::pin(window.timeout(Duration::ZERO).stream()?);
    /// let error = windows.next().await.unwrap().unwrap_err();
    /// assert_eq!(error.code(), ErrorCode::Timeout);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// A token that ends the stream, beside that of the context: it hands out what is open, and
    /// ends with [`ErrorCode::Canceled`](crate::ErrorCode::Canceled).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::num::NonZeroUsize;
    /// use futures::{StreamExt, stream};
    /// use watershed::{CancellationSource, StepContext, channels};
    ///
    /// let (context, stop) = (StepContext::new("batches"), CancellationSource::new());
    /// stop.cancel();
    /// let window = channels::window(&context, stream::repeat(7)).count(NonZeroUsize::MIN);
    /// let mut windows = Box::pin(window.cancellation(stop.token()).stream()?);
    /// assert!(windows.next().await.unwrap().is_err());
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    /// The windows, as a stream.
    ///
    /// It is a source like any other: as `windows.faults()` it can be drained, merged or broadcast.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation) when neither a count nor an interval
    /// was given, or an interval of zero.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::num::NonZeroUsize;
    /// use futures::stream;
    /// use watershed::{BoxError, Source, StepContext, channels, fan_in};
    ///
    /// let context = StepContext::new("batches");
    /// let three = NonZeroUsize::new(3).unwrap();
    /// let windows = channels::window(&context, stream::iter(0..7)).count(three).stream()?;
    /// let report = fan_in(&context, [windows.faults()], |window: Vec<i32>, _| async move {
    ///     assert!(!window.is_empty());
    ///     Ok::<_, BoxError>(())
    /// })
    /// .await?;
    /// assert_eq!(report.handled(), 3);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn stream(self) -> Result<Windows<S>, Error> {
        let Self { context, source, count, every, timeout, cancellation } = self;
        if every == Some(Duration::ZERO) {
            return Err(Error::validation("the interval of a window must not be zero"));
        }
        if count.is_none() && every.is_none() {
            return Err(Error::validation("a window needs a count or an interval"));
        }
        let token = [context.cancellation().clone(), cancellation];
        let token = CancellationToken::linked(token);
        Ok(Windows {
            name: SourceName::new(source.name(), 0),
            source: Some(source),
            limits: Limits::new(context.clock(), token, timeout),
            context,
            count: count.map_or(usize::MAX, NonZeroUsize::get),
            every,
            open: Vec::new(),
            closes: None,
            end: None,
        })
    }
}

impl<S> fmt::Debug for Window<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("context", &self.context)
            .field("count", &self.count)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The windows of a source, made by [`Window::stream`].
    ///
    /// An `Err` is the last item: a fault of the source, a panic, the timeout or the cancellation.
    /// What was open is handed out before it.
    ///
    /// # Cancel safety
    ///
    /// Dropping a wait for the next window loses nothing. Dropping the stream drops the messages of
    /// the window that is open: [`take_open`](Windows::take_open) hands them out before.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::num::NonZeroUsize;
    /// use futures::{StreamExt, stream};
    /// use watershed::{StepContext, channels};
    ///
    /// let context = StepContext::new("batches");
    /// let source = stream::iter([1, 2, 3]).chain(stream::pending());
    /// let window = channels::window(&context, source).count(NonZeroUsize::new(2).unwrap());
    /// let mut windows = Box::pin(window.stream()?);
    /// assert_eq!(windows.next().await.unwrap()?, [1, 2]);
    /// assert!(futures::poll!(windows.next()).is_pending());
    /// assert_eq!(windows.as_mut().take_open(), [3]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use = "a stream does nothing unless it is polled"]
    pub struct Windows<S: Source> {
        // Gone as soon as it has ended.
        #[pin]
        source: Option<S>,
        name: SourceName,
        context: StepContext,
        limits: Limits,
        count: usize,
        every: Option<Duration>,
        open: Vec<S::Message>,
        closes: Option<(Tick, Sleep)>,
        // How the source ended; the error is handed out once.
        end: Option<Option<Error>>,
    }
}

impl<S: Source> Windows<S> {
    /// Takes the messages of the window that is open.
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use futures::stream;
    /// use watershed::{StepContext, channels};
    ///
    /// let context = StepContext::new("batches");
    /// let window = channels::window(&context, stream::iter([1])).count(NonZeroUsize::MIN);
    /// let mut windows = Box::pin(window.stream().unwrap());
    /// assert!(windows.as_mut().take_open().is_empty(), "nothing was asked for yet");
    /// ```
    #[must_use]
    pub fn take_open(self: Pin<&mut Self>) -> Vec<S::Message> {
        let this = self.project();
        *this.closes = None;
        std::mem::take(this.open)
    }

    /// Takes messages until a window is closed or the source has ended.
    fn poll_window(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Vec<S::Message>>> {
        for _ in 0..MESSAGES_PER_POLL {
            let mut this = self.as_mut().project();
            if let Some(exceeded) = this.limits.exceeded() {
                *this.end = Some(Some(exceeded.into_error("the stream of windows")));
                return Poll::Ready(None);
            }
            let due = |(at, _): &(Tick, Sleep)| this.context.clock().now() >= *at;
            if this.open.len() >= *this.count || this.closes.as_ref().is_some_and(due) {
                return Poll::Ready(Some(self.take_open()));
            }
            let Some(source) = this.source.as_mut().as_pin_mut() else { return Poll::Ready(None) };
            match source.poll_message(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    let first = this.open.is_empty();
                    // One that is closed by time alone says nothing of its size.
                    if first && *this.count <= LARGEST_RESERVE {
                        this.open.reserve(*this.count);
                    }
                    // In the window before the clock is asked, which may panic.
                    this.open.push(message);
                    if first {
                        let clock = this.context.clock();
                        let at = this.every.map(|every| clock.now() + every);
                        let at = at.filter(|at| *at != Tick::MAX);
                        *this.closes = at.map(|at| (at, clock.sleep_until(at)));
                    }
                }
                Poll::Ready(Some(Err(fault))) => {
                    let origin = Origin { source: this.name.clone(), message: 0 };
                    *this.end = Some(Some(fault.with_origin(origin)));
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => {
                    *this.end = Some(None);
                    return Poll::Ready(None);
                }
                Poll::Pending => return self.poll_limits(cx),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Waits for the time at which the window closes, and for the end of the stream.
    fn poll_limits(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Vec<S::Message>>> {
        let this = self.project();
        if let Some((_, sleep)) = this.closes {
            if sleep.as_mut().poll(cx).is_ready() {
                *this.closes = None;
                return Poll::Ready(Some(std::mem::take(this.open)));
            }
        }
        match this.limits.poll_exceeded(cx) {
            Poll::Ready(exceeded) => {
                *this.end = Some(Some(exceeded.into_error("the stream of windows")));
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: Source> Stream for Windows<S> {
    type Item = Result<Vec<S::Message>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.end.is_none() {
            match panics::contain(|| self.as_mut().poll_window(cx)) {
                Ok(Poll::Ready(Some(window))) => return Poll::Ready(Some(Ok(window))),
                Ok(Poll::Ready(None)) => {}
                Ok(Poll::Pending) => return Poll::Pending,
                Err(message) => {
                    let error = Error::panic("the source or the clock", &message);
                    *self.as_mut().project().end = Some(Some(error));
                }
            }
            let mut this = self.as_mut().project();
            panics::drop_contained(|| this.source.set(None));
        }
        let open = self.as_mut().take_open();
        if !open.is_empty() {
            return Poll::Ready(Some(Ok(open)));
        }
        let error = self.project().end.as_mut().and_then(Option::take);
        Poll::Ready(error.map(Err))
    }
}

impl<S: Source> fmt::Debug for Windows<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Windows")
            .field("source", &self.name.as_str())
            .field("open", &self.open.len())
            .field("ended", &self.end.is_some())
            .finish_non_exhaustive()
    }
}
