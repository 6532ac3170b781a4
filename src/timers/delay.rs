//! One wait: a future, and a stream of one item.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::stream::{FusedStream, Stream};

use crate::clock::Tick;
use crate::diagnostics::COUNTERS;
use crate::error::{Error, ErrorCode};
use crate::limits::{Exceeded, Limits};
use crate::panics;
use crate::step::StepContext;

/// Waits for `duration`, counted from this call by the context's clock.
///
/// Zero is over at the first poll; [`Duration::MAX`] waits for the cancellation alone.
///
/// # Errors
///
/// - [`ErrorCode::Canceled`] when the context's token is cancelled before the time is over, or was
///   so at the call
/// - [`ErrorCode::Clock`] when there is something to wait for and the clock cannot,
///   [`ErrorCode::Panic`] when it panics
///
/// # Cancel safety
///
/// Dropping the future forgets the wait and nothing else.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use watershed::timers::delay;
/// use watershed::{Clock, StepContext};
///
/// let context = StepContext::new("orders");
/// let begun = context.clock().now();
/// delay(&context, Duration::from_millis(2)).await?;
/// assert!(context.clock().now().since(begun) >= Duration::from_millis(2));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn delay(context: &StepContext, duration: Duration) -> Delay {
    let token = context.cancellation().clone();
    Delay { limits: Some(Limits::new(context.clock(), token, Some(duration))) }
}

/// The future of [`delay`].
///
/// ```
/// use futures::FutureExt;
/// use std::time::Duration;
/// use watershed::{StepContext, timers::delay};
///
/// let nothing = delay(&StepContext::new("orders"), Duration::ZERO);
/// assert!(nothing.now_or_never().unwrap().is_ok());
/// ```
#[must_use = "a future does nothing unless it is polled"]
pub struct Delay {
    /// There until it has ended.
    limits: Option<Result<Limits, Error>>,
}

impl Delay {
    /// The moment that is waited for.
    fn at(&self) -> Tick {
        match &self.limits {
            Some(Ok(limits)) => limits.deadline(),
            _ => Tick::MAX,
        }
    }
}

impl Future for Delay {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.limits {
            Some(Ok(limits)) => match panics::contain(|| limits.poll_exceeded(cx)) {
                Ok(exceeded) => match ready!(exceeded) {
                    Exceeded::TimedOut(_) => Ok(()),
                    Exceeded::Cancelled(error) => Err(error),
                },
                Err(message) => Err(Error::panic("the clock", &message)),
            },
            Some(Err(error)) => Err(error.clone()),
            None => Err(Error::new(ErrorCode::Unspecified, "the delay had ended already")),
        };
        self.limits = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delay").field("ended", &self.limits.is_none()).finish()
    }
}

/// A stream of one item: the tick at which `duration`, counted from this call by the context's
/// clock, is over.
///
/// The tick is the moment that was waited for; how late it was taken is the clock's time since.
/// The stream ends without an item when the context's token is cancelled first, or the clock
/// cannot wait or panics. [`Duration::MAX`] waits for the cancellation alone.
///
/// # Cancel safety
///
/// Dropping the stream forgets the wait and nothing else.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use futures::StreamExt;
/// use watershed::{ManualClock, StepContext, Tick, timers::after};
///
/// let clock = ManualClock::new();
/// let context = StepContext::new("orders").with_clock(Arc::new(clock.clone()));
/// let ticks = after(&context, Duration::from_nanos(5));
/// clock.advance(Duration::from_nanos(7));
/// assert_eq!(ticks.collect::<Vec<_>>().await, [Tick::from_nanos(5)]);
/// # });
/// ```
pub fn after(context: &StepContext, duration: Duration) -> After {
    After { delay: Some(delay(context, duration)) }
}

/// The stream of [`after`].
///
/// ```
/// use futures::{FutureExt, StreamExt};
/// use std::time::Duration;
/// use watershed::{StepContext, timers::after};
///
/// let mut once = after(&StepContext::new("orders"), Duration::ZERO);
/// assert!(once.next().now_or_never().unwrap().is_some());
/// assert!(once.next().now_or_never().unwrap().is_none());
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct After {
    delay: Option<Delay>,
}

impl Stream for After {
    type Item = Tick;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Tick>> {
        let Some(delay) = &mut self.delay else { return Poll::Ready(None) };
        let at = delay.at();
        let result = ready!(Pin::new(delay).poll(cx));
        self.delay = None;
        if result.as_ref().is_err_and(|error| error.code() == ErrorCode::Panic) {
            COUNTERS.contained_panics.add(1);
        }
        Poll::Ready(result.ok().map(|()| at))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.delay.is_some())))
    }
}

impl FusedStream for After {
    fn is_terminated(&self) -> bool {
        self.delay.is_none()
    }
}

impl fmt::Debug for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("After").field("ended", &self.delay.is_none()).finish()
    }
}
