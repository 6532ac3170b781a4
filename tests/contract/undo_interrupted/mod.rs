//! Rollbacks that are dropped, cancelled, or run by several callers at once.

mod dropped;
mod together;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures::executor::block_on;
use futures::stream::{FuturesUnordered, StreamExt};
use watershed::{
    Action, CancellationSource, CompensationPolicy, CompensationScope, ErrorCode, Failure,
    Rollback, RollbackReport, labelled,
};

/// What every action did.
#[derive(Default)]
struct Tally {
    started: Vec<AtomicUsize>,
    succeeded: Vec<AtomicUsize>,
}

impl Tally {
    fn new(actions: usize) -> Arc<Self> {
        let zeros = || (0..actions).map(|_| AtomicUsize::new(0)).collect();
        Arc::new(Self { started: zeros(), succeeded: zeros() })
    }

    fn successes(&self) -> usize {
        self.succeeded.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    fn restarted(&self) -> usize {
        self.started.iter().filter(|count| count.load(Ordering::SeqCst) > 1).count()
    }

    fn assert_each_succeeded_once(&self) {
        for (number, count) in self.succeeded.iter().enumerate() {
            assert_eq!(count.load(Ordering::SeqCst), 1, "action {number}");
        }
    }

    fn assert_each_started_once(&self) {
        for (number, count) in self.started.iter().enumerate() {
            assert_eq!(count.load(Ordering::SeqCst), 1, "action {number}");
        }
    }
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Yields so many times, then has its effect and ends.
fn slow(tally: &Arc<Tally>, number: usize, yields: usize) -> impl Action + use<> {
    let tally = Arc::clone(tally);
    move || {
        let tally = Arc::clone(&tally);
        async move {
            tally.started[number].fetch_add(1, Ordering::SeqCst);
            for _ in 0..yields {
                yield_now().await;
            }
            tally.succeeded[number].fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A scope with so many actions, one after another yielding 0, 1, 2, 0, … times.
fn staged(actions: usize) -> (CompensationScope, Arc<Tally>) {
    let (scope, tally) = (CompensationScope::new(), Tally::new(actions));
    for number in 0..actions {
        scope.register_compensation(slow(&tally, number, number % 3));
    }
    (scope, tally)
}

fn policies() -> [CompensationPolicy; 4] {
    [
        CompensationPolicy::sequential_reverse(),
        CompensationPolicy::parallel(),
        CompensationPolicy::parallel_limited(1),
        CompensationPolicy::parallel_limited(3),
    ]
}

fn start(scope: &CompensationScope, policy: &CompensationPolicy) -> Rollback {
    scope.roll_back(policy)
}

fn poll(rollback: &mut Rollback) -> Poll<Result<RollbackReport, Failure<RollbackReport>>> {
    Pin::new(rollback).poll(&mut Context::from_waker(Waker::noop()))
}

fn polls_to_the_end(mut rollback: Rollback) -> usize {
    (1..100_000).find(|_| poll(&mut rollback).is_ready()).unwrap()
}

/// A waker that remembers whether it was woken since the last question.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}
