//! Bytes a source that has no messages.

use std::pin::pin;

use futures::stream::{Pending, StreamExt, pending};
use watershed::{BoxError, StepContext, fan_in};

use crate::counting;
use crate::support::channels::Load;
use crate::support::merges::{Buffered, Group, Merge, Merged, SelectAll, StreamMap, Unicycle};
use crate::support::section::{Column, Contender, Role, Section};
use crate::support::targets::{Bound, Target, To};

const OURS: &str = "fan_in";

pub(crate) const SECTION: Section = Section {
    name: "idle_sources",
    title: "an idle source, beyond the source itself",
    figures: &["bytes a source"],
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
        Contender { name: OURS, role: Role::Ours, once: by_fan_in },
    ],
    targets: &[Target {
        what: "fan_in, from 1,000 sources on: at most 400 bytes",
        of: OURS,
        to: To::One,
        bound: Bound::From(1_000, 400.0),
    }],
    countable: false,
    note: "The sources are of no size. fan_in has a place for a handler in each, the others have none.",
};

const fn beside<M: Merge>() -> Contender {
    Contender { name: M::NAME, role: Role::Beside(OURS), once: by_loop::<M> }
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

fn by_fan_in(load: Load) -> Vec<f64> {
    let (sources, context) = (sources(load), StepContext::new("idle"));
    each(
        load,
        || async move { fan_in(&context, sources, |_, _| async { Ok::<_, BoxError>(()) }).await },
    )
}

fn each<F: Future>(load: Load, make: impl FnOnce() -> F) -> Vec<f64> {
    vec![counting::of_waiting(make) / f64::from(load.size)]
}
