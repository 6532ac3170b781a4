//! A bank that is woken behind its last look, and the count of those that were woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Wake, Waker};

use super::ReadyQueue;

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_place_that_is_woken_when_its_bank_sleeps_already_is_polled() {
    let roused = Arc::new(AtomicUsize::new(0));
    let mut ready = ReadyQueue::new(&roused);
    let node = ready.node(0);
    let wakes = Arc::new(Wakes::default());
    let outer = ready.enter();
    assert_eq!(ready.pop(false), None);
    node.notify();
    assert!(ready.sleep(&Waker::from(Arc::clone(&wakes))));
    ready.leave(outer);
    assert_eq!((wakes.0.load(SeqCst), roused.load(SeqCst)), (1, 1));
    let outer = ready.enter();
    assert_eq!(ready.pop(false), Some(0));
    assert!(ready.sleep(&Waker::from(Arc::clone(&wakes))));
    ready.leave(outer);
    assert_eq!((wakes.0.load(SeqCst), roused.load(SeqCst)), (1, 0));
}

#[test]
fn a_bank_that_is_roused_in_its_turn_does_not_sleep_as_roused() {
    let roused = Arc::new(AtomicUsize::new(0));
    let mut ready = ReadyQueue::new(&roused);
    let outer = ready.enter();
    ready.inbox().rouse();
    assert_eq!(roused.load(SeqCst), 1);
    assert!(!ready.sleep(Waker::noop()), "it looks again");
    assert!(ready.sleep(Waker::noop()));
    ready.leave(outer);
    assert_eq!(roused.load(SeqCst), 0);
}

#[test]
fn a_bank_that_is_gone_does_not_count_as_roused() {
    let roused = Arc::new(AtomicUsize::new(0));
    let mut ready = ReadyQueue::new(&roused);
    let node = ready.node(0);
    drop(ready);
    assert_eq!(roused.load(SeqCst), 0);
    node.notify();
    assert_eq!(roused.load(SeqCst), 0);
}
