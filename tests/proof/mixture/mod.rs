//! A drain of sources that behave differently, with any option, and what holds whatever happens.
//!
//! `scenario` says of one fault what exactly has to come of it. Here anything may go wrong, and more
//! than once: handlers decline or hang, actions fail at first or for good, time runs out, and two
//! points fail in one run. What is checked is what no such thing can change.
//!
//! - `faults`: the points that can fail; `shop`: what the handlers do
//! - `run`: the sources and the drain; `accounts`: where every message and every effect is at the end

mod accounts;
mod faults;
mod run;
mod shop;

pub(crate) use faults::Faults;
pub(crate) use run::{Ended, Run};

use std::time::Duration;

use watershed::{Commit, CompensationPolicy, OnFailure, RetryPolicy};

/// How sources come to a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feeding {
    /// All at the start, each in its own order.
    Plain,
    /// All at the start, and each in the order of its keys.
    Ordered,
    /// While it runs; one is paused and resumed, and one is removed.
    Live,
}

/// What is varied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mixture {
    pub(crate) handlers: usize,
    pub(crate) feeding: Feeding,
    pub(crate) commit: Commit,
    pub(crate) on_failure: OnFailure,
    /// Nothing goes wrong by itself, and there are few messages.
    pub(crate) calm: bool,
    pub(crate) seed: u64,
}

/// Messages of one key in a source that is ordered by key.
const KEYS: u32 = 3;
/// The numbers of a source begin with its own hundred.
const PER_SOURCE: u32 = 100;

impl Mixture {
    /// Every way to feed, commit and failure mode with 1, 2 and 4 handlers, the rest as the seeds
    /// want it.
    pub(crate) fn all(seeds: u64) -> impl Iterator<Item = Self> {
        let cases = (0..3 * 3 * 3 * 2 * seeds).map(|case| (case, case / 54));
        cases.map(|(case, seed)| Self {
            handlers: [1, 2, 4][usize::try_from(case % 3).expect("small")],
            feeding: [Feeding::Plain, Feeding::Ordered, Feeding::Live][(case / 3 % 3) as usize],
            commit: [Commit::Pipeline, Commit::Message, Commit::Never][(case / 9 % 3) as usize],
            on_failure: [OnFailure::Abort, OnFailure::Continue][(case / 27 % 2) as usize],
            calm: false,
            seed,
        })
    }

    /// The deadline of the whole drain.
    fn timeout(&self) -> Option<Duration> {
        (!self.calm && self.seed % 3 == 0).then(|| Duration::from_millis(4 + self.seed % 29))
    }

    fn message_timeout(&self) -> Option<Duration> {
        (!self.calm && self.seed % 2 == 0).then_some(Duration::from_millis(9))
    }

    fn grace(&self) -> Duration {
        [Duration::ZERO, Duration::from_millis(3), Duration::from_secs(7_200)]
            [(self.seed % 5 % 3) as usize]
    }

    /// How a message that failed is rolled back alone.
    fn message_policy(&self) -> CompensationPolicy {
        policies()[(self.seed / 2 % 3) as usize].1.clone().retry(self.retry())
    }

    /// Twice at most, at once or after a pause; never where each failure is to be told.
    pub(crate) fn retry(&self) -> RetryPolicy {
        match (self.calm, self.seed % 2) {
            (true, _) => RetryPolicy::none(),
            (false, 0) => RetryPolicy::fixed(2, Duration::ZERO),
            (false, _) => RetryPolicy::fixed(2, Duration::from_millis(2)),
        }
    }
}

/// How a rollback may go about its work, and whether that keeps an order.
pub(crate) fn policies() -> [(&'static str, CompensationPolicy, bool); 3] {
    let limited = CompensationPolicy::parallel_limited(2);
    let sequential = CompensationPolicy::sequential_reverse();
    let parallel = CompensationPolicy::parallel();
    [("sequential", sequential, true), ("parallel", parallel, false), ("limited", limited, false)]
}
