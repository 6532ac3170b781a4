//! Handlers that wait: until they are polled once more, and for a timer. So many at once, each on a
//! source of its own, or all on one source.

use std::future::poll_fn;
use std::num::NonZeroUsize;
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
use crate::support::measure::draining;
use crate::support::merges::{Merge, Merged, SelectAll};
use crate::support::section::{Column, Contender, Role, Section};
use crate::support::targets::{Bound, Target, To};

const OURS: &str = "fan_in";

const YIELDING_COLUMNS: &[Column] = &[
    Column::new("1 at once", 1, 200_000),
    Column::new("16 at once", 16, 200_000),
    Column::new("256 at once", 256, 200_000),
    Column::new("4,096 at once", 4_096, 200_000),
];

const TIMED_COLUMNS: &[Column] = &[
    Column::new("1 at once", 1, 100),
    Column::new("16 at once", 16, 1_600),
    Column::new("256 at once", 256, 25_600),
    Column::new("4,096 at once", 4_096, 102_400),
];

pub(crate) const YIELDING: Section = Section {
    name: "yielding",
    title: "handlers that yield once, each on a source of its own",
    figures: &["ns a message"],
    columns: YIELDING_COLUMNS,
    contenders: &of_many::<Yielding>(),
    targets: TARGETS,
    countable: true,
    note: OF_MANY_NOTE,
};

pub(crate) const YIELDING_OF_ONE: Section = Section {
    name: "yielding_of_one",
    title: "handlers that yield once, all on one source",
    figures: &["ns a message"],
    columns: YIELDING_COLUMNS,
    contenders: &of_one::<Yielding>(),
    targets: TARGETS,
    countable: true,
    note: OF_ONE_NOTE,
};

pub(crate) const TIMED: Section = Section {
    name: "timers",
    title: "handlers that wait 1 ms, each on a source of its own",
    figures: &["ns a message"],
    columns: TIMED_COLUMNS,
    contenders: &of_many::<Timed>(),
    targets: TARGETS,
    countable: false,
    note: OF_MANY_NOTE,
};

pub(crate) const TIMED_OF_ONE: Section = Section {
    name: "timers_of_one",
    title: "handlers that wait 1 ms, all on one source",
    figures: &["ns a message"],
    columns: TIMED_COLUMNS,
    contenders: &of_one::<Timed>(),
    targets: TARGETS,
    countable: false,
    note: OF_ONE_NOTE,
};

const TARGETS: &[Target] = &[Target {
    what: "for_each_concurrent to fan_in: at least 1",
    of: ForEachConcurrent::NAME,
    to: To::Contender(OURS),
    bound: Bound::Least(1.0),
}];

const OF_MANY_NOTE: &str = "The peers run over the merge of futures-concurrency, select_all_… over \
                            select_all; they do not keep the order within a source.";
const OF_ONE_NOTE: &str = "fan_in is ordered by a key, which is another one in each message; the \
                           peers know no order.";

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

const fn of_many<W: Wait>() -> [Contender; 7] {
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

const fn of_one<W: Wait>() -> [Contender; 6] {
    [
        peer_of_one::<W, ForEachConcurrent>(),
        peer_of_one::<W, BufferUnordered>(),
        peer_of_one::<W, BufferedUnordered>(),
        peer_of_one::<W, BufferedForEach>(),
        peer_of_one::<W, Co>(),
        Contender {
            name: OURS,
            role: Role::Ours,
            once: |load| draining(load.in_channels(1), |all| fan_in_of_one::<W>(load, only(all))),
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

const fn peer_of_one<W: Wait, C: Concurrent>() -> Contender {
    Contender {
        name: C::NAME,
        role: Role::PeerOf(OURS),
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

fn peer<W: Wait, C: Concurrent>(load: Load, messages: impl Stream<Item = u64>) -> u64 {
    let sum = AtomicU64::new(0);
    block_on(C::for_each(messages, most(load), |message| handle::<W>(message, &sum)));
    sum.into_inner()
}

fn fan_in_of_many<W: Wait>(load: Load, channels: Vec<Receiver<u64>>) -> u64 {
    let sum = AtomicU64::new(0);
    let context = StepContext::new("waiting");
    let handler = |message, _| handle_step::<W>(message, &sum);
    let drain = async { fan_in(&context, channels, handler).concurrency(most(load)).await };
    block_on(drain).expect("no handler fails");
    sum.into_inner()
}

fn fan_in_of_one<W: Wait>(load: Load, channel: Receiver<u64>) -> u64 {
    let sum = AtomicU64::new(0);
    let context = StepContext::new("waiting");
    let handler = |message, _| handle_step::<W>(message, &sum);
    let drain = async {
        let drain = fan_in(&context, [channel], handler).concurrency(most(load));
        drain.ordered_by(|message| *message).await
    };
    block_on(drain).expect("no handler fails");
    sum.into_inner()
}

async fn handle_step<W: Wait>(message: u64, sum: &AtomicU64) -> Result<(), BoxError> {
    handle::<W>(message, sum).await;
    Ok(())
}

/// How many handlers may run at once.
fn most(load: Load) -> NonZeroUsize {
    NonZeroUsize::new(load.size as usize).expect("one at least")
}
