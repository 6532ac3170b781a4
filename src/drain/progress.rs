//! Watching a drain while it runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::report::{Counts, FanInReport, SourceReport, Warning};
use crate::clock::{Clock, Tick};
use crate::lock::Lock;
use crate::origin::SourceRef;
use crate::settlement::Desk;
use crate::undo::{CompensationScope, DrainScope, WeakScope};

/// Shows what a drain has done so far, from any thread, at any moment.
///
/// Hand it to one drain by [`FanIn::progress`](crate::FanIn::progress) and keep a clone. A drain that
/// is watched books every message at once, which costs two short locks a message; one that is not
/// watched pays nothing.
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{BoxError, Progress, StepContext, fan_in};
///
/// let (context, progress) = (StepContext::new("orders"), Progress::new());
/// fan_in(&context, [stream::iter([7, 8])], async |order, _| {
///     let now = progress.report();
///     assert_eq!((now.handled(), now.in_flight()), (order - 7, 1));
///     Ok::<_, BoxError>(())
/// })
/// .progress(&progress)
/// .await?;
/// assert_eq!(progress.report().handled(), 2);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Progress {
    shared: Arc<Lock<Watched>>,
}

#[derive(Default)]
struct Watched {
    report: FanInReport,
    /// Failed messages keep every permit, because too many wait for their next attempt.
    all_kept: bool,
    /// Since when the drain runs, while it does.
    running: Option<(Arc<dyn Clock>, Tick)>,
    /// The scopes in which it stages.
    scopes: Vec<WeakScope>,
    /// Its transports.
    desks: Vec<Arc<dyn Desk>>,
    /// What came from steps that somebody kept.
    late: Arc<AtomicU64>,
}

impl Progress {
    /// A view of a drain that has not started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the drain has done so far; what it did, once it has ended. The counts are those of one
    /// moment, and the messages [taken](FanInReport::taken) never become fewer.
    ///
    /// ```
    /// assert_eq!(watershed::Progress::new().report().taken(), 0);
    /// ```
    #[must_use]
    pub fn report(&self) -> FanInReport {
        let (mut report, running, scopes, desks, late, all_kept) = {
            let watched = self.shared.lock();
            let scopes: Vec<_> = watched.scopes.iter().filter_map(WeakScope::upgrade).collect();
            let late = watched.late.load(Ordering::Relaxed);
            let (report, running) = (watched.report.clone(), watched.running.clone());
            (report, running, scopes, watched.desks.clone(), late, watched.all_kept)
        };
        if let Some((clock, started)) = running {
            report.elapsed = clock.now().since(started);
            report.late = late;
            for desk in &desks {
                report.settlements.add(&desk.settlements());
            }
            // That of the drain, which is the first, comes last: actions move there from the others.
            report.staged = scopes.iter().rev().map(|scope| scope.len() as u64).sum();
            if all_kept {
                report.warnings.push(super::warnings::all_permits_are_kept());
            }
        }
        report
    }

    pub(super) fn start(
        &self,
        clock: &Arc<dyn Clock>,
        started: Tick,
        scope: &DrainScope,
        warnings: Vec<Warning>,
    ) {
        let mut watched = self.shared.lock();
        watched.report = FanInReport { warnings, ..FanInReport::default() };
        watched.running = Some((Arc::clone(clock), started));
        watched.scopes = vec![scope.scope().downgrade()];
        watched.late = Arc::clone(scope.late_counter());
        watched.all_kept = false;
        let old = std::mem::take(&mut watched.desks);
        drop(watched);
        drop(old);
    }

    /// Another transport.
    pub(super) fn add_desk(&self, desk: &Arc<dyn Desk>) {
        self.shared.lock().desks.push(Arc::clone(desk));
    }

    /// Another scope of a message.
    pub(super) fn add_scope(&self, scope: &CompensationScope) {
        let mut watched = self.shared.lock();
        let mut alive = Vec::new();
        if watched.scopes.len() == watched.scopes.capacity() {
            watched.scopes.retain(|scope| {
                let scope = scope.upgrade();
                let is_alive = scope.is_some();
                alive.extend(scope);
                is_alive
            });
        }
        watched.scopes.push(scope.downgrade());
        drop(watched);
        // One of these may be the last handle meanwhile: what is staged is somebody else's.
        drop(alive);
    }

    pub(super) fn add_source(&self, source: &SourceRef) {
        let row = SourceReport { source: source.clone(), counts: Counts::default() };
        self.shared.lock().report.sources.push(row);
    }

    pub(super) fn tell(&self, total: &Counts, row: u32, counts: Option<&Counts>) {
        let mut watched = self.shared.lock();
        watched.report.total = *total;
        if let (Some(row), Some(counts)) = (watched.report.sources.get_mut(row as usize), counts) {
            row.counts = *counts;
        }
    }

    /// Whether failed messages keep every permit.
    pub(super) fn tell_kept(&self, all: bool) {
        self.shared.lock().all_kept = all;
    }

    pub(super) fn finish(&self, report: &FanInReport) {
        let report = report.clone();
        let (clock, _scopes, desks) = {
            let mut watched = self.shared.lock();
            watched.report = report;
            let scopes = std::mem::take(&mut watched.scopes);
            (watched.running.take(), scopes, std::mem::take(&mut watched.desks))
        };
        // The clock is the user's, and so are transports: they go away after the lock.
        crate::panics::drop_contained(|| drop(clock));
        crate::panics::drop_each(desks);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("total", &self.shared.lock().report.total).finish()
    }
}
