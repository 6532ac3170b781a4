//! Which priorities have a source that is known to be ready.
//!
//! A source is known to be ready from a message on until it has nothing. As long as one is, the
//! turns of less urgent ones are one message long: slow, and never starved. What counts a priority
//! goes with its last source.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Urgency {
    /// By priority, the most urgent first: how many sources there are.
    sources: BTreeMap<u32, usize>,
    /// How many of them are known to be ready; priorities that have any.
    ready: BTreeMap<u32, usize>,
}

impl Urgency {
    pub(crate) fn enter(&mut self, priority: u32) {
        *self.sources.entry(priority).or_default() += 1;
    }

    pub(crate) fn leave(&mut self, priority: u32, known: &mut bool) {
        self.set_ready(priority, known, false);
        decrement(&mut self.sources, priority);
    }

    /// Whether there are sources of different priorities.
    #[inline]
    pub(crate) fn is_mixed(&self) -> bool {
        self.sources.len() > 1
    }

    /// Whether a source of this priority has to wait for more urgent ones.
    pub(crate) fn is_outranked(&self, priority: u32) -> bool {
        self.is_mixed() && self.ready.first_key_value().is_some_and(|(first, _)| *first < priority)
    }

    /// Whether there is none more urgent, and one that is less.
    pub(crate) fn is_first(&self, priority: u32) -> bool {
        self.is_mixed()
            && self.sources.last_key_value().is_some_and(|(last, _)| *last > priority)
            && !self.is_outranked(priority)
    }

    /// Notes that a source has become ready, or is not any more.
    #[inline]
    pub(crate) fn set_ready(&mut self, priority: u32, known: &mut bool, ready: bool) {
        if *known == ready || (ready && !self.is_mixed()) {
            return;
        }
        *known = ready;
        if ready {
            *self.ready.entry(priority).or_default() += 1;
        } else {
            decrement(&mut self.ready, priority);
        }
    }
}

fn decrement(counts: &mut BTreeMap<u32, usize>, priority: u32) {
    if let Some(count) = counts.get_mut(&priority) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&priority);
        }
    }
}
