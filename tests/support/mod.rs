//! What the tests share: filled channels, a ledger of effects, a poll counter, an executor.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod alone;
pub mod cannot_wait;
pub mod ending;
pub mod fed;
#[macro_use]
pub mod matrix;
pub mod neighbours;
#[macro_use]
pub mod orders;
pub mod programs;

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use async_channel::Receiver;
use watershed::{CompensationPolicy, CompensationScope, ManualClock, StepContext};

/// A closed channel that holds the given messages.
pub fn filled<T>(messages: impl IntoIterator<Item = T>) -> Receiver<T> {
    let (sender, receiver) = async_channel::unbounded();
    for message in messages {
        sender.try_send(message).expect("the channel is open");
    }
    receiver
}

/// Takes what is left in a channel.
pub fn left_in<T>(receiver: &Receiver<T>) -> Vec<T> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

/// Pending so many times, waking itself.
pub async fn yields(times: usize) {
    for _ in 0..times {
        let mut yielded = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

thread_local! {
    /// Those who rest on this thread.
    static RESTING: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// Pending so many times; woken once a poll by [`poll_times`] and [`block_on`], and by nothing else. So a drain,
/// which polls handlers that wake themselves again at once, is polled as often as its handlers.
pub async fn rests(times: usize) {
    for _ in 0..times {
        let mut rested = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut rested, true) {
                return Poll::Ready(());
            }
            RESTING.with_borrow_mut(|resting| resting.push(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

fn wake_resting() -> bool {
    let resting = RESTING.take();
    let any = !resting.is_empty();
    resting.into_iter().for_each(Waker::wake);
    any
}

/// Polls a future at most `times` times; `None` when it was still pending.
pub fn poll_times<F: Future + Unpin>(future: &mut F, times: usize) -> Option<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..times {
        wake_resting();
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut cx) {
            return Some(output);
        }
    }
    None
}

/// A task that is polled by hand, and counts its wake-ups.
pub struct Hand<F> {
    pub future: Pin<Box<F>>,
    woken: Arc<Woken>,
}

/// Counts wake-ups.
#[derive(Default)]
pub struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl<F: Future> Hand<F> {
    pub fn new(future: F) -> Self {
        Self { future: Box::pin(future), woken: Arc::default() }
    }

    /// How often it was woken so far.
    pub fn wakes(&self) -> usize {
        self.woken.0.load(Ordering::SeqCst)
    }

    pub fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Polls as an executor would, until it waits for something.
    pub fn run(&mut self) -> Poll<F::Output> {
        loop {
            let before = self.wakes();
            if let Poll::Ready(output) = self.poll() {
                return Poll::Ready(output);
            }
            if self.wakes() == before {
                return Poll::Pending;
            }
        }
    }

    /// Polls as an executor would, and panics where it waits, or runs for ever.
    pub fn finish(&mut self) -> F::Output {
        for _ in 0..10_000_000 {
            let before = self.wakes();
            if let Poll::Ready(output) = self.poll() {
                return output;
            }
            assert!(self.wakes() > before, "it waits, and nobody will wake it");
        }
        panic!("it never ends");
    }

    /// The same with a clock that jumps to the next timer whenever it waits.
    pub fn finish_by(&mut self, clock: &ManualClock) -> F::Output {
        for _ in 0..10_000_000 {
            let before = self.wakes();
            if let Poll::Ready(output) = self.poll() {
                return output;
            }
            if self.wakes() == before {
                assert!(clock.advance_to_next(), "it waits, and not for the clock");
                assert!(self.wakes() > before, "the clock woke somebody else");
            }
        }
        panic!("it never ends");
    }
}

/// A step that lives by a clock that is moved by hand.
pub fn manual(name: &'static str) -> (StepContext, ManualClock) {
    let clock = ManualClock::new();
    (StepContext::new(name).with_clock(Arc::new(clock.clone())), clock)
}

/// What happened, in order. Clones are the same log.
#[derive(Debug)]
pub struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Log<T> {
    pub fn push(&self, entry: T) {
        self.0.lock().expect("no panic under the lock").push(entry);
    }

    pub fn len(&self) -> usize {
        self.0.lock().expect("no panic under the lock").len()
    }

    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().expect("no panic under the lock"))
    }
}

impl<T: Clone> Log<T> {
    pub fn all(&self) -> Vec<T> {
        self.0.lock().expect("no panic under the lock").clone()
    }
}

/// The error of a handler that names its message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("message {0} is bad")]
pub struct Bad(pub u32);

/// Something that is waited for until it is opened.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Gate {
    pub fn open(&self) {
        let wakers = {
            let mut gate = self.0.lock().expect("no panic under the lock");
            gate.0 = true;
            std::mem::take(&mut gate.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub async fn wait(&self) {
        std::future::poll_fn(|cx| {
            let mut gate = self.0.lock().expect("no panic under the lock");
            if gate.0 {
                return Poll::Ready(());
            }
            gate.1.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Runs on another thread; `None` if it takes longer than that.
pub fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(sender.send(work())));
    receiver.recv_timeout(limit).ok()
}

/// How long that took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

/// Effects that were done, and undone, in order.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<(Vec<u32>, Vec<u32>)>>);

impl Ledger {
    /// Does an effect and registers its compensation.
    pub fn apply(&self, step: &StepContext, effect: u32) {
        self.0.lock().expect("no panic under the lock").0.push(effect);
        step.register_compensation_with(self.clone(), move |ledger| async move {
            ledger.0.lock().expect("no panic under the lock").1.push(effect);
        });
    }

    /// Does an effect whose compensation is pending twice before it counts.
    pub fn apply_slowly(&self, step: &StepContext, effect: u32) {
        self.0.lock().expect("no panic under the lock").0.push(effect);
        step.register_compensation_with(self.clone(), move |ledger| async move {
            yields(2).await;
            ledger.0.lock().expect("no panic under the lock").1.push(effect);
        });
    }

    /// Does an effect whose compensation [`rests`] twice before it counts.
    pub fn apply_at_rest(&self, step: &StepContext, effect: u32) {
        self.0.lock().expect("no panic under the lock").0.push(effect);
        step.register_compensation_with(self.clone(), move |ledger| async move {
            rests(2).await;
            ledger.0.lock().expect("no panic under the lock").1.push(effect);
        });
    }

    pub fn done(&self) -> Vec<u32> {
        self.0.lock().expect("no panic under the lock").0.clone()
    }

    pub fn undone(&self) -> Vec<u32> {
        self.0.lock().expect("no panic under the lock").1.clone()
    }

    /// Everything that was done was undone, in exact reverse.
    pub fn assert_undone_in_reverse(&self) {
        let mut undone = self.undone();
        undone.reverse();
        assert_eq!(self.done(), undone);
    }
}

/// Rollbacks that run their actions one by one, all at once, and two at once.
pub fn policies() -> [CompensationPolicy; 3] {
    [
        CompensationPolicy::sequential_reverse(),
        CompensationPolicy::parallel(),
        CompensationPolicy::parallel_limited(2),
    ]
}

/// Runs everything staged, in reverse, and tells how many actions that were.
pub fn roll_back(scope: &CompensationScope) -> usize {
    let policy = CompensationPolicy::sequential_reverse();
    block_on(scope.roll_back(&policy)).expect("every action succeeds").succeeded()
}

/// Runs a drain, or any future, on this thread.
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    futures::executor::block_on(std::future::poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if wake_resting() {
            cx.waker().wake_by_ref();
        }
        polled
    }))
}

/// A small executor: the thread parks until it is woken.
pub fn custom_block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
