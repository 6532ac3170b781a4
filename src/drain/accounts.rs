//! Where the messages of a drain are.
//!
//! Messages whose handler never waits are booked once a turn; all others when something becomes of
//! them. Where somebody watches the drain, every change is told at once.

use super::progress::Progress;
use super::report::{Counts, Dropped, FanInReport, SourceReport};
use crate::diagnostics::COUNTERS;
use crate::origin::SourceRef;
use crate::undo::CompensationScope;

/// Sources that have a row of their own in the report.
pub(super) const MOST_ROWS: usize = 4_096;

/// The row of a source that has none.
pub(super) const NO_ROW: u32 = u32::MAX;

#[derive(Default)]
pub(super) struct Accounts {
    pub(super) total: Counts,
    pub(super) dropped: Dropped,
    rows: Vec<SourceRow>,
    watch: Option<Progress>,
    /// What the counters of the process were told.
    told: Counts,
    /// Permits that failed messages keep, because too many wait, and how many there are.
    kept: usize,
    permits: usize,
}

struct SourceRow {
    source: SourceRef,
    /// Made with the first message.
    counts: Option<Box<Counts>>,
}

impl Accounts {
    pub(super) fn new(watch: Option<Progress>, permits: usize) -> Self {
        Self { watch, permits, ..Self::default() }
    }

    /// Makes room for sources that are about to come.
    pub(super) fn reserve(&mut self, sources: usize) {
        self.rows.reserve_exact(sources.min(MOST_ROWS));
    }

    /// Adds a source, and returns its row.
    pub(super) fn add_source(&mut self, source: &SourceRef) -> u32 {
        if self.rows.len() == MOST_ROWS {
            return NO_ROW;
        }
        if let Some(watch) = &self.watch {
            watch.add_source(source);
        }
        self.rows.push(SourceRow { source: source.clone(), counts: None });
        u32::try_from(self.rows.len() - 1).unwrap_or(NO_ROW)
    }

    /// The scope of a slot's messages, for whoever watches.
    pub(super) fn add_scope(&self, scope: &CompensationScope) {
        if let Some(watch) = &self.watch {
            watch.add_scope(scope);
        }
    }

    /// Whether every message is to be booked at once.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    #[inline]
    pub(super) fn change(&mut self, row: u32, change: impl Fn(&mut Counts)) {
        change(&mut self.total);
        if let Some(row) = self.rows.get_mut(row as usize) {
            change(row.counts.get_or_insert_default());
        }
        if self.watch.is_some() {
            self.tell(row);
        }
    }

    #[cold]
    fn tell(&self, row: u32) {
        let counts = self.rows.get(row as usize).and_then(|row| row.counts.as_deref());
        if let Some(watch) = &self.watch {
            watch.tell(&self.total, row, counts);
        }
    }

    /// A failed message keeps its permit.
    #[cold]
    pub(super) fn keep_permit(&mut self) {
        self.kept += 1;
        if self.kept == self.permits {
            self.tell_kept(true);
        }
    }

    /// A failed message keeps its permit no longer.
    #[cold]
    pub(super) fn free_permit(&mut self) {
        if self.kept == self.permits {
            self.tell_kept(false);
        }
        self.kept -= 1;
    }

    fn tell_kept(&self, all: bool) {
        if let Some(watch) = &self.watch {
            watch.tell_kept(all);
        }
    }

    /// Tells the counters of the process what has come since the last time.
    pub(super) fn flush(&mut self) {
        let (now, told) = (self.total, self.told);
        COUNTERS.messages_succeeded.add(now.handled - told.handled);
        COUNTERS.messages_failed.add(now.failed - told.failed);
        COUNTERS.messages_unfinished.add(now.unfinished - told.unfinished);
        self.told = now;
    }

    /// Hands everything over to the report of a drain that has ended.
    pub(super) fn close(&mut self, report: &mut FanInReport) {
        self.flush();
        report.total = self.total;
        report.dropped = self.dropped;
        let rows = std::mem::take(&mut self.rows).into_iter();
        let rows = rows.map(|SourceRow { source, counts }| SourceReport {
            source,
            counts: counts.map_or_else(Counts::default, |counts| *counts),
        });
        report.sources = rows.collect();
    }
}
