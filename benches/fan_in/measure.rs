//! Measuring in turns: contender after contender, round after round.

use std::hint::black_box;
use std::time::{Duration, Instant};

use async_channel::Receiver;

use crate::channels::Load;
use crate::settings::Settings;
use crate::targets::Target;

/// Contenders for the same work, and how they are to compare.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// Whether the number of sources matters.
    pub(crate) has_sources: bool,
    pub(crate) contenders: &'static [Contender],
    pub(crate) targets: &'static [Target],
}

impl Section {
    /// Measures the contenders that are wanted, size by size; nothing if there are none.
    pub(crate) fn measure(&self, settings: &Settings) -> Vec<Measured> {
        let wanted: Vec<_> = self.contenders.iter().filter(|one| settings.wants(one)).collect();
        if wanted.is_empty() {
            Vec::new()
        } else if self.has_sources {
            let sizes = settings.sources().iter();
            sizes.map(|&sources| in_turns(settings, Some(sources), &wanted)).collect()
        } else {
            vec![in_turns(settings, None, &wanted)]
        }
    }
}

/// One way to do the work.
#[derive(Debug)]
pub(crate) struct Contender {
    /// What `--only` and the tables call it.
    pub(crate) name: &'static str,
    /// The contender that its ratio is taken to in the table.
    pub(crate) floor: &'static str,
    /// Does all of it once; only what has to be is timed.
    pub(crate) once: fn(Load) -> Duration,
}

/// What all contenders took at one size.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The size; `None` where there are no sources.
    pub(crate) sources: Option<u32>,
    pub(crate) series: Vec<Series>,
}

/// The nanoseconds a message that one contender took, round by round.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) floor: &'static str,
    rounds: Vec<f64>,
}

impl Series {
    pub(crate) fn median(&self) -> f64 {
        median(self.rounds.clone())
    }

    pub(crate) fn minimum(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

impl Measured {
    pub(crate) fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.name == name)
    }

    /// The median of the ratios within each round, if both were measured.
    pub(crate) fn ratio(&self, name: &str, floor: &str) -> Option<f64> {
        let (series, floor) = (self.series(name)?, self.series(floor)?);
        Some(median(series.rounds.iter().zip(&floor.rounds).map(|(s, f)| s / f).collect()))
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Lets the contenders take turns.
///
/// Every round begins with another one, so that nobody always follows the same neighbour's heap.
fn in_turns(settings: &Settings, sources: Option<u32>, contenders: &[&Contender]) -> Measured {
    let load = settings.load(sources.unwrap_or(1));
    if !settings.is_quick() {
        // A round that does not count.
        for contender in contenders {
            (contender.once)(load);
        }
    }
    let mut series: Vec<_> = contenders
        .iter()
        .map(|one| Series { name: one.name, floor: one.floor, rounds: Vec::new() })
        .collect();
    for round in 0..settings.rounds() as usize {
        for turn in 0..contenders.len() {
            let turn = (round + turn) % contenders.len();
            let took = (contenders[turn].once)(load);
            series[turn].rounds.push(took.as_secs_f64() * 1e9 / f64::from(load.messages));
        }
    }
    Measured { sources, series }
}

/// Fills the channels, and times how long `drain` takes to empty them.
///
/// # Panics
///
/// When `drain` does not return the sum of all messages.
pub(crate) fn draining(load: Load, drain: impl FnOnce(Vec<Receiver<u64>>) -> u64) -> Duration {
    let channels = load.channels();
    let (sum, took) = timing(move || drain(channels));
    assert_eq!(sum, load.sum(), "every message is handled once");
    took
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
    let start = Instant::now();
    run();
    start.elapsed()
}
