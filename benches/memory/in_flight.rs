//! Bytes a message whose handler waits, as many at once as there are messages.

use std::future::pending;
use std::mem::size_of_val;

use futures::stream::{self, Stream, StreamExt};
use watershed::{BoxError, StepContext, fan_in};

use crate::counting;
use crate::support::channels::Load;
use crate::support::concurrent::{
    BufferUnordered, BufferedForEach, BufferedUnordered, Co, Concurrent, ForEachConcurrent,
};
use crate::support::marks::{Bound, Mark};
use crate::support::merges::{Merge, Merged};
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "fan_in";
const UNORDERED: &str = "fan_in_unordered";
const BY_KEY: &str = "fan_in_by_key";
const FIGURE: &str = "bytes a message";

const COLUMNS: &[Column] = &[Column::new("16", 16, 1), Column::new("4,096", 4_096, 1)];

pub(crate) const OF_MANY: Section = Section {
    name: "in_flight",
    title: "a message in flight beyond its future, each of a source of its own",
    figures: &[FIGURE],
    columns: COLUMNS,
    contenders: &[
        beside_many::<ForEachConcurrent>(),
        beside_many::<BufferUnordered>(),
        beside_many::<BufferedUnordered>(),
        beside_many::<BufferedForEach>(),
        beside_many::<Co>(),
        Contender { name: OURS, role: Role::Ours, once: of_many },
    ],
    marks: &[mark("fan_in", &[OURS])],
    countable: false,
    note: "The peers run over the merge of futures-concurrency. All of the drain is counted, what its \
           sources take beyond themselves included.",
};

pub(crate) const OF_ONE: Section = Section {
    name: "in_flight_of_one",
    title: "a message in flight beyond its future, all of one source",
    figures: &[FIGURE],
    columns: COLUMNS,
    contenders: &[
        beside_one::<ForEachConcurrent>(),
        beside_one::<BufferUnordered>(),
        beside_one::<BufferedUnordered>(),
        beside_one::<BufferedForEach>(),
        beside_one::<Co>(),
        Contender { name: UNORDERED, role: Role::Ours, once: unordered },
        Contender { name: BY_KEY, role: Role::Ours, once: by_key },
    ],
    marks: &[mark("fan_in, unordered", &[UNORDERED]), mark("fan_in, by key", &[BY_KEY])],
    countable: false,
    note: "Each message has a key of its own.",
};

const fn mark(what: &'static str, of: &'static [&'static str]) -> Mark {
    Mark { what, figure: FIGURE, of, to: None, bound: Bound::Most(&[(4_096, 450.0)]) }
}

const fn beside_many<C: Concurrent>() -> Contender {
    Contender {
        name: C::NAME,
        role: Role::PeerOf(OURS),
        once: |load| by_peer::<C>(load, Merged::merge(many(load))),
    }
}

const fn beside_one<C: Concurrent>() -> Contender {
    Contender {
        name: C::NAME,
        role: Role::PeerOf(UNORDERED),
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

async fn handle_step(message: u64) -> Result<(), BoxError> {
    handle(message).await;
    Ok(())
}

fn by_peer<C: Concurrent>(load: Load, messages: impl Stream<Item = u64>) -> Vec<f64> {
    let most = load.size as usize;
    each(load, size_of_val(&handle(0)), || C::for_each(messages, most, handle))
}

fn of_many(load: Load) -> Vec<f64> {
    let (sources, context) = (many(load), StepContext::new("waiting"));
    each(load, size_of_val(&handle_step(0)), || async move {
        fan_in(&context, sources, |message, _| handle_step(message))
            .concurrency(load.size as usize)
            .await
    })
}

fn unordered(load: Load) -> Vec<f64> {
    let (source, context) = (one(load), StepContext::new("waiting"));
    each(load, size_of_val(&handle_step(0)), || async move {
        fan_in(&context, [source], |message, _| handle_step(message))
            .concurrency(load.size as usize)
            .unordered()
            .await
    })
}

fn by_key(load: Load) -> Vec<f64> {
    let (source, context) = (one(load), StepContext::new("waiting"));
    each(load, size_of_val(&handle_step(0)), || async move {
        fan_in(&context, [source], |message, _| handle_step(message))
            .concurrency(load.size as usize)
            .ordered_by(|message| *message)
            .await
    })
}

#[allow(clippy::cast_precision_loss, reason = "a future is small")]
fn each<F: Future>(load: Load, size: usize, make: impl FnOnce() -> F) -> Vec<f64> {
    vec![counting::of_waiting(make) / f64::from(load.size) - size as f64]
}
