//! Very many schedules of larger scenes, one at random or with few but well placed interruptions.
//!
//! What happens in a scene is drawn from the seed of its schedule as well. A schedule that fails is
//! printed, with how to run it again.

mod live;
mod pipelines;
mod rollbacks;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

/// So many schedules of a scene, or ten times as many with `WATERSHED_PROOF=long`.
fn schedules(usual: usize) -> usize {
    let long = std::env::var("WATERSHED_PROOF").is_ok_and(|proof| proof == "long");
    if long { 10 * usual } else { usual }
}

const SEED: u64 = 0x57A7_E25E;

/// Returns how many effects it undid, or messages it handled, and how many it kept.
type Scene = fn() -> (usize, usize);

/// Interruptions at places drawn beforehand.
const DEPTH: usize = 3;

fn random_schedules(name: &str, what: &str, usual: usize, scene: Scene) {
    let scheduler = RandomScheduler::new_from_seed(SEED, schedules(usual));
    run([name, what, "random"], schedules(usual), scheduler, scene);
}

fn pct_schedules(name: &str, what: &str, usual: usize, scene: Scene) {
    let scheduler = PctScheduler::new_from_seed(SEED, DEPTH, schedules(usual));
    run([name, what, "PCT"], schedules(usual), scheduler, scene);
}

fn run(
    [name, what, kind]: [&str; 3],
    most: usize,
    scheduler: impl Scheduler + 'static,
    scene: Scene,
) {
    let mut config = Config::new();
    config.stack_size = 1 << 17;
    config.silence_warnings = true;
    let contained = crate::diagnostics::Snapshot::now().contained_panics;
    let sums = Arc::new([0, 0].map(AtomicUsize::new));
    let counted = Arc::clone(&sums);
    let explored = Runner::new(scheduler, config).run(move || {
        let (undone, kept) = scene();
        sums[0].fetch_add(undone, Ordering::Relaxed);
        sums[1].fetch_add(kept, Ordering::Relaxed);
        // What a scene asserts may be contained by the library.
        assert_eq!(crate::diagnostics::Snapshot::now().contained_panics, contained);
    });
    assert_eq!(explored, most);
    let [undone, kept] = counted.each_ref().map(|sum| sum.load(Ordering::Relaxed));
    assert!(undone > explored && kept > explored / 10);
    println!("shuttle: {name}: {explored} {kind} schedules, {undone} {what} and {kept} kept");
}

/// A number below this one, drawn from the seed of the schedule.
fn draw(below: usize) -> usize {
    thread_rng().gen_range(0..below)
}

/// Whether one of so many cases is this one.
fn one_in(cases: usize) -> bool {
    draw(cases) == 0
}
