//! Handlers that wait: until they are polled once more, and for a timer. So many at once, each on a
//! source of its own, or all on one source.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_channel::Receiver;
use futures::executor::block_on;
use futures::stream::Stream;
use futures_timer::Delay;
use watershed::{BoxError, StepContext, fan_in};

use crate::support::channels::Load;
use crate::support::concurrent::{
    BufferUnordered, BufferedForEach, BufferedUnordered, Co, Concurrent, ForEachConcurrent,
};
use crate::support::marks::{Bound, Mark};
use crate::support::measure::draining;
use crate::support::merges::{Merge, Merged, SelectAll};
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "fan_in";
const UNORDERED: &str = "fan_in_unordered";
const BY_KEY: &str = "fan_in_by_64_keys";
const BUFFERED_SELECT_ALL: &str = "futures_buffered_select_all";

/// The forms of `futures-buffered` over many sources, and over one.
const BUFFERED: &[&str] = &[BufferedUnordered::NAME, BufferedForEach::NAME, BUFFERED_SELECT_ALL];

const FIGURE: &str = "ns a message";
const KEYS: u64 = 64;
/// The sources where these are many and permits few.
const SOURCES: u32 = 1_024;

const YIELDING_COLUMNS: &[Column] = &[
    Column::new("1 at once", 1, 200_000),
    Column::new("16 at once", 16, 200_000),
    Column::new("256 at once", 256, 200_000),
    Column::new("4,096 at once", 4_096, 200_000),
];

const TIMED_COLUMNS: &[Column] =
    &[Column::new("256 at once", 256, 51_200), Column::new("4,096 at once", 4_096, 204_800)];

pub(crate) const YIELDING: Section = Section {
    name: "yielding",
    title: "handlers that yield once, each on a source of its own",
    figures: &[FIGURE],
    columns: YIELDING_COLUMNS,
    contenders: &of_many::<Yielding>(),
    marks: &[Mark {
        what: "futures-buffered, its best form, to fan_in",
        figure: FIGURE,
        of: BUFFERED,
        to: Some(OURS),
        bound: Bound::Least(&[(1, 1.8), (16, 1.8), (256, 1.6), (4_096, 1.15)]),
    }],
    countable: true,
    note: OF_MANY_NOTE,
};

pub(crate) const PERMITS: Section = Section {
    name: "permits",
    title: "handlers that yield once, on 1,024 sources that wait for permits",
    figures: &[FIGURE],
    columns: &[Column::new("1 permit", 1, 200_000), Column::new("16 permits", 16, 200_000)],
    contenders: &of_sources::<Yielding>(),
    marks: &[Mark {
        what: "futures-buffered, its best form, to fan_in",
        figure: FIGURE,
        of: BUFFERED,
        to: Some(OURS),
        bound: Bound::Least(&[(1, 1.1), (16, 1.1)]),
    }],
    countable: true,
    note: OF_MANY_NOTE,
};

pub(crate) const ONE_SOURCE: Section = Section {
    name: "one_source",
    title: "handlers that yield once, all on one source",
    figures: &[FIGURE],
    columns: YIELDING_COLUMNS,
    contenders: &of_one::<Yielding>(),
    marks: &[
        Mark {
            what: "futures-buffered, its best form, to fan_in, unordered",
            figure: FIGURE,
            of: BUFFERED,
            to: Some(UNORDERED),
            bound: Bound::Least(&[(1, 1.25), (16, 1.25), (256, 1.25), (4_096, 1.25)]),
        },
        Mark {
            what: "futures-buffered, its best form, to fan_in, by 64 keys",
            figure: FIGURE,
            of: BUFFERED,
            to: Some(BY_KEY),
            bound: Bound::Even(&[1, 16, 256, 4_096]),
        },
    ],
    countable: true,
    note: OF_ONE_NOTE,
};

pub(crate) const TIMERS: Section = Section {
    name: "timers",
    title: "handlers that wait 1 ms, each on a source of its own",
    figures: &[FIGURE],
    columns: TIMED_COLUMNS,
    contenders: &of_many::<Timed>(),
    marks: &[Mark {
        what: "futures-buffered, its best form, to fan_in",
        figure: FIGURE,
        of: BUFFERED,
        to: Some(OURS),
        bound: Bound::Even(&[256, 4_096]),
    }],
    countable: false,
    note: OF_MANY_NOTE,
};

pub(crate) const TIMERS_OF_ONE: Section = Section {
    name: "timers_of_one",
    title: "handlers that wait 1 ms, all on one source",
    figures: &[FIGURE],
    columns: TIMED_COLUMNS,
    contenders: &of_one::<Timed>(),
    marks: &[Mark {
        what: "futures-buffered, its best form, to fan_in, unordered",
        figure: FIGURE,
        of: BUFFERED,
        to: Some(UNORDERED),
        bound: Bound::Even(&[256, 4_096]),
    }],
    countable: false,
    note: OF_ONE_NOTE,
};

const OF_MANY_NOTE: &str = "The peers run over the merge of futures-concurrency, select_all_… and \
                            …_select_all over select_all; they do not keep the order within a \
                            source.";
const OF_ONE_NOTE: &str = "The peers know no order.";

/// What handlers wait for.
trait Wait {
    fn wait() -> impl Future<Output = ()>;
}

struct Yielding;

impl Wait for Yielding {
    fn wait() -> impl Future<Output = ()> {
        let mut yielded = false;
        poll_fn(move |cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }
}

struct Timed;

impl Wait for Timed {
    fn wait() -> impl Future<Output = ()> {
        Delay::new(Duration::from_millis(1))
    }
}

/// So many handlers at once as there are sources.
const fn of_many<W: Wait>() -> [Contender; 8] {
    [
        Contender {
            name: "select_all_for_each_concurrent",
            role: Role::PeerOf(OURS),
            once: |load| {
                draining(load, |all| peer::<W, ForEachConcurrent>(load, SelectAll::merge(all)))
            },
        },
        peer_of_many::<W, ForEachConcurrent>(),
        peer_of_many::<W, BufferUnordered>(),
        Contender {
            name: BUFFERED_SELECT_ALL,
            role: Role::PeerOf(OURS),
            once: |load| {
                draining(load, |all| peer::<W, BufferedUnordered>(load, SelectAll::merge(all)))
            },
        },
        peer_of_many::<W, BufferedUnordered>(),
        peer_of_many::<W, BufferedForEach>(),
        peer_of_many::<W, Co>(),
        Contender {
            name: OURS,
            role: Role::Ours,
            once: |load| draining(load, |all| fan_in_of_many::<W>(load, all)),
        },
    ]
}

/// So many handlers at once as the size says, always on as many sources.
const fn of_sources<W: Wait>() -> [Contender; 5] {
    [
        Contender {
            name: BUFFERED_SELECT_ALL,
            role: Role::PeerOf(OURS),
            once: |load| {
                draining(load.in_channels(SOURCES), |all| {
                    peer::<W, BufferedUnordered>(load, SelectAll::merge(all))
                })
            },
        },
        peer_of_sources::<W, ForEachConcurrent>(),
        peer_of_sources::<W, BufferedUnordered>(),
        peer_of_sources::<W, BufferedForEach>(),
        Contender {
            name: OURS,
            role: Role::Ours,
            once: |load| draining(load.in_channels(SOURCES), |all| fan_in_of_many::<W>(load, all)),
        },
    ]
}

const fn of_one<W: Wait>() -> [Contender; 7] {
    [
        peer_of_one::<W, ForEachConcurrent>(),
        peer_of_one::<W, BufferUnordered>(),
        peer_of_one::<W, BufferedUnordered>(),
        peer_of_one::<W, BufferedForEach>(),
        peer_of_one::<W, Co>(),
        Contender {
            name: UNORDERED,
            role: Role::Ours,
            once: |load| draining(load.in_channels(1), |all| unordered::<W>(load, all)),
        },
        Contender {
            name: BY_KEY,
            role: Role::Ours,
            once: |load| draining(load.in_channels(1), |all| by_key::<W>(load, all)),
        },
    ]
}

const fn peer_of_many<W: Wait, C: Concurrent>() -> Contender {
    Contender {
        name: C::NAME,
        role: Role::PeerOf(OURS),
        once: |load| draining(load, |all| peer::<W, C>(load, Merged::merge(all))),
    }
}

const fn peer_of_sources<W: Wait, C: Concurrent>() -> Contender {
    Contender {
        name: C::NAME,
        role: Role::PeerOf(OURS),
        once: |load| {
            draining(load.in_channels(SOURCES), |all| peer::<W, C>(load, Merged::merge(all)))
        },
    }
}

const fn peer_of_one<W: Wait, C: Concurrent>() -> Contender {
    Contender {
        name: C::NAME,
        role: Role::PeerOf(UNORDERED),
        once: |load| draining(load.in_channels(1), |all| peer::<W, C>(load, only(all))),
    }
}

fn only(mut channels: Vec<Receiver<u64>>) -> Receiver<u64> {
    channels.pop().expect("there is one")
}

async fn handle<W: Wait>(message: u64, sum: &AtomicU64) {
    W::wait().await;
    sum.fetch_add(message, Ordering::Relaxed);
}

async fn handle_step<W: Wait>(message: u64, sum: &AtomicU64) -> Result<(), BoxError> {
    handle::<W>(message, sum).await;
    Ok(())
}

fn peer<W: Wait, C: Concurrent>(load: Load, messages: impl Stream<Item = u64>) -> u64 {
    let sum = AtomicU64::new(0);
    let most = load.size as usize;
    block_on(C::for_each(messages, most, |message| handle::<W>(message, &sum)));
    sum.into_inner()
}

fn fan_in_of_many<W: Wait>(load: Load, channels: Vec<Receiver<u64>>) -> u64 {
    let sum = AtomicU64::new(0);
    let context = StepContext::new("waiting");
    let handler = |message, _| handle_step::<W>(message, &sum);
    let drain = fan_in(&context, channels, handler).concurrency(load.size as usize);
    block_on(async { drain.await }).expect("no handler fails");
    sum.into_inner()
}

fn unordered<W: Wait>(load: Load, channel: Vec<Receiver<u64>>) -> u64 {
    let sum = AtomicU64::new(0);
    let context = StepContext::new("waiting");
    let handler = |message, _| handle_step::<W>(message, &sum);
    let drain = fan_in(&context, channel, handler).concurrency(load.size as usize).unordered();
    block_on(async { drain.await }).expect("no handler fails");
    sum.into_inner()
}

fn by_key<W: Wait>(load: Load, channel: Vec<Receiver<u64>>) -> u64 {
    let sum = AtomicU64::new(0);
    let context = StepContext::new("waiting");
    let handler = |message, _| handle_step::<W>(message, &sum);
    let drain = fan_in(&context, channel, handler).concurrency(load.size as usize);
    let drain = drain.ordered_by(|message| *message % KEYS);
    block_on(async { drain.await }).expect("no handler fails");
    sum.into_inner()
}
