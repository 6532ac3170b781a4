//! Ready sources under several executors.

use async_channel::Receiver;

use crate::draining::{by_fan_in, by_loop};
use crate::support::channels::Load;
use crate::support::measure::timing;
use crate::support::merges::{Buffered, Group, Merge, Merged, SelectAll, StreamMap, Unicycle};
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "fan_in";
const SOURCES: u32 = 64;

const FUTURES: u32 = 0;
const SMOL: u32 = 1;
const TOKIO: u32 = 2;
const TOKIO_THREADS: u32 = 3;

pub(crate) const SECTION: Section = Section {
    name: "executors",
    title: "64 ready sources under several executors",
    figures: &["ns a message"],
    columns: &[
        Column::new("futures", FUTURES, 1_000_000),
        Column::new("smol", SMOL, 1_000_000),
        Column::new("tokio", TOKIO, 1_000_000),
        Column::new("tokio, threads", TOKIO_THREADS, 1_000_000),
    ],
    contenders: &[
        peer::<SelectAll>(),
        peer::<Merged>(),
        peer::<Group>(),
        peer::<StreamMap>(),
        peer::<Unicycle>(),
        peer::<Buffered>(),
        Contender { name: OURS, role: Role::Ours, once: |load| draining(load, by_fan_in) },
    ],
    targets: &[],
    countable: true,
    note: "The runtimes of tokio are that of the current thread and that of several threads; each \
           blocks on the drain.",
};

const fn peer<M: Merge>() -> Contender {
    Contender {
        name: M::NAME,
        role: Role::PeerOf(OURS),
        once: |load| draining(load, |all| by_loop(M::merge(all))),
    }
}

fn draining<F: Future<Output = u64>>(
    load: Load,
    drain: impl FnOnce(Vec<Receiver<u64>>) -> F,
) -> Vec<f64> {
    let channels = load.in_channels(SOURCES).channels();
    let runtime = match load.size {
        TOKIO => Some(tokio::runtime::Builder::new_current_thread()),
        TOKIO_THREADS => Some(tokio::runtime::Builder::new_multi_thread()),
        _ => None,
    };
    let runtime = runtime.map(|mut runtime| runtime.build().expect("there are threads"));
    let (sum, took) = timing(|| match &runtime {
        Some(runtime) => runtime.block_on(drain(channels)),
        None if load.size == SMOL => smol::block_on(drain(channels)),
        None => futures::executor::block_on(drain(channels)),
    });
    assert_eq!(sum, load.sum(), "every message is handled once");
    load.each(took)
}
