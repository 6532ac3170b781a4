//! Programs of somebody who tried to break the drain for the third time, with nothing but the contract
//! and the docs. Each is named after what was seen.

use std::cell::Cell;
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use watershed::*;

const MS: Duration = Duration::from_millis(1);
type Outcome = Result<FanInReport, Failure<FanInReport>>;

fn manual() -> (ManualClock, StepContext) {
    let clock = ManualClock::new();
    (clock.clone(), StepContext::new("drain").with_clock(Arc::new(clock)))
}
struct Woken(AtomicBool);
impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}
/// Polls while woken, and moves the clock to the next timer; None: pending, and nobody will ever wake it.
fn drive<T>(
    clock: &ManualClock,
    mut future: impl Future<Output = T> + Unpin,
) -> Option<(T, Duration)> {
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(woken.clone());
    for _ in 0..10_000 {
        if woken.0.swap(false, SeqCst) {
            if let Poll::Ready(x) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
                return Some((x, clock.now().since(Tick::ZERO)));
            }
        } else if !clock.advance_to_next() {
            return None;
        }
    }
    None
}
/// Runs it on a thread of its own; None if it is not done after five seconds.
fn within_five_seconds<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = tx.send(f());
    });
    rx.recv_timeout(Duration::from_secs(5)).ok()
}

/// 3.7 ("One in a key function fails its message, as one in its handler does"), 3.10.
/// Seen: with a retry policy of two or more attempts the drain stays pending, with no timer and nobody to wake it.
/// Promised: the message fails (and is tried again, or given up); message 2 is handled, the drain ends.
#[test]
fn panicking_key_with_retry_hangs() {
    let (clock, context) = manual();
    let drain = fan_in(&context, [stream::iter([1, 2])], async |_, _| Ok::<_, BoxError>(()))
        .ordered_by(|m| if *m == 1 { resume_unwind(Box::new("the key")) } else { *m })
        .retry(RetryPolicy::fixed(2, MS))
        .on_failure(OnFailure::Continue);
    assert!(drive(&clock, drain.into_future()).is_some(), "it hangs");
}

/// 3.3, 3.5, 3.7, 3.10. The drain of the test before, with a timeout.
/// Seen: the poll at the deadline never returns (an endless loop that gives up the waiting). So with a cancellation or a shutdown.
/// Promised: `ErrorCode::Timeout` ("any end of the drain ends the waiting at once").
#[test]
fn panicking_key_with_retry_spins_at_the_timeout() {
    let done = within_five_seconds(|| {
        let (clock, context) = manual();
        let drain = fan_in(
            &context,
            [stream::iter([1, 2]).chain(stream::pending()).boxed()],
            async |_, _| Ok::<_, BoxError>(()),
        )
        .ordered_by(|m| if *m == 1 { resume_unwind(Box::new("the key")) } else { *m })
        .retry(RetryPolicy::fixed(2, MS))
        .on_failure(OnFailure::Continue)
        .timeout(5 * MS);
        drive(&clock, drain.into_future()).is_some()
    });
    assert!(done.is_some(), "one poll takes for ever");
}

/// 2.4 ("at most 256 messages are taken between two looks at the deadline and before the thread goes back to the executor"), 3.7.
/// Seen: messages whose key function panics are failed without counting: one poll takes a million of them, long after the deadline.
#[test]
fn failing_keys_are_taken_for_ever_in_one_poll() {
    let (clock, context) = manual();
    let taken = Cell::new(0);
    let source = stream::repeat(1).take(1_000_000).chain(stream::pending());
    let drain = fan_in(&context, [source], async |_, _| Ok::<_, BoxError>(()))
        .ordered_by(|_| -> u32 {
            taken.set(taken.get() + 1);
            if taken.get() == 1 {
                clock.advance(10 * MS)
            }
            resume_unwind(Box::new("the key"))
        })
        .on_failure(OnFailure::Continue)
        .timeout(5 * MS);
    let _ = drain.into_future().now_or_never();
    assert!(taken.get() <= 256, "{} messages in one poll", taken.get());
}

thread_local! { static PANIC_AT: Cell<(&'static str, u32)> = const { Cell::new(("", 0)) }; }
fn point(what: &str) {
    let (which, left) = PANIC_AT.get();
    if which == what && left > 0 && !std::thread::panicking() {
        PANIC_AT.set((which, left - 1));
        if left == 1 {
            resume_unwind(Box::new(format!("{what} of a key")))
        }
    }
}
struct Key(i32);
impl Clone for Key {
    fn clone(&self) -> Self {
        Key(self.0)
    }
}
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        point("eq");
        self.0 == other.0
    }
}
impl Eq for Key {}
impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        point("hash");
        self.0.hash(state)
    }
}
impl Drop for Key {
    fn drop(&mut self) {
        point("drop")
    }
}

/// 3.7 ("A panic never crosses the drain as a panic: it becomes `ErrorCode::Panic`").
/// Seen: `Hash` or `Eq` of a key panics once, where the key is freed: the key stays busy, the next message of it is held for ever,
/// the drain is pending and nobody will wake it. (At other places the panic fails one message.)
#[test]
fn key_hash_panic_when_freed_hangs() {
    for what in ["hash", "eq"] {
        for at in 1..12 {
            PANIC_AT.set((what, at));
            let (clock, context) = manual();
            let drain = fan_in(&context, [stream::iter([1, 1, 2])], async |_, _| {
                clock.sleep_until(clock.now() + MS).await;
                Ok::<_, BoxError>(())
            })
            .concurrency(2)
            .on_failure(OnFailure::Continue)
            .ordered_by(|m| Key(*m));
            let outcome = drive(&clock, drain.into_future());
            PANIC_AT.set(("", 0));
            assert!(outcome.is_some(), "it hangs after `{what}` panicked at its call {at}");
        }
    }
}

/// 3.7 ("never crosses the drain as a panic", "What the library drops it drops one by one, each contained").
/// Seen: a key's destructor that panics while a drain ends (keys busy, or held) comes out of `poll`.
#[test]
fn key_drop_panic_crosses_the_drain() {
    for at in 1..12 {
        PANIC_AT.set(("drop", at));
        let crossed = catch_unwind(AssertUnwindSafe(|| {
            let (clock, context) = manual();
            let drain =
                fan_in(&context, [stream::iter([1, 2, 1])], async |m, step: StepContext| {
                    if m == 2 {
                        clock.sleep_until(clock.now() + MS).await;
                        return Err("no");
                    }
                    step.cancellation().cancelled().await;
                    Ok(())
                })
                .concurrency(3)
                .ordered_by(|m| Key(*m));
            let _ = drive(&clock, drain.into_future());
        }))
        .is_err();
        PANIC_AT.set(("", 0));
        assert!(!crossed, "the destructor's panic number {at} came out of the drain's poll");
    }
}
/// The same where the drain's future is dropped.
#[test]
fn key_drop_panic_crosses_the_drop_of_the_drain() {
    for at in 1..12 {
        let (_clock, context) = manual();
        let mut drain = fan_in(&context, [stream::iter([1, 2, 1])], async |_, _| {
            std::future::pending::<()>().await;
            Ok::<_, BoxError>(())
        })
        .concurrency(3)
        .ordered_by(|m| Key(*m))
        .into_future();
        assert!((&mut drain).now_or_never().is_none());
        PANIC_AT.set(("drop", at));
        let crossed = catch_unwind(AssertUnwindSafe(|| drop(drain))).is_err();
        PANIC_AT.set(("", 0));
        assert!(!crossed, "the destructor's panic number {at} came out of the drop of the drain");
    }
}

/// 3.7, 3.8 ("the drain ends with both errors"), 6.1 ("says what failed"), 3.6.
/// Seen: a handler panics, and the future of its dead letter panics at its first poll: the error is "the clock panicked: …",
/// the drain waits for the whole grace (5 s) though nothing runs, and one dropped letter is reported.
/// Promised, and so where the handler returns `Err`: the handler's error, with "the dead letters panicked" attached, at once.
#[test]
fn letter_panic_after_handler_panic_is_called_a_clock_panic_and_waits_for_the_grace() {
    let (clock, context) = manual();
    let drain = fan_in(&context, [stream::iter([1])], |_, _| async {
        if true {
            resume_unwind(Box::new("the handler's words"))
        }
        Ok::<(), BoxError>(())
    })
    .dead_letters(|_: Letter<i32>| async {
        if true {
            resume_unwind(Box::new("the letter's words"))
        }
    });
    let (outcome, after): (Outcome, _) = drive(&clock, drain.into_future()).unwrap();
    let failure = outcome.unwrap_err();
    let seen = (failure.to_string(), after, failure.report().dropped_letters());
    assert_eq!(
        seen,
        (
            "the handler panicked: the handler's words (message 1 of source `source 0`)".into(),
            Duration::ZERO,
            0
        )
    );
}

/// 2.7 ("A drain that was asked to end … no wait on a handle hangs"), 3.9.
/// Seen: a handler waits for the removal of another source (whose handler has ended) while the drain is shutting down: the removal is
/// never done, the handler waits for ever, the shutdown never ends. Without the shutdown it is done at once.
#[test]
fn removal_during_a_shutdown_hangs_the_handler_that_waits_for_it() {
    for with_remove in [true, false] {
        let (clock, context) = manual();
        let stop = CancellationSource::new();
        let (live, incoming) = channels::live();
        let first = live.add(stream::iter([1]).boxed()).ok().unwrap();
        let other = live.add(stream::pending().boxed()).ok().unwrap();
        drop(live);
        let drain = fan_in(&context, [], async |_: i32, step: StepContext| {
            assert_eq!(step.source_id(), Some(first.id()));
            stop.cancel();
            other.request_removal();
            if with_remove {
                drop(other.remove().await);
            } else {
                other.ended().await;
            }
            Ok::<_, BoxError>(())
        })
        .incoming(incoming)
        .shutdown(stop.token());
        let outcome = drive(&clock, drain.into_future());
        assert!(outcome.is_some(), "the shutdown hangs (remove: {with_remove})");
    }
}

/// 3.1 ("all handlers returned `Ok`: the drain succeeds"), 4.1 ("they are on the context's scope unless success cleared them").
/// Seen: the destructor of one cleared compensation panics at the commit: the drain fails with `error.panic`, and yet everything is
/// committed and nothing is staged: the caller who rolls back on `Err` undoes nothing. (`CompensationScope::clear` contains the same panic.)
#[test]
fn destructor_of_a_compensation_makes_a_committed_drain_fail() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                resume_unwind(Box::new("a capture"))
            }
        }
    }
    let (_clock, context) = manual();
    let outcome = fan_in(&context, [stream::iter([1, 2, 3])], async |m, step: StepContext| {
        let bomb = if m == 2 { Some(Bomb) } else { None };
        step.register_compensation(move || {
            let _keep = &bomb;
            async {}
        });
        Ok::<_, BoxError>(())
    })
    .into_future()
    .now_or_never()
    .unwrap();
    assert!(
        outcome.is_ok() || context.scope().len() == 3,
        "{:?}, and {} of 3 are staged",
        outcome.map(|_| ()).map_err(|f| f.to_string()),
        context.scope().len()
    );
}

/// 2.2 ("An option that can have no effect on this drain is told in the report and the progress").
/// Seen: no word about `put_back` where nothing can hold a message, `quantum` with one source, `unordered` with one handler at once,
/// and `on_failure(Abort)` beside `dead_letters` (the drain goes on all the same).
#[test]
fn options_without_effect_are_not_told() {
    let (_clock, context) = manual();
    let told = |outcome: Option<Outcome>| {
        outcome.unwrap().unwrap().warnings().iter().map(|w| w.option()).collect::<Vec<_>>()
    };
    let one = || [stream::iter([1, 2])];
    let seen = [
        told(
            fan_in(&context, one(), async |_, _| Ok::<_, BoxError>(()))
                .put_back(|_, _| ())
                .into_future()
                .now_or_never(),
        ),
        told(
            fan_in(&context, one(), async |_, _| Ok::<_, BoxError>(()))
                .quantum(3)
                .into_future()
                .now_or_never(),
        ),
        told(
            fan_in(&context, one(), async |_, _| Ok::<_, BoxError>(()))
                .unordered()
                .into_future()
                .now_or_never(),
        ),
        told(
            fan_in(&context, one(), async |_, _| Ok::<_, BoxError>(()))
                .on_failure(OnFailure::Abort)
                .dead_letters(async |_: Letter<i32>| ())
                .into_future()
                .now_or_never(),
        ),
    ];
    assert_eq!(seen.map(|s| s.len()), [1, 1, 1, 1]);
}

/// `FanInReport::attempts`: "Calls of the handler, those of retries included"; 6.3.
/// Seen: `Clone` of a message panics before the handler is called (retry keeps a clone): the attempt is counted, no handler was called.
#[test]
fn attempts_counts_a_handler_that_was_not_called() {
    struct Message;
    impl Clone for Message {
        fn clone(&self) -> Self {
            resume_unwind(Box::new("clone"))
        }
    }
    let (_clock, context) = manual();
    let calls = AtomicUsize::new(0);
    let outcome = fan_in(&context, [stream::iter([Message])], async |_, _| {
        calls.fetch_add(1, SeqCst);
        Ok::<_, BoxError>(())
    })
    .retry(RetryPolicy::fixed(2, MS))
    .on_failure(OnFailure::Continue)
    .into_future()
    .now_or_never();
    let report = match outcome.expect("it does not wait") {
        Ok(report) => report,
        Err(failure) => failure.report().clone(),
    };
    assert_eq!(report.attempts(), calls.load(SeqCst) as u64);
}

/// `diagnostics::Snapshot::dead_letters`: "Messages that were given to a dead-letter function".
/// Seen: one whose letter could not be stored is not counted, though it was given to it.
#[test]
fn dead_letters_that_fail_are_not_counted() {
    crate::support::alone::alone(module_path!(), "dead_letters_that_fail_are_not_counted", || {
        let before = diagnostics::Snapshot::now();
        let (_clock, context) = manual();
        let given = Cell::new(0);
        let _ = fan_in(&context, [stream::iter([1])], async |_, _| Err::<(), _>("x"))
            .dead_letters(async |_: Letter<i32>| {
                given.set(given.get() + 1);
                Err::<(), _>("full")
            })
            .into_future()
            .now_or_never();
        assert_eq!((given.get(), diagnostics::Snapshot::now().since(&before).dead_letters), (1, 1));
    });
}

/// 2.7 ("a source can be removed … removal waits for its messages in flight", "no wait on a handle hangs").
/// Seen: a source is paused while its handler runs; that handler ends; then a handler of another source, which has the only permit,
/// removes it and waits: never answered, the drain is pending and nobody will wake it. Not paused, or with a second permit: answered at once.
#[test]
fn removal_of_a_source_that_was_paused_while_it_ran_hangs_where_the_permits_are_taken() {
    let (clock, context) = manual();
    let (live, incoming) = channels::live();
    let paused = live.add(stream::iter([2]).chain(stream::pending()).boxed()).ok().unwrap();
    let later = clock.sleep_until(Tick::ZERO + 2 * MS);
    let other = live
        .add(
            stream::once(async move {
                later.await;
                1
            })
            .boxed(),
        )
        .ok()
        .unwrap();
    drop(live);
    let drain = fan_in(&context, [], async |_: i32, step: StepContext| {
        if step.source_id() == Some(other.id()) {
            drop(paused.remove().await); // nothing of it is in flight
        } else {
            paused.pause();
            clock.sleep_until(Tick::ZERO + 5 * MS).await;
        }
        Ok::<_, BoxError>(())
    })
    .incoming(incoming);
    assert!(drive(&clock, drain.into_future()).is_some(), "it hangs");
}

/// The same from outside: the removal waits for a handler of another source.
#[test]
fn removal_of_a_source_that_was_paused_while_it_ran_waits_for_another_source() {
    let (clock, context) = manual();
    let (live, incoming) = channels::live();
    let paused = live.add(stream::iter([2]).chain(stream::pending()).boxed()).ok().unwrap();
    let later = clock.sleep_until(Tick::ZERO + 2 * MS);
    let other = live
        .add(
            stream::once(async move {
                later.await;
                1
            })
            .boxed(),
        )
        .ok()
        .unwrap();
    drop(live);
    let drain = fan_in(&context, [], async |_: i32, step: StepContext| {
        if step.source_id() == Some(other.id()) {
            std::future::pending::<()>().await;
        }
        paused.pause();
        clock.sleep_until(Tick::ZERO + 5 * MS).await;
        Ok::<_, BoxError>(())
    })
    .incoming(incoming);
    let mut drain = drain.into_future();
    for _ in 0..10 {
        assert!((&mut drain).now_or_never().is_none());
        clock.advance(MS);
    } // its handler is done, the other's runs
    paused.request_removal();
    for _ in 0..10 {
        assert!((&mut drain).now_or_never().is_none());
        clock.advance(MS);
    }
    assert!(
        paused.ended().now_or_never().is_some(),
        "nothing of it is in flight, and it is not removed"
    );
}

/// 2.7 (a removal "waits for its messages in flight, and can also be asked for without waiting (from its own handler, say)"; "no wait on a handle hangs").
/// The simplest form of the two tests above, without a pause. Default concurrency. Seen: a handler asks for the removal of its own source, waits a
/// little and ends; the handler of another source, which has the permit now, waits for that end: never answered, nobody will wake the drain.
/// With a second permit, or where the handler that asked is ready at once: answered.
#[test]
fn removal_asked_for_by_its_own_handler_that_waits_hangs_who_waits_for_it() {
    let (clock, context) = manual();
    let (live, incoming) = channels::live();
    let removed = live.add(stream::iter([2]).chain(stream::pending()).boxed()).ok().unwrap();
    let other = live.add(stream::iter([1]).boxed()).ok().unwrap();
    drop(live);
    let drain = fan_in(&context, [], async |_: i32, step: StepContext| {
        if step.source_id() == Some(other.id()) {
            removed.ended().await;
        } else {
            removed.request_removal();
            clock.sleep_until(Tick::ZERO + 5 * MS).await;
        }
        Ok::<_, BoxError>(())
    })
    .incoming(incoming);
    assert!(drive(&clock, drain.into_future()).is_some(), "it hangs");
}

/// 2.7 ("removal waits for its messages in flight"). Seen: a source whose removal was asked for while its handler ran is removed only when
/// the drain's `rate` has room again (an hour here), though its handler is done, nothing of it waits, and permits are free.
#[test]
fn removal_waits_for_the_rate() {
    let (clock, context) = manual();
    let (live, incoming) = channels::live();
    let removed = live.add(stream::iter([1]).chain(stream::pending()).boxed()).ok().unwrap();
    let _other = live.add(stream::pending().boxed()).ok().unwrap();
    drop(live);
    let drain = fan_in(&context, [], async |_: i32, _| {
        removed.request_removal();
        clock.sleep_until(Tick::ZERO + 5 * MS).await;
        Ok::<_, BoxError>(())
    })
    .concurrency(2)
    .rate(1, Duration::from_secs(3600))
    .incoming(incoming);
    let mut drain = drain.into_future();
    for _ in 0..20 {
        assert!((&mut drain).now_or_never().is_none());
        clock.advance(MS);
    }
    assert!(
        removed.ended().now_or_never().is_some(),
        "its handler ended 15 ms ago, and it is not removed"
    );
}

/// Time that goes on while a drain is polled: every look at it is 10 ns later than the last.
#[derive(Debug)]
struct Ticking(ManualClock);
impl Clock for Ticking {
    fn now(&self) -> Tick {
        self.0.advance(Duration::from_nanos(10));
        self.0.now()
    }
    fn sleep_until(&self, deadline: Tick) -> Sleep {
        self.0.sleep_until(deadline)
    }
}
/// 3.10, 5.4. MOST SERIOUS. Seen: a retry that becomes due between two looks at the clock within one poll (unordered, or by key) is lost:
/// the message waits for ever, nobody will wake the drain, and further polls do not begin it. One source in its own order is not concerned.
#[test]
fn retry_that_becomes_due_within_a_poll_is_lost() {
    for wait in 0..60 {
        let clock = ManualClock::new();
        let context = StepContext::new("drain").with_clock(Arc::new(Ticking(clock.clone())));
        let drain = fan_in(&context, [stream::iter([1])], async |_, step: StepContext| {
            if step.attempt() == 1 { Err("busy") } else { Ok(()) }
        })
        .unordered()
        .retry(RetryPolicy::fixed(2, Duration::from_nanos(wait)));
        assert!(drive(&clock, drain.into_future()).is_some(), "it hangs with a wait of {wait} ns");
    }
}
/// The same by the system clock: retries after 50 µs (or 1 ms) in a drain of a thousand messages; within a few runs it hangs.
#[test]
fn retries_by_the_system_clock_hang() {
    let done = within_five_seconds(|| {
        for _ in 0..20 {
            let context = StepContext::new("drain");
            let drain = fan_in(&context, [stream::iter(0..1_000)], async |m, step: StepContext| {
                if m % 11 == 0 && step.attempt() == 1 { Err("busy") } else { Ok(()) }
            })
            .unordered()
            .commit(Commit::Message)
            .retry(RetryPolicy::fixed(2, Duration::from_micros(50)));
            assert_eq!(futures::executor::block_on(drain.into_future()).unwrap().handled(), 1_000);
        }
    });
    assert!(done.is_some(), "it hangs");
}
