//! Cancellation: sources, linked tokens, and who is woken.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt;
use futures::executor::block_on;
use watershed::{CancellationSource, CancellationToken, Cancelled};

#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counting {
    fn new() -> (Arc<Self>, Waker) {
        let counting = Arc::new(Self::default());
        let waker = Waker::from(Arc::clone(&counting));
        (counting, waker)
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll_with(waiting: &mut Cancelled, waker: &Waker) -> Poll<()> {
    Pin::new(waiting).poll(&mut Context::from_waker(waker))
}

// Rule 3.5
#[test]
fn cancelling_reaches_every_token_of_the_source_and_its_clones() {
    let source = CancellationSource::new();
    let (early, clone) = (source.token(), source.clone());
    assert!(!early.is_cancelled() && !source.is_cancelled());
    clone.cancel();
    assert!(early.is_cancelled() && early.clone().is_cancelled());
    assert!(source.is_cancelled() && source.token().is_cancelled());
}

// Rule 3.5
#[test]
fn a_linked_token_is_cancelled_by_any_of_its_sources_and_cancels_none() {
    for cancelled in 0..3 {
        let sources = [(); 3].map(|()| CancellationSource::new());
        let token = CancellationToken::linked(sources.iter().map(CancellationSource::token));
        assert!(!token.is_cancelled());
        sources[cancelled].cancel();
        assert!(token.is_cancelled());
        for (index, source) in sources.iter().enumerate() {
            assert_eq!(source.is_cancelled(), index == cancelled);
        }
    }
}

// Rule 3.5
#[test]
fn tokens_link_over_several_levels_and_the_same_source_twice() {
    let (root, other) = (CancellationSource::new(), CancellationSource::new());
    let mut token = root.token();
    for _ in 0..100 {
        token = CancellationToken::linked([token, other.token(), root.token()]);
    }
    let waiting = token.cancelled();
    assert!(!token.is_cancelled());
    root.cancel();
    assert!(token.is_cancelled());
    assert!(waiting.now_or_never().is_some());
    assert!(!other.is_cancelled());
}

// Rule 3.5
#[test]
fn a_token_of_nothing_is_never_cancelled() {
    let tokens = [
        CancellationToken::never(),
        CancellationToken::default(),
        CancellationToken::linked([]),
        CancellationToken::linked([CancellationToken::never(), CancellationToken::never()]),
    ];
    for token in tokens {
        assert!(!token.is_cancelled());
        assert!(token.cancelled().now_or_never().is_none());
    }
}

// Rule 3.5
#[test]
fn every_waiter_is_woken_once() {
    let source = CancellationSource::new();
    let mut waiters: Vec<_> = (0..100)
        .map(|_| {
            let (counting, waker) = Counting::new();
            let mut waiting = source.token().cancelled();
            assert!(poll_with(&mut waiting, &waker).is_pending());
            (counting, waiting)
        })
        .collect();
    source.cancel();
    source.cancel();
    for (counting, waiting) in &mut waiters {
        assert_eq!(counting.count(), 1);
        assert!(waiting.now_or_never().is_some());
    }
}

// Rule 3.5
#[test]
fn a_linked_waiter_is_woken_by_each_of_its_sources() {
    for cancelled in 0..3 {
        let sources = [(); 3].map(|()| CancellationSource::new());
        let token = CancellationToken::linked(sources.iter().map(CancellationSource::token));
        let (counting, waker) = Counting::new();
        let mut waiting = token.cancelled();
        assert!(poll_with(&mut waiting, &waker).is_pending());
        sources[cancelled].cancel();
        assert_eq!(counting.count(), 1);
        assert!(poll_with(&mut waiting, &waker).is_ready());
    }
}

// Rule 3.5
#[test]
fn the_waker_of_the_last_poll_is_the_one_that_is_woken() {
    let source = CancellationSource::new();
    let mut waiting = source.token().cancelled();
    let ((first, first_waker), (second, second_waker)) = (Counting::new(), Counting::new());
    assert!(poll_with(&mut waiting, &first_waker).is_pending());
    assert!(poll_with(&mut waiting, &second_waker).is_pending());
    source.cancel();
    assert_eq!((first.count(), second.count()), (0, 1));
}

// Rule 3.5
#[test]
fn a_dropped_waiter_is_forgotten_and_the_others_are_woken() {
    let source = CancellationSource::new();
    let ((first, first_waker), (second, second_waker)) = (Counting::new(), Counting::new());
    let (mut gone, mut waiting) = (source.token().cancelled(), source.token().cancelled());
    assert!(poll_with(&mut gone, &first_waker).is_pending());
    assert!(poll_with(&mut waiting, &second_waker).is_pending());
    drop(gone);
    drop(first_waker);
    assert_eq!(Arc::strong_count(&first), 1, "its waker is not kept");
    source.cancel();
    assert_eq!((first.count(), second.count()), (0, 1));
}

// Rule 3.5
#[test]
fn a_source_that_goes_away_without_cancelling_cancels_nothing() {
    let source = CancellationSource::new();
    let token = source.token();
    let (counting, waker) = Counting::new();
    let mut waiting = token.cancelled();
    assert!(poll_with(&mut waiting, &waker).is_pending());
    drop(source);
    assert!(!token.is_cancelled());
    assert_eq!(counting.count(), 0);
    assert!(poll_with(&mut waiting, &waker).is_pending());
}

// Rule 3.5
#[test]
fn a_source_that_goes_away_after_cancelling_stays_cancelled() {
    let source = CancellationSource::new();
    let token = source.token();
    source.cancel();
    drop(source);
    assert!(token.is_cancelled());
    block_on(token.cancelled());
}

// Rule 3.5
#[test]
fn a_wait_that_begins_after_the_cancellation_is_ready_at_once() {
    let source = CancellationSource::new();
    source.cancel();
    assert!(source.token().cancelled().now_or_never().is_some());
    let linked = CancellationToken::linked([CancellationToken::never(), source.token()]);
    assert!(linked.cancelled().now_or_never().is_some());
}

// Rule 3.5
#[test]
fn cancelling_from_another_thread_wakes_a_blocked_waiter() {
    let source = CancellationSource::new();
    let token = CancellationToken::linked([CancellationSource::new().token(), source.token()]);
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| block_on(token.cancelled()));
        source.cancel();
        waiting.join().unwrap();
    });
}

/// A waker that cancels again while it is being woken.
struct Again(CancellationSource, AtomicUsize);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(usize::from(self.0.is_cancelled()), Ordering::SeqCst);
    }
}

// Rule 4.12
#[test]
fn a_waker_sees_the_cancellation_that_woke_it() {
    let source = CancellationSource::new();
    let again = Arc::new(Again(source.clone(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&again));
    let mut waiting = source.token().cancelled();
    assert!(poll_with(&mut waiting, &waker).is_pending());
    source.cancel();
    assert_eq!(again.1.load(Ordering::SeqCst), 1);
}

/// Panics when it is woken.
struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        panic!("an executor went wrong");
    }
}

// Rule 4.12
#[test]
fn a_waker_that_panics_keeps_no_other_waiter_from_being_woken() {
    let source = CancellationSource::new();
    let mut waits = [(); 3].map(|()| source.token().cancelled());
    let (first, last) = (Counting::new(), Counting::new());
    assert!(poll_with(&mut waits[0], &first.1).is_pending());
    assert!(poll_with(&mut waits[1], &Waker::from(Arc::new(Panicking))).is_pending());
    assert!(poll_with(&mut waits[2], &last.1).is_pending());
    source.cancel();
    assert_eq!((first.0.count(), last.0.count()), (1, 1));
    for wait in waits {
        assert!(wait.now_or_never().is_some());
    }
}

/// Drops a wait, and asks and cancels its source, when it is woken.
struct Meddling(CancellationSource, std::sync::Mutex<Option<Cancelled>>);

impl Wake for Meddling {
    fn wake(self: Arc<Self>) {
        drop(self.1.lock().expect("no panic").take());
        self.0.cancel();
        assert!(self.0.token().cancelled().now_or_never().is_some());
    }
}

// Rule 4.12
#[test]
fn a_waker_may_drop_another_waiter_and_use_the_source() {
    let source = CancellationSource::new();
    let (count, waker) = Counting::new();
    let mut other = source.token().cancelled();
    let mut own = source.token().cancelled();
    assert!(poll_with(&mut other, &waker).is_pending());
    let meddling = Meddling(source.clone(), std::sync::Mutex::new(Some(other)));
    assert!(poll_with(&mut own, &Waker::from(Arc::new(meddling))).is_pending());
    source.cancel();
    assert_eq!(count.count(), 1);
    assert!(own.now_or_never().is_some());
}
