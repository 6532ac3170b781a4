//! No wake-up is lost, and nothing idle is polled.

use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures::Stream;
use futures::task::AtomicWaker;
use watershed::testing::Simulation;
use watershed::{BoxError, StepContext, fan_in};

use crate::effort::effort;

/// A source that is given its messages by hand. Clones are the same one.
#[derive(Clone, Default)]
struct Feed(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waker: AtomicWaker,
    queue: Mutex<VecDeque<u64>>,
    closed: AtomicBool,
    wakes: AtomicU64,
    polls: AtomicU64,
    yielded: AtomicU64,
    /// It was woken, or yielded a message, or is new: then it may be polled.
    due: AtomicBool,
    /// Polls when it was not due.
    idle_polls: AtomicU64,
}

impl Feed {
    fn new() -> Self {
        let feed = Self::default();
        feed.0.due.store(true, Ordering::SeqCst);
        feed
    }

    fn send(&self, message: u64) {
        self.0.queue.lock().expect("no panic under the lock").push_back(message);
        self.wake();
    }

    /// Wakes whoever polled it, with or without cause.
    fn wake(&self) {
        self.0.wakes.fetch_add(1, Ordering::SeqCst);
        self.0.due.store(true, Ordering::SeqCst);
        self.0.waker.wake();
    }

    fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn polls(&self) -> u64 {
        self.0.polls.load(Ordering::SeqCst)
    }

    fn yielded(&self) -> u64 {
        self.0.yielded.load(Ordering::SeqCst)
    }
}

impl Stream for Feed {
    type Item = u64;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        let shared = &*self.0;
        shared.polls.fetch_add(1, Ordering::SeqCst);
        if !shared.due.swap(false, Ordering::SeqCst) {
            shared.idle_polls.fetch_add(1, Ordering::SeqCst);
        }
        shared.waker.register(cx.waker());
        // Asked before the queue is: nothing is sent behind the end.
        let closed = shared.closed.load(Ordering::SeqCst);
        match shared.queue.lock().expect("no panic under the lock").pop_front() {
            Some(message) => {
                shared.yielded.fetch_add(1, Ordering::SeqCst);
                shared.due.store(true, Ordering::SeqCst);
                Poll::Ready(Some(message))
            }
            None if closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// Whether the task was woken since it was asked last.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls a future as long as it is woken.
fn run_while_woken<F: Future + Unpin>(
    future: &mut F,
    woken: &Arc<Woken>,
) -> (u64, Poll<F::Output>) {
    let waker = Waker::from(Arc::clone(woken));
    let mut polls = 0;
    while woken.0.swap(false, Ordering::SeqCst) {
        polls += 1;
        let poll = Pin::new(&mut *future).poll(&mut Context::from_waker(&waker));
        if poll.is_ready() {
            return (polls, poll);
        }
    }
    (polls, Poll::Pending)
}

/// Sends at random, a burst at a time, and lets the drain run only when it is woken. Everything
/// sent is handled by then, and no source was polled that was neither woken nor had a message.
fn send_at_random(
    sources: usize,
    handlers: usize,
    waits: bool,
    wakes: u64,
    seed: u64,
) -> (u64, u64) {
    let simulation = Simulation::new(seed);
    let world = simulation.world();
    let below = |end: usize| usize::try_from(world.below(end as u64)).expect("it fits");
    let feeds: Vec<Feed> = (0..sources).map(|_| Feed::new()).collect();
    let (handled, sum) = (AtomicU64::new(0), AtomicU64::new(0));
    let context = StepContext::new("wakes");
    let drain = fan_in(&context, feeds.clone(), |message, _| {
        let mut left = if waits { message % 3 } else { 0 };
        let (handled, sum) = (&handled, &sum);
        std::future::poll_fn(move |cx| {
            if left > 0 {
                left -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            handled.fetch_add(1, Ordering::SeqCst);
            sum.fetch_add(message, Ordering::SeqCst);
            Poll::Ready(Ok::<_, BoxError>(()))
        })
    });
    let mut drain = drain.concurrency(handlers).into_future();
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let (mut polls, pending) = run_while_woken(&mut drain, &woken);
    assert!(pending.is_pending());
    assert!(feeds.iter().all(|feed| feed.polls() == 1), "each is polled once when it is new");

    let (mut sent, mut total, mut stray) = (0, 0, 0);
    while sent + stray < wakes {
        let touched: Vec<usize> = (0..=below(8)).map(|_| below(sources)).collect();
        for source in &touched {
            if world.below(4) == 0 {
                feeds[*source].wake();
                stray += 1;
            } else {
                feeds[*source].send(sent);
                total += sent;
                sent += 1;
            }
        }
        let before: Vec<_> =
            touched.iter().map(|source| polls_and_yields(&feeds[*source])).collect();
        polls += run_while_woken(&mut drain, &woken).0;
        assert_eq!(handled.load(Ordering::SeqCst), sent, "everything sent is handled");
        for (source, (polls, yielded)) in touched.iter().zip(before) {
            let (polls_now, yielded_now) = polls_and_yields(&feeds[*source]);
            // One poll a message, and one that finds it empty each time it was woken.
            let woken = touched.iter().filter(|other| *other == source).count() as u64;
            let most = yielded_now - yielded + woken;
            assert!(polls_now - polls <= most, "{} polls, at most {most}", polls_now - polls);
        }
    }
    // Over all: a poll without a message needs a wake-up of that source, or is the first.
    for feed in &feeds {
        let empty = feed.polls() - feed.yielded();
        assert!(empty <= 1 + feed.0.wakes.load(Ordering::SeqCst), "{empty} empty polls");
        assert_eq!(feed.0.idle_polls.load(Ordering::SeqCst), 0, "polled while it was idle");
    }
    feeds.iter().for_each(Feed::close);
    let ended = run_while_woken(&mut drain, &woken).1;
    let Poll::Ready(report) = ended else { panic!("the end of a source was not noticed") };
    assert_eq!(report.expect("it succeeds").handled(), sent);
    assert_eq!(sum.load(Ordering::SeqCst), total, "each message once");
    (polls, feeds.iter().map(|feed| feed.polls() - feed.yielded()).sum())
}

fn polls_and_yields(feed: &Feed) -> (u64, u64) {
    (feed.polls(), feed.yielded())
}

// Rules 2.1, 2.4, 2.5
#[test]
fn a_million_random_wake_ups_are_neither_lost_nor_wasted() {
    let wakes = effort(2_000, 1_000_000_u64.div_ceil(18), 1_000_000);
    let mut all = 0;
    for sources in [1, 10, 1_000] {
        for (handlers, waits) in [(1, false), (1, true), (2, true), (16, true)] {
            let seed = (sources + handlers) as u64;
            let (polls, empty) = send_at_random(sources, handlers, waits, wakes, seed);
            all += wakes;
            println!(
                "{sources} sources, {handlers} handlers, waiting {waits}: {wakes} wake-ups, \
                 {polls} polls of the drain, {empty} polls that found a source empty"
            );
        }
    }
    for sources in [100, 10_000] {
        for handlers in [1, 2, 16] {
            let (polls, empty) = send_at_random(sources, handlers, handlers > 1, wakes, 7);
            all += wakes;
            println!(
                "{sources} sources, {handlers} handlers: {polls} polls, {empty} found one empty"
            );
        }
    }
    println!("{all} wake-ups in all, none lost, no poll of a source that was idle");
}

// Rules 2.4, 5.3
#[test]
fn a_drain_is_woken_by_eight_threads_and_loses_nothing() {
    const THREADS: u64 = 8;
    let each = effort(10_000, 125_000, 1_250_000);
    for shared in [true, false] {
        let count = if shared { 1 } else { 8 };
        let feeds: Vec<Feed> = (0..count).map(|_| Feed::new()).collect();
        let left = Arc::new(AtomicU64::new(THREADS));
        let senders = (0..THREADS).map(|thread| {
            let (feeds, left) = (feeds.clone(), Arc::clone(&left));
            std::thread::spawn(move || {
                for message in 0..each {
                    feeds[usize::try_from(thread).expect("it fits") % feeds.len()]
                        .send(thread * each + message);
                }
                if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                    feeds.iter().for_each(Feed::close);
                }
            })
        });
        let senders: Vec<_> = senders.collect();
        let mut seen = vec![false; usize::try_from(THREADS * each).expect("it fits")];
        let context = StepContext::new("threads");
        let drain = fan_in(&context, feeds.clone(), |message, _| {
            let place = &mut seen[usize::try_from(message).expect("it fits")];
            assert!(!std::mem::replace(place, true), "{message} came twice");
            async { Ok::<_, BoxError>(()) }
        });
        let report = futures::executor::block_on(drain.into_future()).expect("it succeeds");
        for sender in senders {
            sender.join().expect("no panic");
        }
        assert_eq!(report.handled(), THREADS * each);
        let empty: u64 = feeds.iter().map(|feed| feed.polls() - feed.yielded()).sum();
        println!(
            "{} wake-ups of {count} sources by {THREADS} threads, {empty} polls found one empty",
            THREADS * each,
        );
        assert!(seen.into_iter().all(|seen| seen));
    }
}

// Rules 2.4, 5.3
#[test]
fn a_drain_that_sleeps_between_messages_is_woken_by_each_of_eight_threads() {
    const THREADS: usize = 8;
    let each = effort(200, 10_000, 100_000);
    let feed = Feed::new();
    let left = Arc::new(AtomicU64::new(THREADS as u64));
    let (mut answers, mut senders) = (Vec::new(), Vec::new());
    for thread in 0..THREADS {
        let (answer, answered) = std::sync::mpsc::channel();
        answers.push(answer);
        let (feed, left) = (feed.clone(), Arc::clone(&left));
        senders.push(std::thread::spawn(move || {
            for _ in 0..each {
                feed.send(thread as u64);
                // A wake-up that is lost leaves everybody waiting here.
                answered.recv().expect("it is handled");
            }
            if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                feed.close();
            }
        }));
    }
    let context = StepContext::new("threads");
    let drain = fan_in(&context, [feed.clone()], |thread, _| {
        let sent = answers[usize::try_from(thread).expect("it fits")].send(());
        async move { sent }
    });
    let report = futures::executor::block_on(drain.into_future()).expect("it succeeds");
    for sender in senders {
        sender.join().expect("no panic");
    }
    assert_eq!(report.handled(), THREADS as u64 * each);
    let empty = feed.polls() - feed.yielded();
    println!(
        "{} wake-ups by {THREADS} threads that wait for their answer, {empty} polls found nothing",
        report.handled()
    );
}
