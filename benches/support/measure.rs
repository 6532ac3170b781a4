//! Measuring in turns: contender after contender, size after size, round after round.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_channel::Receiver;

use super::channels::Load;
use super::section::{Column, Contender};
use super::settings::Settings;

/// One figure of all contenders at one size.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) column: Column,
    pub(crate) figure: &'static str,
    pub(crate) series: Vec<Series>,
}

/// What came out for one contender, round by round.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) contender: Contender,
    pub(crate) rounds: Vec<f64>,
}

impl Series {
    pub(crate) fn median(&self) -> f64 {
        median(self.rounds.clone())
    }

    pub(crate) fn minimum(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The ratio of the medians: both took turns through all rounds of one run.
    pub(crate) fn ratio(&self, to: &Self) -> f64 {
        self.median() / to.median()
    }
}

impl Measured {
    pub(crate) fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.contender.name == name)
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Lets the contenders take turns.
///
/// Every round begins with another one, so that nobody always follows the same neighbour's heap. A
/// round goes through all sizes, so that they can be compared as well.
pub(crate) fn in_turns(
    settings: &Settings,
    figures: &'static [&'static str],
    columns: &[Column],
    contenders: &[&Contender],
) -> Vec<Measured> {
    let mut measured: Vec<_> = columns
        .iter()
        .flat_map(|&column| figures.iter().map(move |&figure| (column, figure)))
        .map(|(column, figure)| {
            let series = contenders.iter().map(|&&contender| {
                let rounds = Vec::new();
                Series { contender, rounds }
            });
            Measured { column, figure, series: series.collect() }
        })
        .collect();
    // One round that does not count.
    let warm_up = usize::from(!settings.is_quick());
    for round in 0..warm_up + settings.rounds() as usize {
        for (place, &column) in columns.iter().enumerate() {
            let load = settings.load(column);
            for turn in 0..contenders.len() {
                let turn = (round + turn) % contenders.len();
                let came_out = (contenders[turn].once)(load);
                assert_eq!(came_out.len(), figures.len(), "{}", contenders[turn].name);
                if round < warm_up {
                    continue;
                }
                let measured = &mut measured[place * figures.len()..];
                for (measured, figure) in measured.iter_mut().zip(came_out) {
                    measured.series[turn].rounds.push(figure);
                }
            }
        }
    }
    measured
}

/// Fills the channels, and times how long `drain` takes to empty them.
///
/// # Panics
///
/// When `drain` does not return the sum of all messages.
pub(crate) fn draining(load: Load, drain: impl FnOnce(Vec<Receiver<u64>>) -> u64) -> Vec<f64> {
    let channels = load.channels();
    let (sum, took) = timing(move || drain(channels));
    assert_eq!(sum, load.sum(), "every message is handled once");
    load.each(took)
}

/// Times `run`.
pub(crate) fn timing<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let (mut run, mut result) = (Some(run), None);
    let took = timed(&mut || result = run.take().map(|run| run()));
    (black_box(result).expect("it has run"), took)
}

/// What a profiler may restrict itself to by name.
#[inline(never)]
fn timed(run: &mut dyn FnMut()) -> Duration {
    let on_cpu = COUNTS_CPU_TIME.load(Ordering::Relaxed).then(cpu_time).flatten();
    let start = Instant::now();
    run();
    let took = start.elapsed();
    on_cpu.and_then(|before| cpu_time()?.checked_sub(before)).unwrap_or(took)
}

/// Whether [`timing`] gives the time that the thread had a processor, where that can be known.
pub(crate) static COUNTS_CPU_TIME: AtomicBool = AtomicBool::new(false);

/// For how long this thread had a processor so far, as Linux tells it.
fn cpu_time() -> Option<Duration> {
    // A thread that yields has its time brought up to date.
    std::thread::yield_now();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(told.split_whitespace().next()?.parse().ok()?))
}
