//! Bytes a source that has no messages.

use std::hint::black_box;
use std::pin::pin;

use futures::stream::{Pending, StreamExt, pending};
use watershed::{BoxError, StepContext, fan_in};

use crate::counting;
use crate::support::channels::Load;
use crate::support::marks::{Bound, Mark};
use crate::support::merges::{Buffered, Group, Merge, Merged, SelectAll, StreamMap, Unicycle};
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "fan_in";
const OURS_LARGE: &str = "fan_in_16_kib_handler";
const BY_KEY: &str = "fan_in_by_key";

const EACH: &str = "bytes a source";
const ALL: &str = "KiB in all";

const CELLS: &[(u32, f64)] = &[(1_000, 200.0), (100_000, 200.0)];

pub(crate) const IDLE: Section = Section {
    name: "idle_sources",
    title: "an idle source, beyond the source itself",
    figures: &[EACH],
    columns: &[
        Column::new("1 source", 1, 1),
        Column::new("1,000 sources", 1_000, 1),
        Column::new("100,000 sources", 100_000, 1),
    ],
    contenders: &[
        beside::<SelectAll>(),
        beside::<Merged>(),
        beside::<Group>(),
        beside::<StreamMap>(),
        beside::<Unicycle>(),
        beside::<Buffered>(),
        Contender { name: OURS, role: Role::Ours, once: |load| by_fan_in(load, small) },
        Contender { name: OURS_LARGE, role: Role::Ours, once: |load| by_fan_in(load, large) },
    ],
    marks: &[
        Mark { what: "fan_in", figure: EACH, of: &[OURS], to: None, bound: Bound::Most(CELLS) },
        Mark {
            what: "fan_in, a handler of 16 KiB",
            figure: EACH,
            of: &[OURS_LARGE],
            to: None,
            bound: Bound::Most(CELLS),
        },
    ],
    countable: false,
    note: "The sources are of no size.",
};

pub(crate) const KEYED: Section = Section {
    name: "idle_keyed",
    title: "idle sources ordered by key, at a limit of 4,096",
    figures: &[ALL],
    columns: &[Column::new("100 sources", 100, 1)],
    contenders: &[Contender { name: BY_KEY, role: Role::Ours, once: by_key }],
    marks: &[Mark {
        what: "fan_in by key",
        figure: ALL,
        of: &[BY_KEY],
        to: None,
        bound: Bound::Most(&[(100, 1_024.0)]),
    }],
    countable: false,
    note: "",
};

const fn beside<M: Merge>() -> Contender {
    Contender { name: M::NAME, role: Role::PeerOf(OURS), once: by_loop::<M> }
}

fn sources(load: Load) -> Vec<Pending<u64>> {
    (0..load.size).map(|_| pending()).collect()
}

fn by_loop<M: Merge>(load: Load) -> Vec<f64> {
    let sources = sources(load);
    each(load, || async move {
        let mut messages = pin!(M::merge(sources));
        while messages.next().await.is_some() {}
    })
}

async fn small(_message: u64) {}

async fn large(_message: u64) {
    let room = black_box([0_u8; 16_384]);
    std::future::pending::<()>().await;
    black_box(&room);
}

fn by_fan_in<F: Future<Output = ()>>(load: Load, handle: fn(u64) -> F) -> Vec<f64> {
    let (sources, context) = (sources(load), StepContext::new("idle"));
    each(load, || async move {
        let handler = |message, _| async move {
            handle(message).await;
            Ok::<_, BoxError>(())
        };
        fan_in(&context, sources, handler).await
    })
}

fn by_key(load: Load) -> Vec<f64> {
    let (sources, context) = (sources(load), StepContext::new("idle"));
    let bytes = counting::of_waiting(|| async move {
        let handler = |_, _| async { Ok::<_, BoxError>(()) };
        let drain = fan_in(&context, sources, handler).concurrency(4_096);
        drain.ordered_by(|message| *message).await
    });
    vec![bytes / 1_024.0]
}

fn each<F: Future>(load: Load, make: impl FnOnce() -> F) -> Vec<f64> {
    vec![counting::of_waiting(make) / f64::from(load.size)]
}
