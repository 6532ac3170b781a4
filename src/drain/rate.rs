//! How many attempts may begin in a span of time.
//!
//! A log of the moments at which the last attempts began, no longer than the limit. Unused room is
//! not saved: a burst after a silence is no larger than the limit, and no span of that length, from
//! wherever it is measured, holds more.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Tick;

#[derive(Clone, Debug)]
pub(super) struct Rate {
    most: usize,
    per: Duration,
    begun: VecDeque<Tick>,
}

impl Rate {
    pub(super) fn new(most: usize, per: Duration) -> Self {
        Self { most, per, begun: VecDeque::new() }
    }

    /// How many attempts may begin now.
    pub(super) fn room(&mut self, now: Tick) -> usize {
        while self.begun.front().is_some_and(|first| *first + self.per <= now) {
            self.begun.pop_front();
        }
        self.most - self.begun.len().min(self.most)
    }

    /// When there will be room for one more, where there is none now.
    pub(super) fn next(&self) -> Tick {
        self.begun.front().map_or(Tick::ZERO, |first| *first + self.per)
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self, now: Tick) {
        // A clock that steps back does not make room.
        let now = self.begun.back().map_or(now, |last| now.max(*last));
        self.begun.push_back(now);
    }
}
