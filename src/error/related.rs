//! The errors that are attached to another one: the first of them, and how many there were.
//!
//! What an error holds is bounded however long errors are attached to it. It keeps the first
//! [`MAX_RELATED`] that were attached to it, and behind all of them together as many again of those
//! that were attached to these; an error that gives up some of its own still counts them.

use super::Error;

/// How many related errors an [`Error`] keeps by value; every one beyond them is counted.
pub(crate) const MAX_RELATED: usize = 32;

#[derive(Clone, Debug, Default)]
pub(super) struct Related {
    kept: Vec<Error>,
    /// How many were attached, kept or not.
    total: u64,
    /// How many errors those that are kept hold below themselves.
    below: usize,
}

impl Related {
    pub(super) fn kept(&self) -> &[Error] {
        &self.kept
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn is_full(&self) -> bool {
        self.kept.len() == MAX_RELATED
    }

    /// Counts errors that nobody has kept.
    pub(super) fn count(&mut self, more: u64) {
        self.total = self.total.saturating_add(more);
    }

    pub(super) fn attach(&mut self, mut error: Error) {
        self.count(1);
        if self.is_full() {
            return;
        }
        error.trim(MAX_RELATED - self.below);
        self.below += error.held();
        self.kept.push(error);
    }

    /// How many errors are held here, on every level.
    pub(super) fn held(&self) -> usize {
        self.kept.len() + self.below
    }

    /// Gives up all but the first `room` of the errors that are held, by value alone.
    pub(super) fn trim(&mut self, mut room: usize) {
        let mut kept = 0;
        self.below = 0;
        for error in &mut self.kept {
            if room == 0 {
                break;
            }
            room -= 1;
            error.trim(room);
            room -= error.held();
            self.below += error.held();
            kept += 1;
        }
        self.kept.truncate(kept);
    }
}
