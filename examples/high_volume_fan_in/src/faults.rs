//! Failures on request, by `--fail-at` and `--fail-one-in`.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::EventError;
use crate::input::Message;

/// Which handlers are to fail.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    at: Option<NonZeroU64>,
    one_in: Option<NonZeroU32>,
    emitted: AtomicU64,
    /// The message that `at` has met.
    failing: OnceLock<(u32, u32)>,
}

impl Faults {
    pub(crate) fn new(at: Option<NonZeroU64>, one_in: Option<NonZeroU32>) -> Self {
        Self { at, one_in, ..Self::default() }
    }

    /// How many domain events were emitted.
    pub(crate) fn emitted(&self) -> u64 {
        self.emitted.load(Ordering::Relaxed)
    }

    /// Fails for the message that emitted the `--fail-at`-th event, each time that it is tried.
    pub(crate) fn behind_the_event(&self, message: &Message) -> Result<(), EventError> {
        let this = (message.feed.id, message.position);
        let number = self.emitted.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(at) = self.at.map(NonZeroU64::get) else { return Ok(()) };
        if number == at {
            // Nothing else sets it: one event has this number.
            let _ = self.failing.set(this);
        }
        if self.failing.get() == Some(&this) {
            return Err(EventError::Planned { origin: message.origin(), number: at });
        }
        Ok(())
    }

    /// Fails for one of `--fail-one-in` effects.
    pub(crate) fn by_chance(&self, message: &Message) -> Result<(), EventError> {
        match self.one_in {
            Some(one_in) if fastrand::u32(0..one_in.get()) == 0 => {
                Err(EventError::Chance { origin: message.origin() })
            }
            _ => Ok(()),
        }
    }
}
