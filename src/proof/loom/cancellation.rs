//! Cancelling, waiting for it, and giving up waiting.

use std::sync::Arc;

use super::super::executor::{block_on, poll_once};
use super::every_schedule;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::thread;
use crate::{CancellationSource, CancellationToken};

// Rule 3.5
#[test]
fn whoever_waits_hears_of_it() {
    every_schedule("a wait and a cancellation", None, || {
        let source = CancellationSource::new();
        let waiting = source.token().cancelled();
        let waiter = thread::spawn(move || block_on(waiting));
        source.cancel();
        waiter.join().unwrap();
    });
}

// Rule 3.5
#[test]
fn a_wait_that_is_given_up_takes_no_wake_up_with_it() {
    every_schedule("two waits, one given up, and a cancellation", None, || {
        let source = CancellationSource::new();
        let (waiting, mut given_up) = (source.token().cancelled(), source.token().cancelled());
        let waiter = thread::spawn(move || block_on(waiting));
        let fickle = thread::spawn(move || {
            let _ = poll_once(&mut given_up);
            drop(given_up);
        });
        source.cancel();
        fickle.join().unwrap();
        waiter.join().unwrap();
    });
}

// Rule 3.5
#[test]
fn a_linked_wait_hears_of_either_source() {
    every_schedule("a linked wait and two cancellations", None, || {
        let sources = [CancellationSource::new(), CancellationSource::new()];
        let linked = CancellationToken::linked(sources.each_ref().map(CancellationSource::token));
        let waiter = thread::spawn(move || block_on(linked.cancelled()));
        let [left, right] = sources;
        let left = thread::spawn(move || left.cancel());
        right.cancel();
        left.join().unwrap();
        waiter.join().unwrap();
    });
}

// Rule 3.5
#[test]
fn what_was_done_before_a_cancellation_is_seen_after_it() {
    every_schedule("a cancellation that is asked for", None, || {
        let source = CancellationSource::new();
        let (token, done) = (source.token(), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&done);
        let asker = thread::spawn(move || {
            if token.is_cancelled() {
                assert_eq!(seen.load(Ordering::Relaxed), 1);
            }
        });
        done.store(1, Ordering::Relaxed);
        source.cancel();
        asker.join().unwrap();
    });
}

// Rule 3.5
#[test]
fn of_two_cancellations_at_once_one_gives_the_reason_and_it_stays() {
    every_schedule("two cancellations with reasons, and somebody who asks", None, || {
        let source = CancellationSource::new();
        let token = source.token();
        let other = source.clone();
        let canceller = thread::spawn(move || other.cancel_with("one"));
        let asked = token.reason();
        source.cancel_with("two");
        canceller.join().unwrap();
        let last = format!("{:#}", token.reason().unwrap());
        assert!(last.ends_with(": one") || last.ends_with(": two"), "{last}");
        assert!(asked.is_none_or(|asked| format!("{asked:#}") == last));
    });
}
