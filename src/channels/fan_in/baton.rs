//! What the lanes of one drain share.
//!
//! Lanes are polled one at a time, so what they change together needs no lock while they run: it
//! is a baton, taken out of its slot by the lane whose turn it is and put back when the turn ends.
//! The slot's lock is held for the moment of the exchange only, never while user code runs.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use super::message_step::MessageStep;
use super::permits::Permits;
use super::report::SourceReport;
use super::settings::Settings;
use super::urgency::Urgency;
use crate::cancellation::CancellationToken;
use crate::compensation::CompensationScope;
use crate::context::StepContext;
use crate::diagnostics::COUNTERS;
use crate::error::Error;
use crate::limits::Bounds;
use crate::lock::Lock;

/// Messages after which a poll of a drain begins no further turn, and lets the executor have its
/// thread back; also the longest turn of a source without a weight.
pub(super) const MESSAGES_PER_POLL: usize = 256;

/// What belongs to the whole drain: read by all, and the slot of the baton.
pub(super) struct Shared<H, D> {
    pub(super) context: StepContext,
    /// The drain's number, which marks the actions that its success clears; 0 if it clears none.
    pub(super) owner: u64,
    pub(super) settings: Settings,
    /// What the handlers are told to stop by.
    pub(super) token: CancellationToken,
    /// What ends the drain from outside.
    pub(super) bounds: Bounds,
    /// Whether a poll of the drain has begun and no lane had its turn in it.
    pub(super) fresh: AtomicBool,
    pub(super) slot: Lock<Option<Box<Baton<H, D>>>>,
}

impl<H, D> Shared<H, D> {
    pub(super) fn scope(&self) -> &CompensationScope {
        self.context.scope()
    }

    pub(super) fn take(&self) -> Option<Box<Baton<H, D>>> {
        self.slot.lock().take()
    }

    /// The baton for a turn: the first one of a poll finds a new budget.
    pub(super) fn take_for_turn(&self) -> Option<Box<Baton<H, D>>> {
        let mut baton = self.take()?;
        // Lanes are polled by the drain alone, on its thread: nobody comes in between.
        if self.fresh.load(Ordering::Relaxed) {
            self.fresh.store(false, Ordering::Relaxed);
            baton.budget = MESSAGES_PER_POLL;
        }
        Some(baton)
    }

    /// For the drain, between two turns.
    pub(super) fn borrow<T>(&self, look: impl FnOnce(&mut Baton<H, D>) -> T) -> Result<T, Error> {
        let Some(mut baton) = self.take() else {
            return Err(Error::panic("the clock", "the drain lost its state"));
        };
        let seen = look(&mut baton);
        self.put(baton);
        Ok(seen)
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
    /// Messages after which this poll of the drain begins no further turn.
    pub(super) budget: usize,
    pub(super) in_flight: usize,
    /// Handlers that were dropped when the drain ended.
    pub(super) dropped: usize,
    /// No further message is taken.
    pub(super) stopping: bool,
    pub(super) failures: Vec<Error>,
    pub(super) reports: Vec<SourceReport>,
    pub(super) tally: Tally,
    pub(super) urgency: Urgency,
    /// Contexts that no lane needs just now.
    pub(super) spare: Vec<MessageStep>,
}

impl<H, D> Baton<H, D> {
    pub(super) fn new(handler: H, dead_letter: D, concurrency: NonZeroUsize) -> Self {
        Self {
            handler,
            dead_letter,
            permits: Permits::new(concurrency.get()),
            budget: 0,
            in_flight: 0,
            dropped: 0,
            stopping: false,
            failures: Vec::new(),
            reports: Vec::new(),
            urgency: Urgency::default(),
            tally: Tally::default(),
            spare: Vec::new(),
        }
    }
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
