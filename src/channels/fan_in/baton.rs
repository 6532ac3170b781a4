//! What the lanes of one drain share.
//!
//! Lanes are polled one at a time, so what they change together needs no lock while they run: it
//! is a baton, taken out of its slot by the lane whose turn it is and put back when the turn ends.
//! The slot's lock is held for the moment of the exchange only, never while user code runs.

use super::permits::Permits;
use super::report::SourceReport;
use super::settings::Settings;
use crate::cancellation::CancellationToken;
use crate::clock::Tick;
use crate::compensation::CompensationScope;
use crate::context::StepContext;
use crate::diagnostics::COUNTERS;
use crate::error::Error;
use crate::lock::Lock;

/// What belongs to the whole drain: read by all, and the slot of the baton.
pub(super) struct Shared<H, D> {
    pub(super) context: StepContext,
    /// The drain's number, which marks the actions that its messages staged.
    pub(super) owner: u64,
    pub(super) settings: Settings,
    /// What ends the drain from outside.
    pub(super) outer: CancellationToken,
    /// What the handlers are told to stop by.
    pub(super) token: CancellationToken,
    pub(super) deadline: Option<Tick>,
    slot: Lock<Option<Box<Baton<H, D>>>>,
}

impl<H, D> Shared<H, D> {
    pub(super) fn scope(&self) -> &CompensationScope {
        self.context.scope()
    }

    pub(super) fn take(&self) -> Option<Box<Baton<H, D>>> {
        self.slot.lock().take()
    }

    pub(super) fn put(&self, baton: Box<Baton<H, D>>) {
        *self.slot.lock() = Some(baton);
    }
}

/// What the lanes change.
pub(super) struct Baton<H, D> {
    pub(super) handler: H,
    pub(super) dead_letter: D,
    pub(super) permits: Permits,
    /// Messages that this poll of the drain may still start.
    pub(super) budget: usize,
    pub(super) in_flight: usize,
    /// Handlers that were dropped when the drain ended.
    pub(super) dropped: usize,
    /// No further message is taken.
    pub(super) stopping: bool,
    pub(super) failures: Vec<Error>,
    pub(super) reports: Vec<SourceReport>,
    pub(super) tally: Tally,
}

/// Results since the counters of the process were last told.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) cleared: usize,
}

impl Tally {
    pub(super) fn flush(&mut self) {
        COUNTERS.messages_succeeded.add(self.succeeded);
        COUNTERS.messages_failed.add(self.failed);
        COUNTERS.compensations_cleared.add(self.cleared as u64);
        *self = Self::default();
    }
}

/// The parts of a drain at its first poll.
pub(super) struct Start<H, D> {
    pub(super) context: StepContext,
    pub(super) owner: u64,
    pub(super) settings: Settings,
    pub(super) outer: CancellationToken,
    pub(super) token: CancellationToken,
    pub(super) deadline: Option<Tick>,
    pub(super) handler: H,
    pub(super) dead_letter: D,
    pub(super) reports: Vec<SourceReport>,
}

impl<H, D> Start<H, D> {
    pub(super) fn share(self) -> Shared<H, D> {
        let baton = Baton {
            permits: Permits::new(self.settings.concurrency.get(), self.reports.len()),
            handler: self.handler,
            dead_letter: self.dead_letter,
            budget: 0,
            in_flight: 0,
            dropped: 0,
            stopping: false,
            failures: Vec::new(),
            reports: self.reports,
            tally: Tally::default(),
        };
        Shared {
            context: self.context,
            owner: self.owner,
            settings: self.settings,
            outer: self.outer,
            token: self.token,
            deadline: self.deadline,
            slot: Lock::new(Some(Box::new(baton))),
        }
    }
}
