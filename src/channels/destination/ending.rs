//! How an operation that writes to destinations ends: it closes or flushes them.
//!
//! On success it waits for that as long as its limits allow. After an error it waits for up to the
//! grace, and what goes wrong meanwhile is attached to the error.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::cancellation::CancellationToken;
use crate::clock::{Alarm, Clock};
use crate::error::Error;
use crate::operation::{DEFAULT_GRACE, Limits};
use crate::panics;

/// The options that all such operations have.
#[derive(Clone, Debug)]
pub(in super::super) struct Settings {
    pub(in super::super) timeout: Option<Duration>,
    pub(in super::super) cancellation: CancellationToken,
    pub(in super::super) keep_open: bool,
    pub(in super::super) grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: None,
            cancellation: CancellationToken::never(),
            keep_open: false,
            grace: DEFAULT_GRACE,
        }
    }
}

pub(in super::super) struct Ending {
    error: Option<Error>,
    grace: Option<Alarm>,
    /// There is nothing to wait for any more.
    over: bool,
}

impl Ending {
    /// Ends with success or an error. One whose destination `is_over` closes nothing.
    pub(in super::super) fn new(error: Option<Error>, is_over: bool) -> Self {
        Self { error, grace: None, over: is_over }
    }

    /// One more thing that went wrong.
    pub(in super::super) fn add(&mut self, error: Error) {
        self.error = Some(match self.error.take() {
            Some(first) => first.with_related([error]),
            None => error,
        });
    }

    /// Waits for nothing any more.
    pub(in super::super) fn give_up(&mut self) {
        self.over = true;
    }

    /// Whether it waits for nothing any more.
    pub(in super::super) fn is_over(&self) -> bool {
        self.over
    }

    pub(in super::super) fn into_error(self) -> Option<Error> {
        self.error
    }

    /// Goes on with `close` until it is done, or waited for long enough.
    pub(in super::super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        what: &str,
        clock: &Arc<dyn Clock>,
        grace: Duration,
        limits: &mut Limits,
        close: impl FnOnce(&mut Context<'_>) -> Poll<Result<(), Error>>,
    ) -> Poll<()> {
        if self.over {
            return Poll::Ready(());
        }
        let closed = panics::contain(|| close(cx))
            .unwrap_or_else(|message| Poll::Ready(Err(Error::panic("the destination", &message))));
        if let Poll::Ready(result) = closed {
            self.over = true;
            if let Err(error) = result {
                self.add(error);
            }
            return Poll::Ready(());
        }
        if self.error.is_none() {
            let Poll::Ready(exceeded) = limits.poll_exceeded(cx) else { return Poll::Pending };
            self.error = Some(exceeded.into_error(what));
        }
        let sleep = self.grace.get_or_insert_with(|| Alarm::grace(clock, grace));
        if sleep.poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.over = true;
        self.add(Error::timeout("closing the destination", grace));
        Poll::Ready(())
    }
}
