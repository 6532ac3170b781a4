//! Handlers that wait for the ends of each other's sources.
//!
//! A source ends when what runs of it has ended. So those whose handlers wait for each other, over
//! however many sources and drains, would wait for themselves: whoever would close such a circle is told
//! so. Nobody comes by here but handlers that wait for the end of a source.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::origin::SourceId;

/// All waits of the process. Its lock is that of `std` under model checkers, too: nothing is woken by it.
static WAITS: Mutex<Waits> = Mutex::new(Waits(BTreeMap::new()));

/// By the source of the handlers and the one for whose end they wait: how many.
struct Waits(BTreeMap<(SourceId, SourceId), usize>);

impl Waits {
    fn lock() -> MutexGuard<'static, Self> {
        WAITS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For which ends handlers of this source wait.
    fn of(&self, source: SourceId) -> impl Iterator<Item = SourceId> {
        let waits = self.0.range((source, SourceId::FIRST)..);
        waits.map(|(wait, _)| *wait).take_while(move |(of, _)| *of == source).map(|(_, end)| end)
    }

    /// Whether the end of `source` waits for that of one of these.
    fn leads(&self, source: SourceId, to: &[SourceId]) -> bool {
        let (mut seen, mut left) = (BTreeSet::new(), vec![source]);
        while let Some(source) = left.pop() {
            if to.contains(&source) {
                return true;
            }
            if seen.insert(source) {
                left.extend(self.of(source));
            }
        }
        false
    }
}

/// A handler waits for the end of a source, as long as this is there.
pub(super) struct EndWait {
    /// The sources of the handler, and of those within which its drain is polled.
    handled: Vec<SourceId>,
    end: SourceId,
}

impl EndWait {
    /// `None`: it would wait for itself.
    pub(super) fn begin(handled: Vec<SourceId>, end: SourceId) -> Option<Self> {
        let mut waits = Waits::lock();
        if waits.leads(end, &handled) {
            return None;
        }
        for of in &handled {
            *waits.0.entry((*of, end)).or_default() += 1;
        }
        Some(Self { handled, end })
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
            if let Entry::Occupied(mut wait) = waits.0.entry((*of, self.end)) {
                *wait.get_mut() -= 1;
                if *wait.get() == 0 {
                    wait.remove();
                }
            }
        }
    }
}
