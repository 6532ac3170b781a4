//! After many failures in a row a source slows down.

use super::Transport;
use super::state::{Due, TransportState};
use crate::clock::Tick;

impl<T: Transport> TransportState<T> {
    /// After many failures in a row, taking slows down: how many those are beyond that.
    pub(super) fn count_failure(&mut self, id: u64) -> Option<u32> {
        let part = self.parts.get_mut(&id)?;
        part.failures += 1;
        self.failing += usize::from(part.failures == 1);
        let (after, _) = &self.options.slow_down;
        (part.failures + 1).checked_sub(*after).filter(|beyond| *beyond > 0)
    }

    /// Nothing more is taken of it before this moment.
    pub(super) fn slow_down(&mut self, id: u64, until: Tick) {
        if let Some(part) = self.parts.get_mut(&id) {
            part.slow_until = Some(until);
            self.set_alarm(until, Due::Part(id));
            self.wake_driver();
        }
    }

    pub(super) fn forget_failures(&mut self, id: u64) {
        if let Some(part) = self.parts.get_mut(&id) {
            self.failing -= usize::from(std::mem::take(&mut part.failures) > 0);
        }
    }
}
