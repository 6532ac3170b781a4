//! One wait.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::error::{Error, ErrorCode};
use crate::operation::{Exceeded, Limits};
use crate::panics;
use crate::step::StepContext;

/// Waits for `duration`, counted from this call by the context's clock.
///
/// In [`futures::stream::once`] it is a stream of one item, and so a source. Zero is over at the first poll; [`Duration::MAX`] waits for the cancellation alone.
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
