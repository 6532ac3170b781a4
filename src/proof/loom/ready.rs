//! Wake-ups of the places of a bank, against a bank that has its turn and goes to sleep.

use std::sync::Arc;
use std::task::Poll;

use super::super::executor::{block_on, poll_once};
use super::every_schedule;
use crate::ready::{Node, ReadyQueue};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::thread;

/// A bank that has a turn at each poll, as those of a drain have.
struct Bank {
    ready: ReadyQueue,
    roused: Arc<AtomicUsize>,
}

impl Bank {
    fn new() -> Self {
        let roused = Arc::new(AtomicUsize::new(0));
        Self { ready: ReadyQueue::new(&roused), roused }
    }

    /// One turn. Every place that is polled is handed to `serve`, and the bank sleeps when none is
    /// left.
    fn turn(&mut self, task: &std::task::Waker, mut serve: impl FnMut(u32)) {
        let outer = self.ready.enter();
        loop {
            while let Some(place) = self.ready.pop(false) {
                serve(place);
            }
            if self.ready.has_more() {
                self.ready.advance();
            } else if self.ready.sleep(task) {
                break;
            }
        }
        self.ready.leave(outer);
    }

    /// Has turns until `done`, asleep between them.
    async fn run(mut self, mut serve: impl FnMut(u32), done: impl Fn() -> bool) -> Self {
        std::future::poll_fn(|cx| {
            self.turn(cx.waker(), &mut serve);
            if done() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self
    }
}

/// What a place has to do: made before its wake-up, by any thread.
struct Work(AtomicUsize);

impl Work {
    fn give(&self, node: &Arc<Node>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        node.notify();
    }

    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

// Rule 2.5
#[test]
fn a_wake_up_is_never_lost() {
    every_schedule("two threads wake two places of a bank that sleeps", Some(3), || {
        let mut bank = Bank::new();
        let places =
            [0, 1].map(|number| (bank.ready.node(number), Arc::new(Work(AtomicUsize::new(0)))));
        let threads = places.each_ref().map(|(node, work)| {
            let (node, work) = (Arc::clone(node), Arc::clone(work));
            thread::spawn(move || work.give(&node))
        });
        let done = std::cell::Cell::new(0);
        let serve = |place| done.set(done.get() + places[place as usize].1.take());
        block_on(bank.run(serve, || done.get() == 2));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

// Rule 2.5
#[test]
fn a_wake_up_in_another_word_is_never_lost() {
    every_schedule("a place far away is woken twice", Some(3), || {
        let mut bank = Bank::new();
        // Of the first block, of the second, and of the same group of words as the first.
        let places = [1, 300, 64 * 63 + 1].map(|number| bank.ready.node(number));
        let work = Arc::new([0, 1, 2].map(|_| Work(AtomicUsize::new(0))));
        let far = (Arc::clone(&work), places[2].clone(), places[1].clone());
        let other = thread::spawn(move || {
            let (work, last, middle) = far;
            work[2].give(&last);
            work[1].give(&middle);
        });
        work[0].give(&places[0]);
        let done = std::cell::Cell::new(0);
        let serve = |place| {
            let index = places.iter().position(|node| node.number == place).unwrap();
            done.set(done.get() + work[index].take());
        };
        block_on(bank.run(serve, || done.get() == 3));
        other.join().unwrap();
    });
}

// Rule 2.5
#[test]
fn a_place_that_wakes_itself_and_is_woken_by_another_thread_goes_on() {
    every_schedule("a place is woken in its turn, here and elsewhere", Some(3), || {
        let mut bank = Bank::new();
        let node = bank.ready.node(0);
        let work = Arc::new(Work(AtomicUsize::new(0)));
        let (far, given) = (Arc::clone(&node), Arc::clone(&work));
        let other = thread::spawn(move || given.give(&far));
        work.give(&node);
        let (done, turns) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let serve = |_| {
            // Twice by itself, on the thread of the bank.
            if turns.replace(turns.get() + 1) < 2 {
                work.give(&node);
            }
            done.set(done.get() + work.take());
        };
        // Its own wake-ups may come together with the other one's.
        block_on(bank.run(serve, || done.get() >= 3 && turns.get() >= 2));
        other.join().unwrap();
        assert!(turns.get() <= 5);
    });
}

// Rules 2.5 and 2.10
#[test]
fn a_bank_that_sleeps_is_not_counted_as_roused() {
    every_schedule("a bank is roused by its drain and by a waker", None, || {
        let mut bank = Bank::new();
        let node = bank.ready.node(0);
        bank.turn(std::task::Waker::noop(), drop);
        let work = Arc::new(Work(AtomicUsize::new(0)));
        let (far, given) = (Arc::clone(&node), Arc::clone(&work));
        let other = thread::spawn(move || given.give(&far));
        // As a drain does that sends a source there, or begins a round.
        bank.ready.inbox().rouse();
        let seen = std::cell::Cell::new(0);
        let roused = Arc::clone(&bank.roused);
        // Whoever finds it roused has the waker called: the bank is polled again.
        let asleep = || seen.get() == 1 && roused.load(Ordering::Acquire) == 0;
        block_on(bank.run(|_| seen.set(seen.get() + work.take()), asleep));
        other.join().unwrap();
    });
}

// Rule 2.10
#[test]
fn a_bank_that_is_gone_is_not_counted_as_roused() {
    every_schedule("a bank goes away beside a waker that stays", None, || {
        let mut bank = Bank::new();
        let node = bank.ready.node(0);
        bank.turn(std::task::Waker::noop(), drop);
        let far = Arc::clone(&node);
        let other = thread::spawn(move || far.notify());
        bank.ready.inbox().rouse();
        let _ = poll_once(&mut std::future::poll_fn(|cx| {
            bank.turn(cx.waker(), drop);
            Poll::Ready(())
        }));
        let roused = Arc::clone(&bank.roused);
        drop(bank);
        other.join().unwrap();
        // The waker is still there.
        assert_eq!(roused.load(Ordering::Acquire), 0);
        drop(node);
    });
}

// Rule 2.5
#[test]
fn a_wake_up_behind_the_last_look_of_a_turn_is_not_lost() {
    every_schedule("a bank wakes its own place when it sleeps already", None, || {
        let mut bank = Bank::new();
        let node = bank.ready.node(0);
        let turns = std::cell::Cell::new(0);
        let served = std::cell::Cell::new(0);
        block_on(std::future::poll_fn(|cx| {
            let outer = bank.ready.enter();
            while bank.ready.pop(false).is_some() {
                served.set(served.get() + 1);
            }
            // A clock of the user's that sets itself may do this while it is asked for an alarm.
            if turns.replace(turns.get() + 1) == 0 {
                node.notify();
            }
            let _ = bank.ready.sleep(cx.waker());
            bank.ready.leave(outer);
            if served.get() == 1 { Poll::Ready(()) } else { Poll::Pending }
        }));
        assert!(turns.get() <= 3);
    });
}
