//! Every schedule of a few threads over what they share.
//!
//! A model that would have too many schedules is bounded in how often a thread is interrupted while
//! it could go on; the bound is printed with the number of schedules. `LOOM_MAX_PREEMPTIONS` sets
//! another one, and `WATERSHED_PROOF=long` allows one more.

mod bells;
mod broadcast;
mod cancellation;
mod drain;
mod group;
mod ready;
mod rollback;
mod scope;
mod step;
mod waits;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Interruptions beyond the bound of a model with `WATERSHED_PROOF=long`.
fn more_interruptions() -> usize {
    usize::from(std::env::var("WATERSHED_PROOF").is_ok_and(|proof| proof == "long"))
}

/// Runs `scene` under every schedule with at most so many interruptions; `None`: under all.
pub(crate) fn every_schedule(
    name: &'static str,
    interruptions: Option<usize>,
    scene: impl Fn() + Send + Sync + 'static,
) {
    let schedules = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&schedules);
    let mut checker = loom::model::Builder::new();
    checker.max_branches = 50_000;
    checker.preemption_bound =
        checker.preemption_bound.or(interruptions.map(|most| most + more_interruptions()));
    let bound = checker.preemption_bound.map_or("any number of".into(), |most| most.to_string());
    let contained = crate::diagnostics::Snapshot::now().contained_panics;
    checker.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        scene();
        // What the checker has to say may come as a panic where the library contains them.
        assert_eq!(crate::diagnostics::Snapshot::now().contained_panics, contained);
    });
    let schedules = schedules.load(Ordering::Relaxed);
    println!("loom: {name}: {schedules} schedules with {bound} interruptions");
}
