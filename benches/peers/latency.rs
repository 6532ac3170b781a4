//! How long messages wait: those of one rare source beside many that are always ready, and those
//! that come from the first poll on. And how long it takes to set up.
//!
//! All of it happens on one thread, so that it does not measure how long a thread takes to wake up.

use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use futures::executor::block_on;
use futures::future::Either;
use futures::stream::{Stream, StreamExt};
use futures::task::{ArcWake, waker_ref};
use watershed::{BoxError, StepContext, fan_in};

use crate::support::channels::Load;
use crate::support::marks::{Bound, Mark};
use crate::support::merges::{Buffered, Merge, Merged, SelectAll};
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "fan_in";

const P50: &str = "p50 µs";
const P99: &str = "p99 µs";
const P999: &str = "p99.9 µs";
const BETWEEN: &str = "most messages in between";
const EACH: &str = "ns a source";

/// Messages a source in one turn: `fan_in`'s default.
const QUANTUM: u64 = 64;

pub(crate) const RARE: Section = Section {
    name: "rare",
    title: "one rare source among others that are always ready",
    figures: &[P50, P99, BETWEEN],
    columns: &[Column::new("63 ready", 64, 150), Column::new("1,023 ready", 1_024, 150)],
    contenders: &[
        Contender {
            name: SelectAll::NAME,
            role: Role::PeerOf(OURS),
            once: |load| rare(load, 1, |all, log| block_on(rare_by_loop(all, log))),
        },
        Contender {
            name: OURS,
            role: Role::Ours,
            once: |load| rare(load, QUANTUM, |all, log| block_on(rare_by_fan_in(all, log))),
        },
    ],
    marks: &[
        Mark {
            what: "fan_in",
            figure: BETWEEN,
            of: &[OURS],
            to: None,
            // Twice the quantum with one bank, (banks + 2) × 256 with several.
            bound: Bound::Most(&[(64, 128.0), (1_024, 1_536.0)]),
        },
        Mark {
            what: "fan_in to select_all",
            figure: P99,
            of: &[OURS],
            to: Some(SelectAll::NAME),
            bound: Bound::Most(&[(64, 0.3), (1_024, 0.3)]),
        },
    ],
    countable: false,
    note: "The rare source has at most one message a round. It is sent by the handler of another \
           one, and counted until its own handler is called.",
};

pub(crate) const FIRST_POLL: Section = Section {
    name: "first_poll",
    title: "10,000 messages over 1,024 sources, one every 20 µs from the first poll on",
    figures: &[P50, P99, P999],
    columns: &[Column::new("1,024 sources", 1_024, 10_000)],
    contenders: &[
        first_poll_peer::<SelectAll>(),
        first_poll_peer::<Buffered>(),
        first_poll_peer::<Merged>(),
        Contender { name: OURS, role: Role::Ours, once: |load| paced(load, paced_by_fan_in) },
    ],
    marks: &[Mark {
        what: "fan_in to select_all",
        figure: P999,
        of: &[OURS],
        to: Some(SelectAll::NAME),
        bound: Bound::Most(&[(1_024, 0.7)]),
    }],
    countable: false,
    note: "A message is sent when it is due, before each poll of the drain and of a source.",
};

pub(crate) const SETUP: Section = Section {
    name: "setup",
    title: "setting up: until every source was polled once and has nothing",
    figures: &[EACH],
    columns: &[Column::new("16,384 sources", 16_384, 1)],
    contenders: &[
        setup_peer::<SelectAll>(),
        setup_peer::<Buffered>(),
        Contender {
            name: OURS,
            role: Role::Ours,
            once: |load| {
                setting_up(load, |all| async {
                    let context = StepContext::new("idle");
                    let handler = |_, _| async { Ok::<_, BoxError>(()) };
                    fan_in(&context, all, handler).await.expect("no handler fails");
                })
            },
        },
    ],
    marks: &[Mark {
        what: "fan_in to select_all",
        figure: EACH,
        of: &[OURS],
        to: Some(SelectAll::NAME),
        bound: Bound::Most(&[(16_384, 1.25)]),
    }],
    countable: false,
    note: "",
};

const fn first_poll_peer<M: Merge>() -> Contender {
    Contender {
        name: M::NAME,
        role: Role::PeerOf(OURS),
        once: |load| paced(load, paced_by_loop::<M>),
    }
}

const fn setup_peer<M: Merge>() -> Contender {
    Contender {
        name: M::NAME,
        role: Role::PeerOf(OURS),
        once: |load| {
            setting_up(load, |all| async {
                let mut messages = pin!(M::merge(all));
                while messages.next().await.is_some() {}
            })
        },
    }
}

/// How long messages took, in nanoseconds.
struct Latencies {
    start: Instant,
    all: Mutex<Vec<u64>>,
}

impl Latencies {
    fn new() -> Self {
        Self { start: Instant::now(), all: Mutex::default() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn add(&self, since: u64) {
        locked(&self.all).push(self.now() - since);
    }

    /// In microseconds.
    fn percentiles<const N: usize>(&self, load: Load, permille: [usize; N]) -> Vec<f64> {
        let mut all = locked(&self.all).clone();
        assert_eq!(all.len(), load.messages as usize, "every message is handled once");
        all.sort_unstable();
        let at = |permille: usize| all[(all.len() * permille / 1_000).min(all.len() - 1)];
        permille.map(|permille| Duration::from_nanos(at(permille)).as_secs_f64() * 1e6).to_vec()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A source that always has a message, or the rare one.
type ReadyOrRare = Either<Ready, Pin<Box<Receiver<u64>>>>;

struct Ready;

/// What a source yields that is always ready; the rare one yields when it was sent.
const NOTHING: u64 = 0;

impl Stream for Ready {
    type Item = u64;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u64>> {
        Poll::Ready(Some(black_box(NOTHING)))
    }
}

/// What is known of the rare messages.
struct RareLog {
    latencies: Latencies,
    sender: Sender<u64>,
    left: AtomicU64,
    /// Messages of the others: in all, when the last rare one was sent, and when the next one is.
    count: AtomicU64,
    sent_at: AtomicU64,
    next_at: AtomicU64,
    most_between: AtomicU64,
    /// Messages between two rare ones, at least.
    gap: u64,
}

impl RareLog {
    /// Returns whether it was the last rare message.
    #[inline]
    fn handle(&self, sent: u64) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        if sent != NOTHING {
            return self.arrived(sent, count);
        }
        self.count.store(count + 1, Ordering::Relaxed);
        if count + 1 == self.next_at.load(Ordering::Relaxed) {
            self.sent_at.store(count + 1, Ordering::Relaxed);
            self.sender.try_send(self.latencies.now()).expect("the last one has arrived");
        }
        false
    }

    #[cold]
    fn arrived(&self, sent: u64, count: u64) -> bool {
        self.latencies.add(sent);
        let between = count - self.sent_at.load(Ordering::Relaxed);
        self.most_between.fetch_max(between, Ordering::Relaxed);
        self.next_at.store(count + self.gap + fastrand::u64(0..self.gap), Ordering::Relaxed);
        self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// `turn`: how many messages of one source the contender takes before those of others.
#[allow(clippy::cast_precision_loss, reason = "nobody waits for so many messages")]
fn rare(load: Load, turn: u64, drain: impl FnOnce(Vec<ReadyOrRare>, &RareLog)) -> Vec<f64> {
    let load = Load { messages: load.messages.min(150), ..load };
    let (sender, receiver) = async_channel::bounded(1);
    let mut sources: Vec<_> = (1..load.size).map(|_| Either::Left(Ready)).collect();
    sources.insert(load.size as usize / 2, Either::Right(Box::pin(receiver)));
    // More than a round.
    let gap = u64::from(load.size) * turn * 3 / 2;
    let log = RareLog {
        latencies: Latencies::new(),
        sender,
        left: AtomicU64::new(load.messages.into()),
        count: AtomicU64::new(0),
        sent_at: AtomicU64::new(0),
        next_at: AtomicU64::new(gap),
        most_between: AtomicU64::new(0),
        gap,
    };
    drain(sources, &log);
    let mut figures = log.latencies.percentiles(load, [500, 990]);
    figures.push(log.most_between.load(Ordering::Relaxed) as f64);
    figures
}

async fn rare_by_loop(sources: Vec<ReadyOrRare>, log: &RareLog) {
    let mut messages = pin!(SelectAll::merge(sources));
    while let Some(sent) = messages.next().await {
        if log.handle(sent) {
            return;
        }
    }
}

async fn rare_by_fan_in(sources: Vec<ReadyOrRare>, log: &RareLog) {
    let context = StepContext::new("rare");
    let handler = |sent, _| async move {
        if log.handle(sent) { Err(BoxError::from("the last one")) } else { Ok(()) }
    };
    fan_in(&context, sources, handler).await.expect_err("the last one ends it");
}

/// Sends messages when they are due, one source after another, from the thread that drains them.
struct Pump {
    latencies: Latencies,
    senders: Mutex<Vec<Sender<u64>>>,
    sent: AtomicU64,
    most: u64,
}

/// The time between two messages, in nanoseconds.
const PACE: u64 = 20_000;

impl Pump {
    /// Sends what is due. After the last message the sources end.
    fn go_on(&self) {
        loop {
            let sent = self.sent.load(Ordering::Relaxed);
            let due = sent * PACE;
            if sent == self.most || self.latencies.now() < due {
                return;
            }
            self.sent.store(sent + 1, Ordering::Relaxed);
            let mut senders = locked(&self.senders);
            let place = usize::try_from(sent).unwrap_or_default() % senders.len();
            senders[place].try_send(due).expect("it has room");
            if sent + 1 == self.most {
                let senders = std::mem::take(&mut *senders);
                drop(senders);
            }
        }
    }

    fn handle(&self, due: u64) {
        self.latencies.add(due);
    }
}

/// A source that has what is due by now.
struct Pumped {
    receiver: Pin<Box<Receiver<u64>>>,
    pump: Arc<Pump>,
}

impl Stream for Pumped {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.pump.go_on();
        self.receiver.as_mut().poll_next(cx)
    }
}

fn paced<F: Future<Output = ()>>(
    load: Load,
    drain: impl FnOnce(Vec<Pumped>, Arc<Pump>) -> F,
) -> Vec<f64> {
    let most = load.messages as usize;
    let length = most / load.size as usize + 1;
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..load.size).map(|_| async_channel::bounded(length)).unzip();
    let pump = Arc::new(Pump {
        latencies: Latencies::new(),
        senders: Mutex::new(senders),
        sent: AtomicU64::new(0),
        most: load.messages.into(),
    });
    let pumped = |receiver| Pumped { receiver: Box::pin(receiver), pump: Arc::clone(&pump) };
    let sources = receivers.into_iter().map(pumped).collect();
    let mut future = pin!(drain(sources, Arc::clone(&pump)));
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = waker_ref(&woken);
    let cx = &mut Context::from_waker(&waker);
    loop {
        pump.go_on();
        if woken.0.swap(false, Ordering::Relaxed) && future.as_mut().poll(cx).is_ready() {
            break;
        }
    }
    pump.latencies.percentiles(load, [500, 990, 999])
}

async fn paced_by_loop<M: Merge>(sources: Vec<Pumped>, pump: Arc<Pump>) {
    let most = usize::try_from(pump.most).unwrap_or(usize::MAX);
    let mut messages = pin!(M::merge(sources).take(most));
    while let Some(due) = messages.next().await {
        pump.handle(due);
    }
}

async fn paced_by_fan_in(sources: Vec<Pumped>, pump: Arc<Pump>) {
    let context = StepContext::new("latency");
    let handler = |due, _| {
        let pump = &pump;
        async move {
            pump.handle(due);
            Ok::<_, BoxError>(())
        }
    };
    fan_in(&context, sources, handler).await.expect("no handler fails");
}

/// A waker that notes that it was called.
struct Woken(AtomicBool);

impl ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.0.store(true, Ordering::Relaxed);
    }
}

/// Counts its polls.
struct Counted {
    receiver: Pin<Box<Receiver<u64>>>,
    polls: Arc<AtomicU64>,
}

impl Stream for Counted {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.polls.store(self.polls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.receiver.as_mut().poll_next(cx)
    }
}

fn setting_up<F: Future<Output = ()>>(
    load: Load,
    drain: impl FnOnce(Vec<Counted>) -> F,
) -> Vec<f64> {
    let (senders, receivers): (Vec<Sender<u64>>, Vec<_>) =
        (0..load.size).map(|_| async_channel::bounded(1)).unzip();
    let polls = Arc::new(AtomicU64::new(0));
    let counted = |receiver| Counted { receiver: Box::pin(receiver), polls: Arc::clone(&polls) };
    let sources = receivers.into_iter().map(counted).collect();
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = waker_ref(&woken);
    let cx = &mut Context::from_waker(&waker);
    let start = Instant::now();
    let mut future = pin!(drain(sources));
    while woken.0.swap(false, Ordering::Relaxed) {
        assert!(future.as_mut().poll(cx).is_pending(), "no source has ended");
    }
    let took = start.elapsed();
    assert_eq!(polls.load(Ordering::Relaxed), load.size.into(), "each was polled once");
    drop(senders);
    Load { messages: load.size, ..load }.each(took)
}
