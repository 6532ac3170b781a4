//! Sources that another thread fills as fast as it can.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use async_channel::{Receiver, Sender};
use futures::executor::block_on;
use futures::stream::{Stream, StreamExt};

use crate::draining::{by_fan_in, by_loop};
use crate::support::channels::Load;
use crate::support::marks::{Bound, Mark};
use crate::support::merges::{Buffered, Group, Merge, Merged, SelectAll, StreamMap, Unicycle};
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "fan_in";
const FIGURE: &str = "ns a message";

/// The length of a channel: who sends waits when it is full.
const LENGTH: usize = 64;

pub(crate) const SECTION: Section = Section {
    name: "live",
    title: "another thread fills the sources as fast as it can",
    figures: &[FIGURE],
    columns: &[Column::new("8 sources", 8, 200_000), Column::new("1,024 sources", 1_024, 200_000)],
    contenders: &[
        Contender {
            name: "one_channel",
            role: Role::Floor,
            once: |load| flooded(load.in_channels(1), |mut all| by_loop(all.remove(0))),
        },
        peer::<SelectAll>(),
        peer::<Merged>(),
        peer::<Group>(),
        peer::<StreamMap>(),
        peer::<Unicycle>(),
        peer::<Buffered>(),
        Contender { name: OURS, role: Role::Ours, once: |load| flooded(load, by_fan_in) },
    ],
    marks: &[Mark {
        what: "StreamMap or futures-concurrency, the faster one, to fan_in",
        figure: FIGURE,
        of: &[StreamMap::NAME, Merged::NAME],
        to: Some(OURS),
        bound: Bound::Even(&[8, 1_024]),
    }],
    countable: false,
    note: "The channels have room for 64 messages; one_channel is one of them.",
};

const fn peer<M: Merge>() -> Contender {
    Contender {
        name: M::NAME,
        role: Role::PeerOf(OURS),
        once: |load| flooded(load, |all| by_loop(all_of::<M>(load, all))),
    }
}

/// The merged stream up to the last message: that of `futures-buffered` may wait for ever where its
/// sources end together.
fn all_of<M: Merge>(load: Load, channels: Vec<Receiver<u64>>) -> impl Stream<Item = u64> {
    M::merge(channels).take(load.messages as usize)
}

/// Times from the first message that is sent to the last one that is handled.
fn flooded<F: Future<Output = u64>>(
    load: Load,
    drain: impl FnOnce(Vec<Receiver<u64>>) -> F,
) -> Vec<f64> {
    let channels = (0..load.size).map(|_| async_channel::bounded(LENGTH));
    let (senders, receivers): (Vec<Sender<u64>>, Vec<_>) = channels.unzip();
    let start = Barrier::new(2);
    let took = thread::scope(|scope| {
        let start = &start;
        scope.spawn(move || {
            start.wait();
            for (number, sender) in (0..u64::from(load.messages)).zip(senders.iter().cycle()) {
                sender.send_blocking(number).expect("somebody receives");
            }
            // Whoever drains sees the end.
            drop(senders);
        });
        start.wait();
        let began = Instant::now();
        let sum = block_on(drain(receivers));
        assert_eq!(sum, load.sum(), "every message is handled once");
        began.elapsed()
    });
    load.each(took)
}
