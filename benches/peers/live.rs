//! Sources that are being filled by other threads: as fast as these can, and at a steady pace.

use std::hint::spin_loop;
use std::pin::pin;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use futures::executor::block_on;
use futures::stream::{Stream, StreamExt};
use watershed::{BoxError, StepContext, fan_in};

use crate::draining::{by_fan_in, by_loop};
use crate::support::channels::Load;
use crate::support::merges::{Buffered, Group, Merge, Merged, SelectAll, StreamMap, Unicycle};
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "fan_in";
const FLOOR: &str = "one_channel";

/// The threads that send, each to its share of the channels.
const PRODUCERS: usize = 2;
/// The length of a channel: who sends waits when it is full.
const LENGTH: usize = 64;
/// The time between two messages at a steady pace.
const PACE: Duration = Duration::from_micros(20);

pub(crate) const FLOODED: Section = Section {
    name: "live",
    title: "two threads fill the sources as fast as they can",
    figures: &["ns a message"],
    columns: &[
        Column::new("8 sources", 8, 400_000),
        Column::new("64 sources", 64, 400_000),
        Column::new("1,024 sources", 1_024, 400_000),
    ],
    contenders: &[
        Contender {
            name: FLOOR,
            role: Role::Floor,
            once: |load| flooded(load.in_channels(1), |mut all| by_loop(all.remove(0))),
        },
        flooded_peer::<SelectAll>(),
        flooded_peer::<Merged>(),
        flooded_peer::<Group>(),
        flooded_peer::<StreamMap>(),
        flooded_peer::<Unicycle>(),
        flooded_peer::<Buffered>(),
        Contender { name: OURS, role: Role::Ours, once: |load| flooded(load, by_fan_in) },
    ],
    targets: &[],
    countable: false,
    note: "one_channel is one channel that both threads share.",
};

pub(crate) const PACED: Section = Section {
    name: "latency",
    title: "a thread sends a message every 20 µs, to one source after another",
    figures: &["p50 µs", "p99 µs", "p99.9 µs"],
    columns: &[Column::new("8 sources", 8, 10_000), Column::new("1,024 sources", 1_024, 10_000)],
    contenders: &[
        Contender {
            name: FLOOR,
            role: Role::Floor,
            once: |load| {
                paced(load.in_channels(1), |mut all, log| stamp_by_loop(all.remove(0), log))
            },
        },
        paced_peer::<SelectAll>(),
        paced_peer::<Merged>(),
        paced_peer::<Group>(),
        paced_peer::<StreamMap>(),
        paced_peer::<Unicycle>(),
        paced_peer::<Buffered>(),
        Contender { name: OURS, role: Role::Ours, once: |load| paced(load, stamp_by_fan_in) },
    ],
    targets: &[],
    countable: false,
    note: "From just before a message is sent to its handler. The thread that drains sleeps in \
           between, so most of it is how long a thread takes to wake up.",
};

const fn flooded_peer<M: Merge>() -> Contender {
    Contender {
        name: M::NAME,
        role: Role::PeerOf(OURS),
        once: |load| flooded(load, |all| by_loop(all_of::<M>(load, all))),
    }
}

const fn paced_peer<M: Merge>() -> Contender {
    Contender {
        name: M::NAME,
        role: Role::PeerOf(OURS),
        once: |load| paced(load, |all, log| stamp_by_loop(all_of::<M>(load, all), log)),
    }
}

/// The merged stream up to the last message: that of `futures-buffered` may wait for ever where its
/// sources end together.
fn all_of<M: Merge>(load: Load, channels: Vec<Receiver<u64>>) -> impl Stream<Item = u64> {
    M::merge(channels).take(load.messages as usize)
}

/// Empty channels.
fn channels(load: Load, length: usize) -> (Vec<Sender<u64>>, Vec<Receiver<u64>>) {
    (0..load.size).map(|_| async_channel::bounded(length)).unzip()
}

/// Times from the first message that is sent to the last one that is handled.
fn flooded<F: Future<Output = u64>>(
    load: Load,
    drain: impl FnOnce(Vec<Receiver<u64>>) -> F,
) -> Vec<f64> {
    let (senders, receivers) = channels(load, LENGTH);
    let shares: Vec<Vec<_>> = if senders.len() < PRODUCERS {
        vec![senders; PRODUCERS]
    } else {
        let share = |producer| senders.iter().skip(producer).step_by(PRODUCERS).cloned().collect();
        let shares = (0..PRODUCERS).map(share).collect();
        // Whoever drains is to see the end.
        drop(senders);
        shares
    };
    let start = Barrier::new(PRODUCERS + 1);
    let took = thread::scope(|scope| {
        for (producer, senders) in shares.into_iter().enumerate() {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let own = (0..u64::from(load.messages)).skip(producer).step_by(PRODUCERS);
                for (number, sender) in own.zip(senders.iter().cycle()) {
                    sender.send_blocking(number).expect("somebody receives");
                }
            });
        }
        start.wait();
        let began = Instant::now();
        let sum = block_on(drain(receivers));
        assert_eq!(sum, load.sum(), "every message is handled once");
        began.elapsed()
    });
    load.each(took)
}

/// When messages were sent, and how long they took to come here.
struct Log {
    start: Instant,
    latencies: Mutex<Vec<u64>>,
}

impl Log {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    #[allow(clippy::unused_async, reason = "it stands for what waits")]
    async fn stamp(&self, sent: u64) -> Result<(), BoxError> {
        self.latencies().push(self.now() - sent);
        Ok(())
    }

    fn latencies(&self) -> MutexGuard<'_, Vec<u64>> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends the time, in nanoseconds since the start, and gives the percentiles of the latencies.
///
/// The thread that sends does not sleep: it would wake up too late.
fn paced<F: Future<Output = ()>>(
    load: Load,
    drain: impl FnOnce(Vec<Receiver<u64>>, Arc<Log>) -> F,
) -> Vec<f64> {
    let (senders, receivers) = channels(load, load.messages as usize);
    let log = Arc::new(Log { start: Instant::now(), latencies: Mutex::default() });
    thread::scope(|scope| {
        let log = &log;
        scope.spawn(move || {
            let begin = log.start.elapsed();
            for (number, sender) in (0..load.messages).zip(senders.iter().cycle()) {
                while log.start.elapsed() < begin + PACE * number {
                    spin_loop();
                }
                sender.try_send(log.now()).expect("it has room for all");
            }
        });
        block_on(drain(receivers, Arc::clone(log)));
    });
    let mut latencies = std::mem::take(&mut *log.latencies());
    assert_eq!(latencies.len(), load.messages as usize, "every message is handled once");
    latencies.sort_unstable();
    [500, 990, 999].map(|permille| percentile(&latencies, permille)).to_vec()
}

/// In microseconds.
#[allow(clippy::cast_precision_loss, reason = "nothing takes that long")]
fn percentile(sorted: &[u64], permille: usize) -> f64 {
    sorted[(sorted.len() * permille / 1_000).min(sorted.len() - 1)] as f64 / 1e3
}

async fn stamp_by_loop(messages: impl Stream<Item = u64>, log: Arc<Log>) {
    let mut messages = pin!(messages);
    while let Some(sent) = messages.next().await {
        log.stamp(sent).await.expect("no handler fails");
    }
}

async fn stamp_by_fan_in(channels: Vec<Receiver<u64>>, log: Arc<Log>) {
    let context = StepContext::new("latency");
    let drain = fan_in(&context, channels, |sent, _| log.stamp(sent));
    drain.await.expect("no handler fails");
}
