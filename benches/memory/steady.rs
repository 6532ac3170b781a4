//! What a long drain that commits each message has gained at its end.

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::executor::block_on;
use futures::stream::{self, Stream, StreamExt};
use watershed::{BoxError, Commit, StepContext, fan_in};

use crate::counting::live;
use crate::support::channels::Load;
use crate::support::marks::{Bound, Mark};
use crate::support::merges::{Merge, SelectAll};
use crate::support::section::{Column, Contender, Role, Section};
use crate::undo::{OfShared, Undo};

const OURS: &str = "fan_in_commit_message";
const RESIDENT: &str = "KiB resident";
const ALLOCATED: &str = "KiB allocated";
const SOURCES: u64 = 8;

pub(crate) const SECTION: Section = Section {
    name: "steady",
    title: "what is gained from the first tenth of the messages to the last, two actions each",
    figures: &[RESIDENT, ALLOCATED],
    columns: &[Column::new("3,000,000 messages", 0, 3_000_000)],
    contenders: &[
        Contender { name: "by_hand_per_message", role: Role::PeerOf(OURS), once: by_hand },
        Contender { name: OURS, role: Role::Ours, once: by_fan_in },
    ],
    marks: &[mark(RESIDENT), mark(ALLOCATED)],
    countable: false,
    note: "Resident memory is what Linux says; 0 elsewhere.",
};

const fn mark(figure: &'static str) -> Mark {
    Mark { what: "fan_in", figure, of: &[OURS], to: None, bound: Bound::Most(&[(0, 64.0)]) }
}

/// The memory at the first tenth, and what is gained since.
struct Gain {
    handled: AtomicU64,
    early: u64,
    at_early: AtomicU64,
    live_at_early: AtomicU64,
}

impl Gain {
    fn new(load: Load) -> Self {
        Self {
            handled: AtomicU64::new(0),
            early: u64::from(load.messages / 10),
            at_early: AtomicU64::new(0),
            live_at_early: AtomicU64::new(0),
        }
    }

    fn handle(&self, message: u64) {
        black_box(message);
        if self.handled.fetch_add(1, Ordering::Relaxed) == self.early {
            self.at_early.store(resident().to_bits(), Ordering::Relaxed);
            self.live_at_early.store(live().to_bits(), Ordering::Relaxed);
        }
    }

    /// To be asked at the last message.
    fn figures(&self, load: Load) -> Vec<f64> {
        assert_eq!(self.handled.load(Ordering::Relaxed), u64::from(load.messages));
        let early = |bits: &AtomicU64| f64::from_bits(bits.load(Ordering::Relaxed));
        let allocated = (live() - early(&self.live_at_early)) / 1024.0;
        vec![resident() - early(&self.at_early), allocated]
    }
}

/// The resident memory in KiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0.0)
}

fn sources(load: Load) -> Vec<impl Stream<Item = u64>> {
    let messages = u64::from(load.messages);
    (0..SOURCES)
        .map(|source| stream::iter(messages * source / SOURCES..messages * (source + 1) / SOURCES))
        .collect()
}

fn by_hand(load: Load) -> Vec<f64> {
    let (gain, undone) = (Gain::new(load), Arc::new(AtomicU64::new(0)));
    block_on(async {
        let mut messages = pin!(SelectAll::merge(sources(load)));
        let mut staged = Vec::new();
        while let Some(message) = messages.next().await {
            staged.push(OfShared::boxed(&undone, message));
            staged.push(OfShared::boxed(&undone, message));
            gain.handle(message);
            staged.clear();
        }
        gain.figures(load)
    })
}

fn by_fan_in(load: Load) -> Vec<f64> {
    let (gain, undone) = (Gain::new(load), Arc::new(AtomicU64::new(0)));
    let context = StepContext::new("steady");
    let handler = |message, step: StepContext| {
        let (gain, undone) = (&gain, &undone);
        async move {
            OfShared::stage(undone, message, step.scope());
            OfShared::stage(undone, message, step.scope());
            gain.handle(message);
            Ok::<_, BoxError>(())
        }
    };
    let drain = async { fan_in(&context, sources(load), handler).commit(Commit::Message).await };
    block_on(drain).expect("no handler fails");
    gain.figures(load)
}
