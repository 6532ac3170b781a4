//! Messages of several sizes, moved from ready sources into handlers.

use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use async_channel::Receiver;
use futures::executor::block_on;
use futures::stream::{Stream, StreamExt};
use watershed::{BoxError, StepContext, fan_in};

use crate::support::channels::Load;
use crate::support::measure::timing;
use crate::support::merges::{Buffered, Group, Merge, Merged, SelectAll, StreamMap, Unicycle};
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "fan_in";
const SOURCES: u32 = 64;

pub(crate) const SECTION: Section = Section {
    name: "payloads",
    title: "messages of several sizes, 64 ready sources",
    figures: &["ns a message"],
    columns: &[
        Column::new("8 B", 8, 1_000_000),
        Column::new("256 B", 256, 200_000),
        Column::new("4 KiB", 4_096, 20_000),
    ],
    contenders: &[
        peer::<SelectAll>(),
        peer::<Merged>(),
        peer::<Group>(),
        peer::<StreamMap>(),
        peer::<Unicycle>(),
        peer::<Buffered>(),
        Contender { name: OURS, role: Role::Ours, once: by_size::<ByFanIn> },
    ],
    targets: &[],
    countable: true,
    note: "",
};

const fn peer<M: Merge>() -> Contender {
    Contender { name: M::NAME, role: Role::PeerOf(OURS), once: by_size::<ByLoop<M>> }
}

/// A number and what else makes up the size of the message.
struct Message<const REST: usize> {
    number: u64,
    _rest: [u64; REST],
}

trait Drain {
    fn drain<const REST: usize>(channels: Vec<Receiver<Message<REST>>>) -> u64;
}

fn by_size<D: Drain>(load: Load) -> Vec<f64> {
    match load.size {
        8 => draining::<D, 0>(load),
        256 => draining::<D, 31>(load),
        _ => draining::<D, 511>(load),
    }
}

fn draining<D: Drain, const REST: usize>(load: Load) -> Vec<f64> {
    let make = |number| Message { number, _rest: [number; REST] };
    let channels = load.in_channels(SOURCES).channels_of(make);
    let (sum, took) = timing(move || D::drain::<REST>(channels));
    assert_eq!(sum, load.sum(), "every message is handled once");
    load.each(took)
}

#[allow(clippy::unused_async, reason = "it stands for what waits")]
async fn handle<const REST: usize>(
    message: Message<REST>,
    sum: &AtomicU64,
) -> Result<(), BoxError> {
    let number = black_box(&message).number;
    sum.store(sum.load(Ordering::Relaxed) + number, Ordering::Relaxed);
    Ok(())
}

struct ByLoop<M>(M);

impl<M: Merge> Drain for ByLoop<M> {
    fn drain<const REST: usize>(channels: Vec<Receiver<Message<REST>>>) -> u64 {
        let sum = AtomicU64::new(0);
        block_on(by_loop(M::merge(channels), &sum)).expect("no handler fails");
        sum.into_inner()
    }
}

async fn by_loop<const REST: usize>(
    messages: impl Stream<Item = Message<REST>>,
    sum: &AtomicU64,
) -> Result<(), BoxError> {
    let mut messages = pin!(messages);
    while let Some(message) = messages.next().await {
        handle(message, sum).await?;
    }
    Ok(())
}

struct ByFanIn;

impl Drain for ByFanIn {
    fn drain<const REST: usize>(channels: Vec<Receiver<Message<REST>>>) -> u64 {
        let sum = AtomicU64::new(0);
        let context = StepContext::new("sum");
        let drain = async { fan_in(&context, channels, |message, _| handle(message, &sum)).await };
        block_on(drain).expect("no handler fails");
        sum.into_inner()
    }
}
