//! Windows as a plain stream: with a deadline and a token of its own, and with what is open handed
//! out before whatever ends it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use pin_project_lite::pin_project;

use super::Window;
use crate::cancellation::CancellationToken;
use crate::error::Error;
use crate::operation::Limits;
use crate::origin::{Origin, SourceName};
use crate::panics;
use crate::source::{Body, Delivery, Gate, Source, Unsettled};

/// Messages after which a window that is never full lets the executor have its thread back.
const MESSAGES_PER_POLL: usize = 256;

pin_project! {
    /// The windows of a source as a stream, made by [`Window::stream`].
    ///
    /// | option | default |
    /// | --- | --- |
    /// | [`timeout`](Windows::timeout) | never |
    /// | [`cancellation`](Windows::cancellation) | that of the context alone |
    ///
    /// An `Err` is the last item: a fault of the source, a panic, the timeout or the cancellation.
    /// What was open is handed out before it, and so it is at the end and at the removal of the
    /// source.
    ///
    /// # Cancel safety
    ///
    /// Dropping a wait for the next window loses nothing. Dropping the stream drops the messages of
    /// the window that is open: [`take_open`](Windows::take_open) hands them out before.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{StreamExt, stream};
    /// use watershed::{StepContext, channels};
    ///
    /// let context = StepContext::new("batches");
    /// let window = channels::Window::new(&context, stream::iter(0..3)).count(2);
    /// let mut windows = Box::pin(window.stream()?);
    /// assert_eq!(windows.next().await.unwrap()?, [0, 1]);
    /// assert_eq!(windows.next().await.unwrap()?, [2]);
    /// assert!(windows.next().await.is_none());
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use = "a stream does nothing unless it is polled"]
    pub struct Windows<S: Source> {
        #[pin]
        window: Window<S>,
        name: SourceName,
        timeout: Option<Duration>,
        cancellation: CancellationToken,
        // From the first poll on.
        limits: Option<Limits>,
        // What is left to be handed out, once the stream has ended.
        end: Option<WindowRest<S::Message>>,
    }
}

/// What is left of a stream that has ended: a window, and an error.
struct WindowRest<M> {
    window: Vec<M>,
    error: Option<Error>,
}

impl<S: Source<Receipt = Unsettled>> Windows<S> {
    pub(super) fn new(window: Window<S>, name: Option<Arc<str>>) -> Self {
        Self {
            window,
            name: SourceName::new(name, 0),
            timeout: None,
            cancellation: CancellationToken::never(),
            limits: None,
            end: None,
        }
    }

    /// One absolute deadline for the whole stream, counted from its first poll by the context's
    /// clock: then it hands out what is open, and ends with
    /// [`ErrorCode::Timeout`](crate::ErrorCode::Timeout). Zero times out before a message is taken;
    /// [`Duration::MAX`] never does.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use futures::{StreamExt, stream};
    /// use watershed::{ErrorCode, StepContext, channels};
    ///
    /// let context = StepContext::new("batches");
    /// let windows = channels::Window::new(&context, stream::repeat(7)).count(1).stream()?;
    /// let mut windows = Box::pin(windows.timeout(Duration::ZERO));
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
    /// use futures::{StreamExt, stream};
    /// use watershed::{CancellationSource, StepContext, channels};
    ///
    /// let (context, stop) = (StepContext::new("batches"), CancellationSource::new());
    /// stop.cancel();
    /// let windows = channels::Window::new(&context, stream::repeat(7)).count(1).stream()?;
    /// let mut windows = Box::pin(windows.cancellation(stop.token()));
    /// assert!(windows.next().await.unwrap().is_err());
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    /// Takes the messages of the window that is open.
    ///
    /// ```
    /// use futures::stream;
    /// use watershed::{StepContext, channels};
    ///
    /// let context = StepContext::new("batches");
    /// let window = channels::Window::new(&context, stream::iter([1])).count(1);
    /// let mut windows = Box::pin(window.stream().unwrap());
    /// assert!(windows.as_mut().take_open().is_empty(), "nothing was asked for yet");
    /// ```
    #[must_use]
    pub fn take_open(self: Pin<&mut Self>) -> Vec<S::Message> {
        let this = self.project();
        match this.end {
            Some(rest) => std::mem::take(&mut rest.window),
            None => this.window.project().open.take(),
        }
    }

    /// The next window, or why there is none any more.
    fn poll_window(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Vec<S::Message>, Option<Error>>> {
        let mut this = self.project();
        if this.limits.is_none() {
            let context = &this.window.context;
            let tokens = [context.cancellation().clone(), this.cancellation.clone()];
            let token = CancellationToken::linked(tokens);
            match Limits::new(context.clock(), token, *this.timeout) {
                Ok(limits) => *this.limits = Some(limits),
                Err(error) => return Poll::Ready(Err(Some(error))),
            }
        }
        let Some(limits) = this.limits else { return Poll::Pending };
        let stopped = 'looking: {
            for _ in 0..MESSAGES_PER_POLL {
                if let Some(exceeded) = limits.exceeded() {
                    break 'looking Poll::Ready(Some(exceeded));
                }
                match this.window.as_mut().poll_gate(cx) {
                    Poll::Ready(Gate::Open) => {}
                    Poll::Ready(Gate::Removed) => break 'looking Poll::Ready(None),
                    Poll::Pending => break 'looking Poll::Pending,
                }
                match this.window.as_mut().poll_delivery(cx) {
                    Poll::Ready(Some(Ok(Delivery { body: Body::Message(window), .. }))) => {
                        return Poll::Ready(Ok(window));
                    }
                    Poll::Ready(Some(
                        Ok(Delivery { body: Body::Failed(error, _), .. }) | Err(error),
                    )) => {
                        let origin = Origin { source: this.name.clone(), message: 0 };
                        return Poll::Ready(Err(Some(error.with_origin(origin))));
                    }
                    Poll::Ready(Some(Ok(Delivery {
                        body: Body::Skipped | Body::Held, ..
                    }))) => {}
                    Poll::Ready(None) => break 'looking Poll::Ready(None),
                    Poll::Pending => break 'looking Poll::Pending,
                }
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let exceeded = match stopped {
            Poll::Ready(exceeded) => exceeded,
            Poll::Pending => match limits.poll_exceeded(cx) {
                Poll::Ready(exceeded) => Some(exceeded),
                Poll::Pending => return Poll::Pending,
            },
        };
        let error = exceeded.map(|exceeded| exceeded.into_error("the stream of windows"));
        Poll::Ready(Err(error))
    }

    /// Drops the source. What was taken and not handed out is the last window.
    fn end(self: Pin<&mut Self>, error: Option<Error>) {
        let mut this = self.project();
        let mut window = this.window.as_mut().project().open.take();
        let held = panics::contain(|| {
            while let Some(Delivery { body: Body::Message(held), .. }) =
                this.window.as_mut().take_held()
            {
                window.extend(held);
            }
        });
        panics::drop_contained(|| this.window.project().source.set(None));
        let panicked = held.err().map(|message| Error::panic("the source", &message));
        *this.end = Some(WindowRest { window, error: error.or(panicked) });
    }
}

impl<S: Source<Receipt = Unsettled>> Stream for Windows<S> {
    type Item = Result<Vec<S::Message>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.end.is_none() {
            let polled = panics::contain(|| self.as_mut().poll_window(cx));
            let error = match polled {
                Ok(Poll::Ready(Ok(window))) => return Poll::Ready(Some(Ok(window))),
                Ok(Poll::Ready(Err(error))) => error,
                Ok(Poll::Pending) => return Poll::Pending,
                Err(message) => Some(Error::panic("the source or the clock", &message)),
            };
            self.as_mut().end(error);
        }
        let Some(rest) = self.project().end else { return Poll::Ready(None) };
        if !rest.window.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut rest.window))));
        }
        Poll::Ready(rest.error.take().map(Err))
    }
}

impl<S: Source> fmt::Debug for Windows<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Windows")
            .field("source", &self.name.as_str())
            .field("open", &self.window.open.len())
            .field("ended", &self.end.is_some())
            .finish_non_exhaustive()
    }
}
