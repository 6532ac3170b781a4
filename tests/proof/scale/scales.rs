//! What a crowd costs: ten times as many take ten times the memory and the time, and leave nothing behind.
//! Bytes and allocations are counted, in a process of its own for each.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::bytes::{allocations, held};
use crate::effort::effort;
use crate::support::{Gate, Hand};

/// What a crowd has cost.
#[derive(Debug)]
struct Cost {
    /// Bytes when all of it is there.
    bytes: i64,
    allocations: u64,
    /// Bytes that are left when it is gone.
    left: i64,
    time: Duration,
}

/// Looks at the bytes when all of a crowd is there.
pub(super) struct Scales {
    start: i64,
    most: Cell<i64>,
}

impl Scales {
    pub(super) fn all_are_here(&self) {
        self.most.set(self.most.get().max(held() - self.start));
    }
}

/// The time for which this thread has run, where the system tells; else that of the wall.
fn thread_time(since: Instant) -> Duration {
    // It counts up to the last time that the thread has let another one run.
    std::thread::yield_now();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|told| told.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| since.elapsed(), Duration::from_nanos)
}

fn cost(size: usize, crowd: &impl Fn(usize, &Scales)) -> Cost {
    let start = Instant::now();
    let started = thread_time(start);
    let scales = Scales { start: held(), most: Cell::new(0) };
    let before = allocations();
    crowd(size, &scales);
    let (allocations, left) = (allocations() - before, held() - scales.start);
    let time = thread_time(start).saturating_sub(started).max(Duration::from_micros(50));
    Cost { bytes: scales.most.get(), allocations, left, time }
}

/// Where linear ends for ten times as many: buffers that double may be half empty in the one and full
/// in the other. Quadratic is a hundred.
const MEMORY: f64 = 21.0;

/// The same for the time, which caches make uneven, and others on the machine longer.
const TIME: f64 = 45.0;

/// Bytes that a crowd may leave behind: what a thread or the process keeps for later.
const LEFT: i64 = 16 << 10;

pub(super) fn linear(name: &str, crowd: impl Fn(usize, &Scales)) {
    let size = effort(500, 10_000, 10_000);
    crowd(10, &Scales { start: 0, most: Cell::new(0) });
    let (mut small, mut large) = (cost(size, &crowd), cost(10 * size, &crowd));
    for _ in 0..8 {
        // What else runs on the machine makes it slower, never faster.
        if large.time.as_secs_f64() < TIME * small.time.as_secs_f64() {
            break;
        }
        small.time = small.time.min(cost(size, &crowd).time);
        large.time = large.time.min(cost(10 * size, &crowd).time);
    }
    let each = large.bytes / (10 * size as i64);
    println!(
        "{name}: {} at once, {each} bytes and {:.1} allocations each, {:.1?} ({:.1?} for a tenth)",
        10 * size,
        large.allocations as f64 / (10 * size) as f64,
        large.time,
        small.time
    );
    assert!(large.bytes > 0 && large.left < LEFT, "{name}: {large:?}");
    let ratio = |large: f64, small: f64| large / small.max(1.0);
    let bytes = ratio(large.bytes as f64, small.bytes as f64);
    let allocations = ratio(large.allocations as f64, small.allocations as f64);
    let time = large.time.as_secs_f64() / small.time.as_secs_f64();
    assert!(bytes < MEMORY, "{name}: {bytes:.1} times the bytes");
    assert!(allocations < MEMORY, "{name}: {allocations:.1} times the allocations");
    assert!(time < TIME, "{name}: {time:.1} times the time");
}

macro_rules! crowds {
    ($($(#[$rule:meta])* $name:ident($size:ident, $scales:ident) $body:block)+) => {$(
        #[test]
        fn $name() {
            $crate::support::alone::alone(module_path!(), stringify!($name), || {
                $crate::scale::scales::linear(stringify!($name), |$size: usize, $scales: &$crate::scale::scales::Scales| $body);
            });
        }
    )+};
}

/// What comes of a future that waits, with all of its crowd, for the gate to open.
pub(super) fn finish_behind<F: Future>(gate: &Gate, future: F, scales: &Scales) -> F::Output {
    finish_after(|| gate.open(), future, scales)
}

/// The same, for whatever lets it go on.
pub(super) fn finish_after<F: Future>(
    goes_on: impl FnOnce(),
    future: F,
    scales: &Scales,
) -> F::Output {
    let mut hand = Hand::new(future);
    assert!(hand.run().is_pending());
    scales.all_are_here();
    goes_on();
    hand.finish()
}
