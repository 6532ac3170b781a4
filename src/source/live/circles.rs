//! Handlers that wait for the ends of each other's sources.
//!
//! A source ends when what runs of it has ended. So those whose handlers wait for each other, over
//! however many sources and drains, would wait for themselves: whoever would close such a circle is told
//! so. Nobody comes by here but handlers that wait for the end of a source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::origin::SourceId;

/// All waits of the process. Its lock is that of `std` under model checkers, too: nothing is woken by it.
static WAITS: Mutex<Waits> = Mutex::new(Waits { next: 0, ends: BTreeMap::new() });

struct Waits {
    next: u64,
    /// By the source of the handler and the number of the wait: for which one.
    ends: BTreeMap<(SourceId, u64), SourceId>,
}

impl Waits {
    fn lock() -> MutexGuard<'static, Self> {
        WAITS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the end of `source` waits for that of one of these.
    fn leads(&self, source: SourceId, to: &[SourceId]) -> bool {
        let (mut seen, mut left) = (BTreeSet::new(), vec![source]);
        while let Some(source) = left.pop() {
            if to.contains(&source) {
                return true;
            }
            if seen.insert(source) {
                left.extend(self.ends.range((source, 0)..=(source, u64::MAX)).map(|(_, end)| *end));
            }
        }
        false
    }
}

/// A handler waits for the end of a source, as long as this is there.
pub(super) struct EndWait {
    number: u64,
    /// The sources of the handler, and of those within which its drain is polled.
    handled: Vec<SourceId>,
}

impl EndWait {
    /// `None`: it would wait for itself.
    pub(super) fn begin(handled: Vec<SourceId>, source: SourceId) -> Option<Self> {
        let mut waits = Waits::lock();
        if waits.leads(source, &handled) {
            return None;
        }
        waits.next += 1;
        let number = waits.next;
        waits.ends.extend(handled.iter().map(|of| ((*of, number), source)));
        Some(Self { number, handled })
    }

    /// Whether it is that of a handler of these.
    pub(super) fn is_of(&self, handled: &[SourceId]) -> bool {
        self.handled == handled
    }
}

impl Drop for EndWait {
    fn drop(&mut self) {
        let mut waits = Waits::lock();
        for of in &self.handled {
            waits.ends.remove(&(*of, self.number));
        }
    }
}
