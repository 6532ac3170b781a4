//! Rules 3.3 to 3.6: deadlines, cancellation and grace, on a clock that is moved by hand.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::stream;
use support::{block_on, filled, left_in, poll_times};
use watershed::{
    BoxError, CancellationSource, Clock, ErrorCode, ManualClock, OnFailure, StepContext, Tick,
    fan_in,
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
    let error = block_on(drain.timeout(Duration::ZERO)).expect_err("it times out");
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
    let error = poll_times(&mut drain, 1).expect("it is over").expect_err("it timed out");
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
    let error = block_on(drain.timeout(SECOND)).expect_err("it times out");
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
    let drain = drain.message_timeout(SECOND).on_failure(OnFailure::RollBackMessage);
    let mut drain = drain
        .dead_letter(|letter| {
            assert_eq!(letter.error().code(), ErrorCode::Timeout);
            assert_eq!(letter.error().message_number(), Some(2));
            failed.fetch_add(1, Ordering::Relaxed);
        })
        .into_future();
    assert!(poll_times(&mut drain, 3).is_none());
    clock.advance(SECOND);
    let report = poll_times(&mut drain, 3).expect("it is over").expect("the drain succeeds");
    assert_eq!((report.handled(), report.rolled_back(), report.elapsed()), (2, 1, SECOND));
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
        assert_eq!(block_on(drain).expect_err("cancelled").code(), ErrorCode::Canceled);
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
    let error = poll_times(&mut drain, 3).expect("it is over").expect_err("cancelled");
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
struct Note(u32, Arc<std::sync::Mutex<Vec<u32>>>);

impl std::task::Wake for Note {
    fn wake(self: Arc<Self>) {
        self.1.lock().expect("no panic").push(self.0);
    }
}

// House rule 2
#[test]
fn a_manual_clock_wakes_in_the_order_of_deadline_and_registration() {
    let clock = ManualClock::new();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
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
