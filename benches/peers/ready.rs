//! Sources that are always ready. Every contender owns the channels, awaits [`handle`] for each
//! message, and returns the sum of what was handled.
//!
//! [`handle`]: crate::draining::handle

use std::hint::black_box;

use async_channel::Receiver;
use futures::executor::block_on;

use crate::draining::{by_fan_in, drain};
use crate::support::measure::draining;
use crate::support::merges::{Buffered, Group, Merge, Merged, SelectAll, StreamMap, Unicycle};
use crate::support::section::{BY_SOURCES, Contender, Role, Section};
use crate::support::targets::{Bound, Target, To};

/// Messages a source in one turn: `fan_in`'s default.
const QUANTUM: usize = 64;

const OURS: &str = "fan_in";
const FLOOR: &str = "try_recv";

pub(crate) const SECTION: Section = Section {
    name: "ready",
    title: "sources that are always ready",
    figures: &["ns a message"],
    columns: BY_SOURCES,
    contenders: &[
        Contender { name: FLOOR, role: Role::Floor, once: |load| draining(load, take) },
        Contender {
            name: "one_channel",
            role: Role::Floor,
            once: |load| {
                draining(load.in_channels(1), |mut all| drain(all.pop().expect("there is one")))
            },
        },
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
    targets: &[
        Target {
            what: "fan_in to taking alone: at most 1.25, beyond 1,024 sources 1.4",
            of: OURS,
            to: To::Contender(FLOOR),
            bound: Bound::MostThen(1.25, 1_024, 1.4),
        },
        Target {
            what: "select_all to fan_in: at least 2.5",
            of: SelectAll::NAME,
            to: To::Contender(OURS),
            bound: Bound::Least(2.5),
        },
    ],
    countable: true,
    note: "try_recv takes alone, in turns of 64 messages; one_channel has all messages in one.",
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
