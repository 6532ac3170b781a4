//! What ends an operation from outside: its token and its deadline.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::cancellation::{CancellationToken, Cancelled};
use crate::clock::{Clock, Sleep, Tick};
use crate::error::Error;

/// The token and the deadline of one operation, from its first poll on.
pub(crate) struct Limits {
    token: CancellationToken,
    cancelled: Cancelled,
    deadline: Option<Deadline>,
}

struct Deadline {
    clock: Arc<dyn Clock>,
    at: Tick,
    timeout: Duration,
    sleep: Sleep,
}

impl Limits {
    /// The timeout counts from now; one without end sets no timer.
    pub(crate) fn new(
        clock: &Arc<dyn Clock>,
        token: CancellationToken,
        timeout: Option<Duration>,
    ) -> Self {
        let deadline = timeout.and_then(|timeout| {
            let at = clock.now() + timeout;
            let clock = Arc::clone(clock);
            (at != Tick::MAX).then(|| Deadline { sleep: clock.sleep_until(at), clock, at, timeout })
        });
        Self { cancelled: token.cancelled(), token, deadline }
    }

    /// The moment at which the time is over; [`Tick::MAX`] for never.
    pub(crate) fn deadline(&self) -> Tick {
        self.deadline.as_ref().map_or(Tick::MAX, |deadline| deadline.at)
    }

    /// Whether the operation is to end: asked without waiting for it.
    #[inline]
    pub(crate) fn exceeded(&self) -> Option<Exceeded> {
        if self.token.is_cancelled() {
            return Some(Exceeded::Cancelled);
        }
        let deadline = self.deadline.as_ref()?;
        (deadline.clock.now() >= deadline.at).then_some(Exceeded::TimedOut(deadline.timeout))
    }

    /// Waits until the operation is to end. The sleep's word counts as well as the clock's: one
    /// that has stepped back must not hold the operation.
    pub(crate) fn poll_exceeded(&mut self, cx: &mut Context<'_>) -> Poll<Exceeded> {
        if let Some(exceeded) = self.exceeded() {
            return Poll::Ready(exceeded);
        }
        if Pin::new(&mut self.cancelled).poll(cx).is_ready() {
            return Poll::Ready(Exceeded::Cancelled);
        }
        let Some(deadline) = &mut self.deadline else { return Poll::Pending };
        deadline.sleep.as_mut().poll(cx).map(|()| Exceeded::TimedOut(deadline.timeout))
    }
}

/// Why an operation is to end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exceeded {
    Cancelled,
    TimedOut(Duration),
}

impl Exceeded {
    /// The error of the operation `what`, such as "the drain".
    pub(crate) fn into_error(self, what: &str) -> Error {
        match self {
            Self::Cancelled => Error::canceled(),
            Self::TimedOut(timeout) => Error::timeout(what, timeout),
        }
    }
}
