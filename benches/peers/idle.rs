//! One source that is always ready, among others that never are.
//!
//! Only the last nine tenths of the messages are timed: by then every contender has looked at every
//! source once. It ends with the last message, before anything is taken down.

use std::cell::Cell;
use std::hint::black_box;
use std::pin::pin;
use std::time::{Duration, Instant};

use async_channel::Receiver;
use futures::executor::block_on;
use futures::stream::StreamExt;
use watershed::{BoxError, CancellationSource, ErrorCode, StepContext, fan_in};

use crate::support::channels::Load;
use crate::support::measure::timing;
use crate::support::merges::{Buffered, Group, Merge, Merged, SelectAll, StreamMap, Unicycle};
use crate::support::section::{Column, Contender, Role, Section};
use crate::support::targets::{Bound, Target, To};

const OURS: &str = "fan_in";

/// How often sources may be looked at by a contender that looks at all of them for each message.
const LOOKS: u32 = 10_000_000;

pub(crate) const SECTION: Section = Section {
    name: "idle",
    title: "one ready source among idle ones",
    figures: &["ns a message"],
    columns: &[
        Column::new("1 idle", 1, 1_000_000),
        Column::new("1,000 idle", 1_000, 1_000_000),
        Column::new("100,000 idle", 100_000, 1_000_000),
    ],
    contenders: &[
        Contender {
            name: "alone",
            role: Role::Floor,
            once: |load| timed_by_loop::<SelectAll>(load, false),
        },
        peer::<SelectAll>(),
        scanning_peer::<Merged>(),
        scanning_peer::<Group>(),
        scanning_peer::<StreamMap>(),
        peer::<Unicycle>(),
        peer::<Buffered>(),
        Contender { name: OURS, role: Role::Ours, once: timed_by_fan_in },
    ],
    targets: &[Target {
        what: "fan_in to itself with 1 idle source: at most 1.1",
        of: OURS,
        to: To::First,
        bound: Bound::Most(1.1),
    }],
    countable: true,
    note: "alone is select_all without idle sources. futures-concurrency and StreamMap look at all \
           sources for each message, and are given fewer messages.",
};

const fn peer<M: Merge>() -> Contender {
    Contender {
        name: M::NAME,
        role: Role::PeerOf(OURS),
        once: |load| timed_by_loop::<M>(load, true),
    }
}

const fn scanning_peer<M: Merge>() -> Contender {
    Contender {
        name: M::NAME,
        role: Role::PeerOf(OURS),
        once: |load| {
            let messages = load.messages.min((LOOKS / load.size).max(100));
            timed_by_loop::<M>(Load { messages, ..load }, true)
        },
    }
}

/// The sources, the ready one last, and what keeps the others from ending.
fn sources(load: Load, with_idle: bool) -> (Vec<Receiver<u64>>, impl Sized) {
    let idle = (0..if with_idle { load.size } else { 0 }).map(|_| async_channel::bounded(1));
    let (senders, mut receivers): (Vec<_>, Vec<_>) = idle.unzip();
    receivers.extend(load.in_channels(1).channels());
    (receivers, senders)
}

/// Counts messages, and stops the time.
struct Laps {
    load: Load,
    handled: Cell<u32>,
    sum: Cell<u64>,
    start: Cell<Option<Instant>>,
    took: Cell<Duration>,
}

impl Laps {
    fn new(load: Load) -> Self {
        let (handled, sum) = (Cell::new(0), Cell::new(0));
        Self { load, handled, sum, start: Cell::new(None), took: Cell::new(Duration::ZERO) }
    }

    fn warm_up(&self) -> u32 {
        self.load.messages / 10
    }

    /// Whether it was the last one.
    fn handle(&self, message: u64) -> bool {
        self.sum.set(self.sum.get() + black_box(message));
        self.handled.set(self.handled.get() + 1);
        if self.handled.get() == self.warm_up() {
            self.start.set(Some(Instant::now()));
        }
        let is_last = self.handled.get() == self.load.messages;
        if is_last {
            self.took.set(self.start.get().map_or(Duration::ZERO, |start| start.elapsed()));
        }
        is_last
    }

    fn figures(&self) -> Vec<f64> {
        assert_eq!(self.sum.get(), self.load.sum(), "every message is handled once");
        let messages = self.load.messages - self.warm_up();
        Load { messages, ..self.load }.each(self.took.get())
    }
}

fn timed_by_loop<M: Merge>(load: Load, with_idle: bool) -> Vec<f64> {
    let (sources, senders) = sources(load, with_idle);
    let laps = Laps::new(load);
    let drain = async {
        let mut messages = pin!(M::merge(sources));
        while let Some(message) = messages.next().await {
            let handled = async { Ok::<_, BoxError>(laps.handle(message)) };
            if handled.await.expect("no handler fails") {
                break;
            }
        }
    };
    timing(|| block_on(drain));
    drop(senders);
    laps.figures()
}

fn timed_by_fan_in(load: Load) -> Vec<f64> {
    let (sources, senders) = sources(load, true);
    let laps = Laps::new(load);
    let stop = CancellationSource::new();
    let context = StepContext::new("idle").with_cancellation(stop.token());
    let handler = |message, _| {
        let (laps, stop) = (&laps, &stop);
        async move {
            if laps.handle(message) {
                stop.cancel();
            }
            Ok::<_, BoxError>(())
        }
    };
    let (ended, _) = timing(|| block_on(async { fan_in(&context, sources, handler).await }));
    assert_eq!(ended.expect_err("it was stopped").code(), ErrorCode::Canceled);
    drop(senders);
    laps.figures()
}
