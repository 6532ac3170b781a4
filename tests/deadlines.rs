//! Rules 3.3 to 3.6: deadlines, cancellation and grace, on a clock that is moved by hand.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::stream;
use support::{Ledger, block_on, filled, left_in, poll_times, roll_back, yields};
use watershed::{
    BoxError, CancellationSource, Clock, ErrorCode, Letter, ManualClock, OnFailure, StepContext,
    Tick, fan_in,
};

const SECOND: Duration = Duration::from_secs(1);

fn context(clock: &ManualClock) -> StepContext {
    StepContext::new("t").with_clock(Arc::new(clock.clone()))
}

async fn never() -> Result<(), BoxError> {
    std::future::pending().await
}

// Rule 3.3
#[test]
fn a_timeout_of_zero_takes_no_message() {
    let source = filled([1, 2]);
    let drain = fan_in(&context(&ManualClock::new()), [source.clone()], |_, _| never());
    let error = block_on(drain.timeout(Duration::ZERO)).expect_err("it times out").into_error();
    assert_eq!((error.code(), error.metadata("duration")), (ErrorCode::Timeout, Some("0ns")));
    assert_eq!(left_in(&source), [1, 2]);
}

// Rule 3.3
#[test]
fn a_timeout_of_duration_max_never_fires() {
    let clock = ManualClock::new();
    clock.set(Tick::from_nanos(u64::MAX - 1));
    let drain = fan_in(&context(&clock), [filled([1, 2])], |_, _| async { Ok::<_, BoxError>(()) });
    let report = block_on(drain.timeout(Duration::MAX).message_timeout(Duration::MAX));
    assert_eq!(report.expect("the drain succeeds").handled(), 2);
}

// Rules 3.3, 3.6
#[test]
fn a_timeout_fires_while_a_handler_runs_and_the_grace_is_waited_for() {
    let clock = ManualClock::new();
    let drain = fan_in(&context(&clock), [filled([1, 2])], |_, _| never());
    let mut drain = drain.timeout(10 * SECOND).grace(3 * SECOND).into_future();
    assert!(poll_times(&mut drain, 3).is_none());
    clock.advance(9 * SECOND);
    assert!(poll_times(&mut drain, 3).is_none());
    clock.advance(SECOND);
    assert!(poll_times(&mut drain, 3).is_none(), "the grace has begun");
    clock.advance(2 * SECOND);
    assert!(poll_times(&mut drain, 3).is_none(), "the grace is not over");
    clock.advance(SECOND);
    let error =
        poll_times(&mut drain, 1).expect("it is over").expect_err("it timed out").into_error();
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert_eq!(error.metadata("duration"), Some("10s"));
    assert_eq!(error.metadata("dropped_handlers"), Some("1"));
}

// Rules 2.4, 3.3
#[test]
fn an_always_ready_source_does_not_starve_the_timeout() {
    let clock = ManualClock::new();
    let ticking = {
        let clock = clock.clone();
        stream::repeat_with(move || clock.advance(Duration::from_millis(1)))
    };
    let drain = fan_in(&context(&clock), [ticking], |(), _| async { Ok::<_, BoxError>(()) });
    let error = block_on(drain.timeout(SECOND)).expect_err("it times out").into_error();
    assert_eq!(error.code(), ErrorCode::Timeout);
    let handled: u64 = error.metadata("handled").unwrap_or_default().parse().expect("a number");
    assert!((1_000..1_100).contains(&handled), "within one turn of the deadline, not {handled}");
}

// Rule 3.4
#[test]
fn a_message_timeout_fails_its_message_alone() {
    let clock = ManualClock::new();
    let failed = AtomicUsize::new(0);
    let drain = fan_in(&context(&clock), [filled([1, 2, 3])], |message, _| async move {
        if message == 2 { never().await } else { Ok(()) }
    });
    let drain = drain.message_timeout(SECOND).on_failure(OnFailure::Continue);
    let mut drain = drain
        .dead_letters(|letter: Letter<u32>| {
            assert_eq!(letter.error().code(), ErrorCode::Timeout);
            assert_eq!(letter.error().message_number(), Some(2));
            failed.fetch_add(1, Ordering::Relaxed);
            async {}
        })
        .into_future();
    assert!(poll_times(&mut drain, 3).is_none());
    clock.advance(SECOND);
    let report = poll_times(&mut drain, 3).expect("it is over").expect("the drain succeeds");
    assert_eq!((report.handled(), report.failed(), report.elapsed()), (2, 1, SECOND));
    assert_eq!(failed.load(Ordering::Relaxed), 1);
}

// Rule 3.5
#[test]
fn a_drain_cancelled_before_its_first_poll_takes_no_message() {
    for by_context in [true, false] {
        let stop = CancellationSource::new();
        let mut context = StepContext::new("t");
        if by_context {
            context = context.with_cancellation(stop.token());
        }
        let source = filled([1]);
        let mut drain = fan_in(&context, [source.clone()], |_, _| never());
        if !by_context {
            drain = drain.cancellation(stop.token());
        }
        stop.cancel();
        assert_eq!(block_on(drain).expect_err("cancelled").error().code(), ErrorCode::Canceled);
        assert_eq!(left_in(&source), [1]);
    }
}

// Rule 3.5
#[test]
fn cancelling_tells_the_handlers_and_waits_for_them() {
    let stop = CancellationSource::new();
    let told = Arc::new(AtomicUsize::new(0));
    let context = StepContext::new("t");
    let source = filled([1, 2]);
    let drain = fan_in(&context, [source.clone()], |_, step| {
        let told = Arc::clone(&told);
        async move {
            step.cancellation().cancelled().await;
            told.fetch_add(1, Ordering::Relaxed);
            Ok::<_, BoxError>(())
        }
    });
    let mut drain = drain.cancellation(stop.token()).into_future();
    assert!(poll_times(&mut drain, 2).is_none());
    stop.cancel();
    let error = poll_times(&mut drain, 3).expect("it is over").expect_err("cancelled").into_error();
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert_eq!(error.metadata("dropped_handlers"), None);
    assert_eq!((told.load(Ordering::Relaxed), left_in(&source)), (1, vec![2]));
}

// Rule 3.1
#[test]
fn a_clock_that_steps_backwards_harms_nothing_but_the_elapsed_time() {
    let clock = ManualClock::new();
    clock.set(Tick::from_nanos(1_000_000));
    let (sender, source) = async_channel::unbounded();
    let drain = fan_in(&context(&clock), [source], |_: u32, _| async { Ok::<_, BoxError>(()) });
    let mut drain = drain.timeout(SECOND).message_timeout(SECOND).into_future();
    assert!(poll_times(&mut drain, 2).is_none());
    clock.set(Tick::ZERO);
    sender.try_send(1).expect("the channel is open");
    assert!(poll_times(&mut drain, 2).is_none());
    drop(sender);
    let report = poll_times(&mut drain, 2).expect("it is over").expect("the drain succeeds");
    assert_eq!((report.handled(), report.elapsed()), (1, Duration::ZERO));
}

/// Notes its number when it is woken.
struct Note(u32, Arc<Mutex<Vec<u32>>>);

impl std::task::Wake for Note {
    fn wake(self: Arc<Self>) {
        self.1.lock().expect("no panic").push(self.0);
    }
}

// Rule 5.4
#[test]
fn a_manual_clock_wakes_in_the_order_of_deadline_and_registration() {
    let clock = ManualClock::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut sleeps = Vec::new();
    for (number, deadline) in [(0, 30), (1, 10), (2, 20), (3, 10), (4, 40)] {
        let waker = Arc::new(Note(number, Arc::clone(&order))).into();
        let mut sleep = clock.sleep_until(Tick::from_nanos(deadline));
        let poll = sleep.as_mut().poll(&mut std::task::Context::from_waker(&waker));
        assert_eq!(poll, Poll::Pending);
        sleeps.push(sleep);
    }
    assert_eq!(clock.sleepers(), 5);
    drop(sleeps.remove(2));
    clock.advance(Duration::from_nanos(30));
    assert_eq!(*order.lock().expect("no panic"), [1, 3, 0]);
    assert_eq!(clock.sleepers(), 1);
}

// Rule 3.3
#[test]
fn the_timeout_counts_from_the_first_poll() {
    let clock = ManualClock::new();
    let drain = fan_in(&context(&clock), [filled([1])], |_, _| never());
    let mut drain = drain.timeout(10 * SECOND).grace(Duration::ZERO).into_future();
    clock.advance(100 * SECOND);
    assert!(poll_times(&mut drain, 3).is_none());
    clock.advance(Duration::from_nanos(9_999_999_999));
    assert!(poll_times(&mut drain, 3).is_none(), "a nanosecond is left");
    clock.advance(Duration::from_nanos(1));
    let error =
        poll_times(&mut drain, 1).expect("it is over").expect_err("it timed out").into_error();
    assert_eq!((error.code(), error.metadata("handled")), (ErrorCode::Timeout, Some("0")));
}

// Rules 2.1, 3.3
#[test]
fn a_timeout_while_all_sources_are_idle_leaves_later_messages_where_they_are() {
    let clock = ManualClock::new();
    let (sender, source) = async_channel::unbounded::<u32>();
    let drain = fan_in(&context(&clock), [source.clone()], |_, _| never());
    let mut drain = drain.timeout(SECOND).into_future();
    assert!(poll_times(&mut drain, 3).is_none());
    clock.advance(SECOND);
    sender.try_send(1).expect("the channel is open");
    let error =
        poll_times(&mut drain, 1).expect("it is over").expect_err("it timed out").into_error();
    assert_eq!((error.code(), error.metadata("dropped_handlers")), (ErrorCode::Timeout, None));
    assert_eq!(left_in(&source), [1]);
}

// Rule 3.5
#[test]
fn the_contexts_token_and_the_calls_token_both_reach_a_running_handler() {
    for by_context in [true, false] {
        let (of_context, of_call) = (CancellationSource::new(), CancellationSource::new());
        let context = StepContext::new("t").with_cancellation(of_context.token());
        let drain = fan_in(&context, [filled([1, 2])], |_, step| async move {
            assert!(!step.cancellation().is_cancelled());
            step.cancellation().cancelled().await;
            Ok::<_, BoxError>(())
        });
        let mut drain = drain.cancellation(of_call.token()).into_future();
        assert!(poll_times(&mut drain, 3).is_none());
        let stop = if by_context { &of_context } else { &of_call };
        stop.cancel();
        let error =
            poll_times(&mut drain, 3).expect("it is over").expect_err("cancelled").into_error();
        assert_eq!((error.code(), error.metadata("handled")), (ErrorCode::Canceled, Some("1")));
        drop(drain);
        assert_eq!((of_context.is_cancelled(), of_call.is_cancelled()), (by_context, !by_context));
    }
}

// Rules 3.2, 3.6
#[test]
fn a_failure_waits_for_the_other_handlers_no_longer_than_the_grace() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let ledger = Ledger::default();
    let sources = [filled([1]), filled([2]), filled([3])];
    let drain = fan_in(&context, sources, |message, step| {
        let ledger = ledger.clone();
        async move {
            ledger.apply(&step, message);
            yields(1).await;
            if message == 2 { Err("no".into()) } else { never().await }
        }
    });
    let mut drain = drain.concurrency(3).grace(3 * SECOND).into_future();
    assert!(poll_times(&mut drain, 5).is_none());
    clock.advance(3 * SECOND);
    let error = poll_times(&mut drain, 1).expect("it is over").expect_err("it failed").into_error();
    assert_eq!((error.code(), error.message_number()), (ErrorCode::Handler, Some(1)));
    assert_eq!(error.metadata("dropped_handlers"), Some("2"));
    assert_eq!(clock.sleepers(), 0, "nothing waits any longer");
    assert_eq!(roll_back(context.scope()), 3);
    ledger.assert_undone_in_reverse();
}

// Rule 3.6
#[test]
fn an_endless_grace_waits_for_the_handler_however_long() {
    let stop = CancellationSource::new();
    let clock = ManualClock::new();
    let context = context(&clock).with_cancellation(stop.token());
    let (gate, opened) = async_channel::bounded::<()>(1);
    let drain = fan_in(&context, [filled([1])], |_, _| {
        let opened = opened.clone();
        async move { opened.recv().await.map_err(|_| "closed") }
    });
    let mut drain = drain.grace(Duration::MAX).into_future();
    assert!(poll_times(&mut drain, 2).is_none());
    stop.cancel();
    assert!(poll_times(&mut drain, 3).is_none());
    clock.advance(1_000_000 * SECOND);
    assert!(poll_times(&mut drain, 3).is_none());
    gate.close();
    let error = poll_times(&mut drain, 3).expect("it is over").expect_err("cancelled").into_error();
    assert_eq!((error.code(), error.metadata("dropped_handlers")), (ErrorCode::Canceled, None));
    assert_eq!(error.related()[0].code(), ErrorCode::Handler);
}

// Rules 3.6, 3.7
#[test]
fn a_dropped_handler_whose_destructor_panics_is_attached() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("bomb");
        }
    }
    let clock = ManualClock::new();
    let drain = fan_in(&context(&clock), [filled([1])], |_, _| async {
        let bomb = Bomb;
        let result = never().await;
        drop(bomb);
        result
    });
    let mut drain = drain.timeout(SECOND).grace(Duration::ZERO).into_future();
    assert!(poll_times(&mut drain, 2).is_none());
    clock.advance(SECOND);
    let error =
        poll_times(&mut drain, 1).expect("it is over").expect_err("it timed out").into_error();
    assert_eq!((error.code(), error.metadata("dropped_handlers")), (ErrorCode::Timeout, Some("1")));
    let related: Vec<_> = error.related().iter().map(|e| (e.code(), e.message_number())).collect();
    assert_eq!(related, [(ErrorCode::Panic, Some(1))]);
}

// Rule 3.4
#[test]
fn a_message_timeout_starts_anew_with_every_message() {
    let clock = ManualClock::new();
    let drain = fan_in(&context(&clock), [filled([1, 2, 3, 4])], |_, step| async move {
        let clock = step.clock();
        clock.sleep_until(clock.now() + 6 * SECOND).await;
        Ok::<_, BoxError>(())
    });
    let mut drain = drain.message_timeout(10 * SECOND).into_future();
    for _ in 0..4 {
        assert!(poll_times(&mut drain, 3).is_none());
        assert_eq!(clock.sleepers(), 2, "the handler and its deadline");
        clock.advance(6 * SECOND);
    }
    let report = poll_times(&mut drain, 3).expect("it is over").expect("the drain succeeds");
    assert_eq!((report.handled(), report.elapsed()), (4, 24 * SECOND));
    assert_eq!(clock.sleepers(), 0);
}

// Rules 3.2, 3.4
#[test]
fn a_message_timeout_ends_the_drain_by_default_and_keeps_what_was_staged() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let ledger = Ledger::default();
    let source = filled([1, 2, 3]);
    let drain = fan_in(&context, [source.clone()], |message, step| {
        let ledger = ledger.clone();
        async move {
            ledger.apply(&step, message);
            if message == 2 { never().await } else { Ok(()) }
        }
    });
    let mut drain = drain.message_timeout(SECOND).into_future();
    assert!(poll_times(&mut drain, 3).is_none());
    clock.advance(SECOND);
    let error =
        poll_times(&mut drain, 3).expect("it is over").expect_err("it timed out").into_error();
    assert_eq!((error.code(), error.metadata("duration")), (ErrorCode::Timeout, Some("1s")));
    assert_eq!((error.message_number(), error.metadata("dropped_handlers")), (Some(2), None));
    assert_eq!(left_in(&source), [3]);
    assert_eq!(roll_back(context.scope()), 2);
    ledger.assert_undone_in_reverse();
}

// Rule 3.3
#[test]
fn deadlines_hold_when_the_clock_steps_backwards_and_comes_back() {
    let clock = ManualClock::new();
    clock.set(Tick::ZERO + 100 * SECOND);
    let drain = fan_in(&context(&clock), [filled([1])], |_, _| never());
    let mut drain = drain.timeout(10 * SECOND).grace(3 * SECOND).into_future();
    assert!(poll_times(&mut drain, 3).is_none());
    clock.set(Tick::ZERO);
    clock.advance(50 * SECOND);
    assert!(poll_times(&mut drain, 3).is_none(), "the deadline is a time, not a wait");
    clock.set(Tick::ZERO + 110 * SECOND);
    assert!(poll_times(&mut drain, 3).is_none(), "the grace has begun");
    clock.set(Tick::ZERO + 20 * SECOND);
    assert!(poll_times(&mut drain, 3).is_none(), "the grace is not over");
    clock.set(Tick::ZERO + 113 * SECOND);
    let error =
        poll_times(&mut drain, 1).expect("it is over").expect_err("it timed out").into_error();
    assert_eq!(error.metadata("dropped_handlers"), Some("1"));
}
