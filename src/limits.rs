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
    bounds: Bounds,
    cancelled: Cancelled,
    sleep: Option<Sleep>,
}

/// Limits that nobody waits for: they can only be asked.
#[derive(Clone)]
pub(crate) struct Bounds {
    token: CancellationToken,
    deadline: Option<Deadline>,
}

#[derive(Clone)]
struct Deadline {
    clock: Arc<dyn Clock>,
    at: Tick,
    timeout: Duration,
}

impl Bounds {
    /// Whether the operation is to end.
    #[inline]
    pub(crate) fn exceeded(&self) -> Option<Exceeded> {
        if self.token.is_cancelled() {
            return Some(Exceeded::Cancelled);
        }
        let deadline = self.deadline.as_ref()?;
        (deadline.clock.now() >= deadline.at).then_some(Exceeded::TimedOut(deadline.timeout))
    }
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
            (at != Tick::MAX).then(|| Deadline { clock: Arc::clone(clock), at, timeout })
        });
        let sleep = deadline.as_ref().map(|deadline| clock.sleep_until(deadline.at));
        Self { cancelled: token.cancelled(), bounds: Bounds { token, deadline }, sleep }
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The moment at which the time is over; [`Tick::MAX`] for never.
    pub(crate) fn deadline(&self) -> Tick {
        self.bounds.deadline.as_ref().map_or(Tick::MAX, |deadline| deadline.at)
    }

    /// Whether the operation is to end: asked without waiting for it.
    #[inline]
    pub(crate) fn exceeded(&self) -> Option<Exceeded> {
        self.bounds.exceeded()
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
        let (Some(deadline), Some(sleep)) = (&self.bounds.deadline, &mut self.sleep) else {
            return Poll::Pending;
        };
        sleep.as_mut().poll(cx).map(|()| Exceeded::TimedOut(deadline.timeout))
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
