//! Sources that are always ready. Every contender owns the channels, awaits [`handle`] for each
//! message, and returns the sum of what was handled.
//!
//! [`handle`]: crate::draining::handle

use std::hint::black_box;

use async_channel::Receiver;
use futures::executor::block_on;

use crate::draining::{by_fan_in, drain};
use crate::support::marks::{Bound, Mark};
use crate::support::measure::draining;
use crate::support::merges::{Buffered, Group, Merge, Merged, SelectAll, StreamMap, Unicycle};
use crate::support::section::{BY_SOURCES, Contender, Role, Section};

/// Messages a source in one turn: `fan_in`'s default.
const QUANTUM: usize = 64;

const OURS: &str = "fan_in";
const FLOOR: &str = "try_recv";
const FIGURE: &str = "ns a message";

pub(crate) const SECTION: Section = Section {
    name: "ready",
    title: "sources that are always ready",
    figures: &[FIGURE],
    columns: BY_SOURCES,
    contenders: &[
        Contender { name: FLOOR, role: Role::Floor, once: |load| draining(load, take) },
        peer::<SelectAll>(),
        peer::<Merged>(),
        peer::<Group>(),
        peer::<StreamMap>(),
        peer::<Unicycle>(),
        peer::<Buffered>(),
        Contender {
            name: OURS,
            role: Role::Ours,
            once: |load| draining(load, |all| block_on(by_fan_in(all))),
        },
    ],
    marks: &[
        Mark {
            what: "fan_in to taking by hand",
            figure: FIGURE,
            of: &[OURS],
            to: Some(FLOOR),
            bound: Bound::Most(&[(1, 1.4), (64, 1.4), (1_024, 1.4), (16_384, 1.5)]),
        },
        Mark {
            what: "select_all to fan_in",
            figure: FIGURE,
            of: &[SelectAll::NAME],
            to: Some(OURS),
            bound: Bound::Least(&[(1, 2.6), (64, 2.6), (1_024, 2.6), (16_384, 2.6)]),
        },
        Mark {
            what: "futures-buffered to fan_in",
            figure: FIGURE,
            of: &[Buffered::NAME],
            to: Some(OURS),
            bound: Bound::Least(&[(1, 1.7), (64, 1.7), (1_024, 1.7), (16_384, 1.7)]),
        },
        Mark {
            what: "StreamMap to fan_in, one source",
            figure: FIGURE,
            of: &[StreamMap::NAME],
            to: Some(OURS),
            bound: Bound::Least(&[(1, 1.0 / 1.15)]),
        },
        Mark {
            what: "StreamMap to fan_in",
            figure: FIGURE,
            of: &[StreamMap::NAME],
            to: Some(OURS),
            bound: Bound::Even(&[64, 1_024, 16_384]),
        },
        Mark {
            what: "every other peer to fan_in",
            figure: FIGURE,
            of: &[Merged::NAME, Group::NAME, Unicycle::NAME],
            to: Some(OURS),
            bound: Bound::Even(&[1, 64, 1_024, 16_384]),
        },
    ],
    countable: true,
    note: "try_recv takes alone, in turns of 64 messages.",
};

const fn peer<M: Merge>() -> Contender {
    Contender {
        name: M::NAME,
        role: Role::PeerOf(OURS),
        once: |load| draining(load, |all| drain(M::merge(all))),
    }
}

/// Taking alone: `try_recv` in turns of 64 messages a channel, the order in which `fan_in` takes
/// them too, and an addition in place of a handler.
fn take(mut channels: Vec<Receiver<u64>>) -> u64 {
    let mut sum = 0;
    while !channels.is_empty() {
        channels.retain(|channel| {
            (0..QUANTUM)
                .all(|_| channel.try_recv().map(|message| sum += black_box(message)).is_ok())
        });
    }
    sum
}
