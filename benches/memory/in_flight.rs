//! Bytes a message whose handler waits, as many at once as there are messages.

use std::future::pending;
use std::num::NonZeroUsize;

use futures::stream::{self, Stream, StreamExt};
use watershed::{BoxError, StepContext, fan_in};

use crate::counting;
use crate::support::channels::Load;
use crate::support::concurrent::{
    BufferUnordered, BufferedForEach, BufferedUnordered, Co, Concurrent, ForEachConcurrent,
};
use crate::support::merges::{Merge, Merged};
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "fan_in";

const COLUMNS: &[Column] = &[Column::new("16", 16, 1), Column::new("4,096", 4_096, 1)];

pub(crate) const OF_MANY: Section = Section {
    name: "in_flight",
    title: "a message in flight, each of a source of its own",
    figures: &["bytes a message"],
    columns: COLUMNS,
    contenders: &[
        beside_many::<ForEachConcurrent>(),
        beside_many::<BufferUnordered>(),
        beside_many::<BufferedUnordered>(),
        beside_many::<BufferedForEach>(),
        beside_many::<Co>(),
        Contender { name: OURS, role: Role::Ours, once: of_many },
    ],
    targets: &[],
    countable: false,
    note: "The peers run over the merge of futures-concurrency. All of the drain is counted, but for the sources themselves.",
};

pub(crate) const OF_ONE: Section = Section {
    name: "in_flight_of_one",
    title: "a message in flight, all of one source",
    figures: &["bytes a message"],
    columns: COLUMNS,
    contenders: &[
        beside_one::<ForEachConcurrent>(),
        beside_one::<BufferUnordered>(),
        beside_one::<BufferedUnordered>(),
        beside_one::<BufferedForEach>(),
        beside_one::<Co>(),
        Contender { name: OURS, role: Role::Ours, once: of_one },
    ],
    targets: &[],
    countable: false,
    note: "fan_in is ordered by a key, which is another one in each message.",
};

const fn beside_many<C: Concurrent>() -> Contender {
    Contender {
        name: C::NAME,
        role: Role::Beside(OURS),
        once: |load| by_peer::<C>(load, Merged::merge(many(load))),
    }
}

const fn beside_one<C: Concurrent>() -> Contender {
    Contender {
        name: C::NAME,
        role: Role::Beside(OURS),
        once: |load| by_peer::<C>(load, one(load)),
    }
}

/// Sources that have one message each, and do not end. What they need themselves is on the stack
/// of the future that has them, or in a box.
fn many(load: Load) -> Vec<impl Stream<Item = u64>> {
    let messages = 0..u64::from(load.size);
    messages.map(|message| stream::iter([message]).chain(stream::pending())).collect()
}

/// A source of all messages, which does not end.
fn one(load: Load) -> impl Stream<Item = u64> {
    stream::iter(0..u64::from(load.size)).chain(stream::pending())
}

async fn handle(_message: u64) {
    pending::<()>().await;
}

fn by_peer<C: Concurrent>(load: Load, messages: impl Stream<Item = u64>) -> Vec<f64> {
    each(load, || C::for_each(messages, concurrency(load), handle))
}

fn of_many(load: Load) -> Vec<f64> {
    let (sources, context) = (many(load), StepContext::new("waiting"));
    let concurrency = concurrency(load);
    each(load, || async move {
        let handler = |message, _| async move {
            handle(message).await;
            Ok::<_, BoxError>(())
        };
        fan_in(&context, sources, handler).concurrency(concurrency).await
    })
}

fn of_one(load: Load) -> Vec<f64> {
    let (source, context) = (one(load), StepContext::new("waiting"));
    let concurrency = concurrency(load);
    each(load, || async move {
        let handler = |message, _| async move {
            handle(message).await;
            Ok::<_, BoxError>(())
        };
        let drain = fan_in(&context, [source], handler).concurrency(concurrency);
        drain.ordered_by(|message| *message).await
    })
}

fn concurrency(load: Load) -> NonZeroUsize {
    NonZeroUsize::new(load.size as usize).expect("there are messages")
}

fn each<F: Future>(load: Load, make: impl FnOnce() -> F) -> Vec<f64> {
    vec![counting::of_waiting(make) / f64::from(load.size)]
}
