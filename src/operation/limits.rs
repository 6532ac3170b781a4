//! What ends an operation from outside: its token and its deadline.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::cancellation::{CancellationToken, Cancelled};
use crate::clock::{Alarm, Clock, Tick};
use crate::error::Error;
use crate::panics;

/// The token and the deadline of one operation, from its first poll on.
///
/// A token that is cancelled goes before a deadline that has passed, and whether it has passed is
/// what the clock says when it is asked. The clock is the user's: where it panics later than in
/// [`Limits::new`], so does what is called here.
pub(crate) struct Limits {
    token: CancellationToken,
    cancelled: Cancelled,
    deadline: Option<Deadline>,
}

struct Deadline {
    alarm: Alarm,
    timeout: Duration,
}

impl Limits {
    /// The timeout counts from now; one without end sets no timer.
    ///
    /// # Errors
    ///
    /// Where there is a deadline to wait for and the clock cannot wait, or panics.
    pub(crate) fn new(
        clock: &Arc<dyn Clock>,
        token: CancellationToken,
        timeout: Option<Duration>,
    ) -> Result<Self, Error> {
        let mut limits = Self::by_token(token);
        if let Some(timeout) = timeout {
            let alarm = panics::contain(|| Alarm::after(clock, timeout))
                .unwrap_or_else(|message| Err(Error::panic("the clock", &message)))?;
            limits.deadline = (alarm.tick() != Tick::MAX).then_some(Deadline { alarm, timeout });
        }
        Ok(limits)
    }

    /// The same deadline under another token.
    pub(crate) fn under(&self, token: CancellationToken) -> Self {
        let mut limits = Self::by_token(token);
        limits.deadline = self
            .deadline
            .as_ref()
            .map(|deadline| Deadline { alarm: deadline.alarm.again(), timeout: deadline.timeout });
        limits
    }

    /// Without a deadline.
    pub(crate) fn by_token(token: CancellationToken) -> Self {
        Self { cancelled: token.cancelled(), token, deadline: None }
    }

    /// Whether the operation is to end: asked without waiting for it.
    #[inline]
    pub(crate) fn exceeded(&self) -> Option<Exceeded> {
        if self.token.is_cancelled() {
            return Some(Exceeded::Cancelled(self.token.error()));
        }
        let deadline = self.deadline.as_ref()?;
        deadline.alarm.is_due().then_some(Exceeded::TimedOut(deadline.timeout))
    }

    /// Waits until the operation is to end: what is polled last is what is woken.
    pub(crate) fn poll_exceeded(&mut self, cx: &mut Context<'_>) -> Poll<Exceeded> {
        if Pin::new(&mut self.cancelled).poll(cx).is_ready() {
            return Poll::Ready(Exceeded::Cancelled(self.token.error()));
        }
        let Some(deadline) = &mut self.deadline else { return Poll::Pending };
        deadline.alarm.poll(cx).map(|()| Exceeded::TimedOut(deadline.timeout))
    }
}

/// Why an operation is to end.
#[derive(Debug)]
pub(crate) enum Exceeded {
    /// By the token, whose error this is.
    Cancelled(Error),
    TimedOut(Duration),
}

impl Exceeded {
    /// The error of the operation `what`, such as "the drain".
    pub(crate) fn into_error(self, what: &str) -> Error {
        match self {
            Self::Cancelled(error) => error,
            Self::TimedOut(timeout) => Error::timeout(what, timeout),
        }
    }
}
