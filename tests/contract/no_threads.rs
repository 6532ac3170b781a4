//! Where there is no thread to be had, or no time, nothing panics. Rule 5.6.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use futures::{StreamExt, stream};
use watershed::channels::{Select, merge};
use watershed::combinators::{retry, when_all, when_any};
use watershed::timers::{Ticker, delay, with_timeout};
use watershed::{
    BoxError, Clock, Error, ErrorCode, ManualClock, RetryPolicy, StepContext, SystemClock,
};

use crate::support::cannot_wait::CannotWait;

/// Whatever has to wait for `context` fails with the code of the clock, and has called nothing.
fn everything_that_waits_says_what_is_missing(context: &StepContext) {
    let second = Duration::from_secs(1);
    let uncalled = |_: StepContext| -> std::future::Ready<Result<(), BoxError>> {
        panic!("nothing was to be called")
    };
    let clock = |what: &str, error: Error| {
        assert_eq!(error.code(), ErrorCode::Clock, "{what}: {error:#}");
    };
    clock("delay", block_on(delay(context, second)).unwrap_err());
    clock("ticker", Ticker::new(context, second).unwrap_err());
    clock("timeout", block_on(with_timeout(context, second, uncalled).into_future()).unwrap_err());
    clock(
        "all",
        block_on(when_all(context, [uncalled]).timeout(second).into_future()).unwrap_err(),
    );
    clock(
        "any",
        block_on(when_any(context, [uncalled]).timeout(second).into_future()).unwrap_err(),
    );

    let twice = RetryPolicy::fixed(2, second);
    let mut attempts = 0;
    let retry = retry(context, twice, |_| {
        attempts += 1;
        std::future::ready(Err::<(), _>("down"))
    })
    .into_future();
    clock("retry", block_on(retry.into_future()).unwrap_err());
    assert_eq!(attempts, 1);
}

/// What has nothing to wait for does not ask.
fn everything_else_works(context: &StepContext) {
    let ok = |_: StepContext| async { Ok::<_, BoxError>(7) };
    block_on(delay(context, Duration::ZERO)).unwrap();
    assert_eq!(block_on(when_all(context, [ok]).into_future()).unwrap(), [7]);
    assert_eq!(
        block_on(when_all(context, [ok]).timeout(Duration::MAX).into_future()).unwrap(),
        [7]
    );
    let twice = RetryPolicy::fixed(2, Duration::ZERO);
    let mut failed = false;
    let retry = retry(context, twice, |_| {
        let first = !std::mem::replace(&mut failed, true);
        std::future::ready(if first { Err("down") } else { Ok(()) })
    })
    .into_future();
    block_on(retry.into_future()).unwrap();
}

// Rule 5.6
#[test]
fn an_operation_that_has_to_wait_asks_the_clock_first() {
    let context = StepContext::new("orders").with_clock(Arc::new(CannotWait::default()));
    everything_that_waits_says_what_is_missing(&context);
    everything_else_works(&context);
}

// Rule 5.6
#[test]
fn a_merge_and_a_select_with_a_timeout_ask_the_clock_first() {
    let context = StepContext::new("orders").with_clock(Arc::new(CannotWait::default()));
    let second = Duration::from_secs(1);
    let mut merged = merge(&context, [stream::iter([1])]).timeout(second);
    let error = block_on(merged.next()).unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Clock);
    let mut select = Select::new(&context)
        .timeout(second)
        .case(stream::iter([1]), |_, _| async { Ok::<_, BoxError>(()) });
    assert_eq!(block_on(select.run()).unwrap_err().code(), ErrorCode::Clock);
}

// Rule 5.6
#[test]
fn a_clock_can_wait_unless_it_says_otherwise() {
    ManualClock::new().check().unwrap();
    SystemClock::new().check().unwrap();
}

// Rule 5.6
#[test]
fn a_process_that_can_start_no_thread_is_told_so() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "no_threads::in_a_process_without_threads"])
        .args(["--ignored", "--test-threads=1", "--nocapture"])
        // No stack is as large as this: every thread fails to start.
        .env("RUST_MIN_STACK", (1_usize << 47).to_string())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "it is run by another test, in a process that can start no thread"]
fn in_a_process_without_threads() {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICKED.store(true, Ordering::SeqCst);
        default(info);
    }));
    assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "there are threads");

    let error = SystemClock::new().check().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Clock);
    assert!(format!("{error:#}").starts_with("no thread can be started to wait by: "), "{error:#}");
    let context = StepContext::new("orders");
    everything_that_waits_says_what_is_missing(&context);
    everything_else_works(&context);

    // A wait that was begun without asking is right all the same.
    let clock = SystemClock::new();
    let until = clock.now() + Duration::from_millis(20);
    block_on(clock.sleep_until(until));
    assert!(clock.now() >= until);
    // A clock of the user's works.
    let manual = ManualClock::new();
    let context = context.with_clock(Arc::new(manual.clone()));
    let wait = delay(&context, Duration::from_secs(1));
    manual.advance(Duration::from_secs(1));
    block_on(wait).unwrap();
    assert!(!PANICKED.load(Ordering::SeqCst), "something panicked");
}
