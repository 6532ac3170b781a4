//! Cancellation: sources, linked tokens, who is woken, guards and reasons.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::executor::block_on;
use futures::{FutureExt, StreamExt, stream};
use watershed::channels::{Select, Window, broadcast, merge_into};
use watershed::combinators::{Fallback, retry, when_all, when_any};
use watershed::group::Group;
use watershed::streams::StepStreamExt;
use watershed::timers::{delay, with_timeout};
use watershed::{
    BoxError, CancellationSource, CancellationToken, Cancelled, CompensationPolicy, DropGuard,
    Error, ErrorCode, OnFailure, RetryPolicy, StepContext, fan_in,
};

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

// Rule 3.5
#[test]
fn a_guard_cancels_however_its_scope_is_left_unless_it_is_disarmed() {
    let source = CancellationSource::new();
    let guard: DropGuard = source.clone().drop_guard();
    let (counting, waker) = Counting::new();
    let mut waiting = source.token().cancelled();
    assert!(poll_with(&mut waiting, &waker).is_pending());
    assert!(!guard.disarm().is_cancelled());
    assert_eq!((source.is_cancelled(), counting.count()), (false, 0));

    drop(source.clone().drop_guard());
    assert_eq!((source.is_cancelled(), counting.count()), (true, 1));

    let panicking = CancellationSource::new();
    let token = panicking.token();
    let thread = std::thread::spawn(move || {
        let _guard = panicking.drop_guard();
        panic!("the work of the guard");
    });
    assert!(thread.join().is_err() && token.is_cancelled());

    let dropped = CancellationSource::new();
    let guard = dropped.clone().drop_guard();
    let mut work = Box::pin(async move {
        let _guard = guard;
        std::future::pending::<()>().await;
    });
    assert!(work.as_mut().now_or_never().is_none() && !dropped.is_cancelled());
    drop(work);
    assert!(dropped.is_cancelled());
}

// Rule 4.12
#[test]
fn a_guard_that_cancels_leaves_the_reason_of_an_earlier_cancellation() {
    let source = CancellationSource::new();
    let guard = source.clone().drop_guard();
    source.cancel_with("the first");
    drop(guard);
    assert_eq!(words(&source.token()), "the operation was cancelled: the first");
}

fn words(token: &CancellationToken) -> String {
    token.reason().map_or_else(String::new, |error| format!("{error:#}"))
}

// Rule 3.5
#[test]
fn the_first_reason_of_a_source_stays_and_a_plain_cancellation_has_none() {
    let source = CancellationSource::new();
    let token = source.token();
    assert!(token.reason().is_none());
    source.cancel_with("the first");
    source.cancel_with("the second");
    source.cancel();
    assert_eq!(words(&token), "the operation was cancelled: the first");

    let plain = CancellationSource::new();
    plain.cancel();
    plain.cancel_with("too late");
    let error = plain.token().reason().expect("it is cancelled");
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert_eq!(format!("{error:#}"), "the operation was cancelled");
    assert!(CancellationToken::never().reason().is_none());
}

// Rule 3.5
#[test]
fn a_linked_token_has_the_reason_of_the_source_that_was_cancelled_first() {
    for first in 0..3 {
        let sources = [(); 3].map(|()| CancellationSource::new());
        let tokens = sources.each_ref().map(CancellationSource::token);
        let inner = CancellationToken::linked(tokens[..2].iter().cloned());
        let token = CancellationToken::linked([tokens[2].clone(), inner]);
        for turn in 0..3 {
            let at = (first + turn) % 3;
            sources[at].cancel_with(format!("source {at}"));
            assert_eq!(words(&token), format!("the operation was cancelled: source {first}"));
            assert_eq!(words(&tokens[at]), format!("the operation was cancelled: source {at}"));
        }
    }
}

// Rule 6.1: the user's own error, by its type, under every way to give it
#[test]
fn a_reason_is_any_error_and_comes_back_by_its_type() {
    let reasons: [BoxError; 3] = [
        std::io::Error::other("the user's words").into(),
        Error::validation("not now").with_source(std::io::Error::other("the user's words")).into(),
        Error::from_error(ErrorCode::Handler, std::io::Error::other("the user's words")).into(),
    ];
    for reason in reasons {
        let source = CancellationSource::new();
        source.cancel_with(reason);
        let error = source.token().reason().expect("it is cancelled");
        assert_eq!(error.code(), ErrorCode::Canceled);
        assert!(error.downcast_ref::<std::io::Error>().is_some());
        assert!(format!("{error:#}").ends_with(": the user's words"), "{error:#}");
        // Handed on from source to source it is said once.
        let next = CancellationSource::new();
        next.cancel_with(error);
        assert_eq!(words(&next.token()), words(&source.token()));
    }
}

/// What each operation with a context that is cancelled ends with.
async fn endings(context: &StepContext) -> Vec<(&'static str, Error)> {
    let pending = || stream::pending::<u32>();
    let (sender, _receiver) = async_channel::bounded(1);
    let heeds = |step: StepContext| async move {
        step.cancellation().cancelled().await;
        Err::<(), BoxError>("was told".into())
    };
    let mut endings = Vec::new();
    let mut note = |name, error: Option<Error>| endings.push((name, error.expect(name)));
    note("delay", delay(context, Duration::MAX).await.err());
    let drain = fan_in(context, [pending()], async |_, _| Ok::<_, BoxError>(())).await;
    note("fan_in", drain.err().map(Error::from));
    note("merge", merge_into(context, [pending()], sender.clone()).await.err());
    note("broadcast", broadcast(context, pending(), [sender]).await.err().map(Error::from));
    note("when_all", when_all(context, [heeds]).await.err());
    note("when_any", when_any(context, [heeds]).await.err());
    note("fallback", Fallback::new(context).strategy("only", heeds).await.err());
    note("retry", retry(context, RetryPolicy::none(), heeds).await.err());
    note("with_timeout", with_timeout(context, Duration::MAX, heeds).await.err());
    let mut steps = stream::pending::<Result<u32, BoxError>>()
        .map_step(context, async |item, _| Ok::<_, BoxError>(item))
        .boxed();
    note("map_step", steps.next().await.and_then(Result::err));
    for on_failure in [OnFailure::Abort, OnFailure::Continue] {
        let group = Group::new(context).on_failure(on_failure);
        group.go(None, heeds).expect("it is open");
        note("group", group.wait().await.err().map(Error::from));
    }
    let mut selecting =
        Select::<()>::new(context).case(pending(), async |_, _| Ok::<_, BoxError>(()));
    note("select", selecting.run().await.err());
    let mut batches = Window::new(context, pending()).count(2).stream().expect("it is valid");
    note("window", batches.next().await.and_then(Result::err));
    let scope = context.scope().clone();
    scope.register_compensation(async || std::future::pending::<()>().await);
    let rollback = context.roll_back(&CompensationPolicy::sequential_reverse());
    let rollback = rollback.cancellation(context.cancellation().clone()).await;
    note("rollback", rollback.err().map(Error::from));
    scope.clear();
    endings
}

// Rules 3.5, 6.1
#[test]
fn every_operation_ends_with_the_reason_it_was_cancelled_for() {
    for before in [true, false] {
        let source = CancellationSource::new();
        let context = StepContext::new("t").with_cancellation(source.token());
        if before {
            source.cancel_with("the operator went home");
        }
        let all = std::thread::scope(|threads| {
            let running = threads.spawn(|| block_on(endings(&context)));
            source.cancel_with("the operator went home");
            running.join().expect("no panic")
        });
        for (name, error) in all {
            assert_eq!(error.code(), ErrorCode::Canceled, "{name}: {error:#}");
            let words = format!("{error:#}");
            assert_eq!(words, "the operation was cancelled: the operator went home", "{name}");
        }
    }
}

// Rule 3.5: a child step, whatever it is nested in
#[test]
fn the_steps_inside_inherit_the_reason() {
    let source = CancellationSource::new();
    let context = StepContext::new("t").with_cancellation(source.token());
    let drain = fan_in(&context, [stream::iter([1])], async |_, step: StepContext| {
        let group = Group::new(&step);
        group.go(None, async |task| {
            source.cancel_with("enough");
            task.cancellation().cancelled().await;
            Err::<(), Error>(task.cancellation().reason().expect("it is cancelled"))
        })?;
        group.wait().await.map(drop).map_err(Error::from)
    });
    let error = Error::from(block_on(async { drain.await }).expect_err("cancelled"));
    assert_eq!(format!("{error:#}"), "the operation was cancelled: enough");
    let inner = &error.related()[0];
    assert!(format!("{inner:#}").ends_with(": enough"), "{inner:#}");
}

// Rule 3.5
#[test]
fn two_cancellations_at_once_leave_one_reason_for_everybody() {
    for _ in 0..200 {
        let sources = [CancellationSource::new(), CancellationSource::new()];
        let own = sources[0].token();
        let ended = std::thread::scope(|threads| {
            let waiting = [(); 2].map(|()| {
                let token = own.clone();
                threads.spawn(move || {
                    block_on(token.cancelled());
                    words(&token)
                })
            });
            for reason in ["one", "two"] {
                let source = sources[0].clone();
                threads.spawn(move || source.cancel_with(reason));
            }
            waiting.map(|thread| thread.join().expect("no panic"))
        });
        assert_eq!(ended[0], ended[1]);
        assert_eq!(words(&own), ended[0]);
        sources[1].cancel_with("later");
        let linked = CancellationToken::linked([sources[1].token(), own]);
        assert_eq!(words(&linked), ended[0]);
    }
}

/// Cancels for a reason of its own when it is woken, and asks for the reason there is.
struct Cancelling(CancellationSource, std::sync::Mutex<String>);

impl Wake for Cancelling {
    fn wake(self: Arc<Self>) {
        self.0.cancel_with("from the waker");
        *self.1.lock().expect("no panic") = words(&self.0.token());
    }
}

// Rule 4.12
#[test]
fn a_waker_may_cancel_and_ask_for_the_reason() {
    let source = CancellationSource::new();
    let cancelling = Arc::new(Cancelling(source.clone(), std::sync::Mutex::default()));
    let mut waiting = source.token().cancelled();
    assert!(poll_with(&mut waiting, &Waker::from(Arc::clone(&cancelling))).is_pending());
    source.cancel_with("from outside");
    assert_eq!(
        *cancelling.1.lock().expect("no panic"),
        "the operation was cancelled: from outside"
    );
}

/// An error of the user's whose destructor panics, and which uses the source it is for.
#[derive(Debug)]
struct Explosive(CancellationSource);

impl std::fmt::Display for Explosive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("explosive")
    }
}

impl std::error::Error for Explosive {}

impl Drop for Explosive {
    fn drop(&mut self) {
        self.0.cancel_with("from the destructor");
        assert!(self.0.is_cancelled());
        panic!("a destructor");
    }
}

// Rule 4.12
#[test]
fn a_reason_that_comes_too_late_is_dropped_outside_the_lock_and_contained() {
    let source = CancellationSource::new();
    source.cancel_with("the first");
    source.cancel_with(Explosive(source.clone()));
    assert_eq!(words(&source.token()), "the operation was cancelled: the first");
}

// Rules 4.13, 3.5
#[test]
fn a_hundred_thousand_tokens_that_wait_are_woken_once_and_know_the_reason() {
    let (root, own) = (CancellationSource::new(), CancellationSource::new());
    let (counting, waker) = Counting::new();
    let tokens: Vec<_> = (0..100_000)
        .map(|index| match index % 2 {
            0 => root.token(),
            _ => CancellationToken::linked([own.token(), root.token()]),
        })
        .collect();
    let mut waits: Vec<_> = tokens.iter().map(CancellationToken::cancelled).collect();
    for waiting in &mut waits {
        assert!(poll_with(waiting, &waker).is_pending());
    }
    // Some give up waiting, from the middle and both ends.
    let mut index = 0;
    waits.retain(|_| {
        index += 1;
        index % 10 != 0
    });
    root.cancel_with("the end");
    assert_eq!(counting.count(), 90_000);
    for waiting in &mut waits {
        assert!(poll_with(waiting, &waker).is_ready());
    }
    assert!(tokens.iter().all(|token| words(token).ends_with(": the end")));
}
