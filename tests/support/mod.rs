//! What the tests share: filled channels, a ledger of effects, a poll counter, an executor.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

#[macro_use]
pub mod matrix;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use async_channel::Receiver;
use watershed::{
    CancellationToken, CompensationPolicy, CompensationScope, StepContext, run_compensation,
};

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

/// Polls a future at most `times` times; `None` when it was still pending.
pub fn poll_times<F: Future + Unpin>(future: &mut F, times: usize) -> Option<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..times {
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut cx) {
            return Some(output);
        }
    }
    None
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

/// Runs everything staged, in reverse, and tells how many actions that were.
pub fn roll_back(scope: &CompensationScope) -> usize {
    let policy = CompensationPolicy::sequential_reverse();
    let rollback = run_compensation(&policy, scope, CancellationToken::never());
    block_on(rollback).expect("every action succeeds").succeeded()
}

/// Runs a drain, or any future, on this thread.
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    futures::executor::block_on(future.into_future())
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
