//! The contenders without compensations. Every one of them owns the channels, awaits [`handle`]
//! for each message, and returns the sum of what was handled.

use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_channel::Receiver;
use futures::executor::block_on;
use futures::stream::{Stream, StreamExt, select_all};
use futures_buffered::MergeUnbounded;
use futures_concurrency::stream::Merge;
use tokio_stream::StreamMap;
use unicycle::StreamsUnordered;
use watershed::{BoxError, StepContext, fan_in};

use crate::channels::Load;
use crate::measure::{Contender, Section, draining};
use crate::targets::{Bound, Target};

/// The messages a turn: `fan_in`'s default.
const QUANTUM: usize = 64;

/// What the ratios are taken to.
const FLOOR: &str = "try_recv";

pub(crate) const SECTION: Section = Section {
    title: "without compensations: ratio to taking alone",
    has_sources: true,
    contenders: CONTENDERS,
    targets: &[
        Target {
            what: "fan_in to taking alone: at most 1.4, beyond 1,024 sources 1.5",
            of: "fan_in",
            to: FLOOR,
            bound: Bound::MostThen(1.4, 1.5),
        },
        Target {
            what: "select_all to fan_in: at least 2.3",
            of: "select_all",
            to: "fan_in",
            bound: Bound::Least(2.3),
        },
    ],
};

const CONTENDERS: &[Contender] = &[
    contender(FLOOR, |load| draining(load, take)),
    contender("select_all", |load| draining(load, |all| drain(select_all(pinned(all))))),
    contender("futures_concurrency", |load| draining(load, |all| drain(all.merge()))),
    contender("stream_map", |load| draining(load, drain_stream_map)),
    contender("unicycle", |load| {
        draining(load, |all| drain(all.into_iter().collect::<StreamsUnordered<_>>()))
    }),
    contender("futures_buffered", |load| {
        draining(load, |all| drain(pinned(all).collect::<MergeUnbounded<_>>()))
    }),
    contender("fan_in", |load| draining(load, drain_by_fan_in)),
];

const fn contender(name: &'static str, once: fn(Load) -> Duration) -> Contender {
    Contender { name, floor: FLOOR, once }
}

/// What every message is handed to. One thread only: two plain instructions are enough to add.
pub(crate) async fn handle(message: u64, sum: &AtomicU64) -> Result<(), BoxError> {
    sum.store(sum.load(Ordering::Relaxed) + black_box(message), Ordering::Relaxed);
    Ok(())
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

/// The loop around every merged stream.
fn drain(messages: impl Stream<Item = u64>) -> u64 {
    let sum = AtomicU64::new(0);
    let loop_by_hand = async {
        let mut messages = pin!(messages);
        while let Some(message) = messages.next().await {
            handle(message, &sum).await?;
        }
        Ok::<_, BoxError>(())
    };
    block_on(loop_by_hand).expect("no handler fails");
    sum.into_inner()
}

fn drain_stream_map(channels: Vec<Receiver<u64>>) -> u64 {
    let streams: StreamMap<_, _> = pinned(channels).enumerate().collect();
    drain(streams.map(|(_, message)| message))
}

/// For the merges that ask for `Unpin`, which a receiver is not.
pub(crate) fn pinned(
    channels: Vec<Receiver<u64>>,
) -> impl Iterator<Item = Pin<Box<Receiver<u64>>>> {
    channels.into_iter().map(Box::pin)
}

fn drain_by_fan_in(channels: Vec<Receiver<u64>>) -> u64 {
    let sum = AtomicU64::new(0);
    let context = StepContext::new("sum");
    let drain = async { fan_in(&context, channels, |message, _| handle(message, &sum)).await };
    block_on(drain).expect("no handler fails");
    sum.into_inner()
}
