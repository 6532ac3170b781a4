//! Running what is staged. Rules 4.4 to 4.7, 4.13, 4.14.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use watershed::timers::delay;
use watershed::{
    CancellationSource, Clock, CompensationPolicy, CompensationScope, ErrorCode, ManualClock,
    RetryPolicy, StepContext, labelled, with_step,
};

use crate::support::{Hand, block_on, yields};

const SECOND: Duration = Duration::from_secs(1);

fn manual() -> (ManualClock, Arc<dyn Clock>) {
    let clock = ManualClock::new();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    (clock, shared)
}

fn running() -> [CompensationPolicy; 3] {
    [
        CompensationPolicy::sequential_reverse(),
        CompensationPolicy::parallel(),
        CompensationPolicy::parallel_limited(2),
    ]
}

/// An action that fails so many times, and is counted.
fn fails(
    times: u32,
    attempts: &Arc<AtomicU32>,
) -> impl FnMut() -> std::future::Ready<Result<(), &'static str>> + Send + use<> {
    let attempts = Arc::clone(attempts);
    move || {
        let attempt = attempts.fetch_add(1, Ordering::SeqCst);
        std::future::ready(if attempt < times { Err("not yet") } else { Ok(()) })
    }
}

// Rule 4.4
#[test]
fn every_subset_of_failing_actions_is_attempted_reported_and_kept() {
    for policy in running() {
        for subset in 0_u32..1 << 6 {
            let (scope, healed) = (CompensationScope::new(), Arc::new(AtomicBool::new(false)));
            let log = Arc::new(Mutex::new(Vec::new()));
            for number in 0..6 {
                let (log, healed) = (Arc::clone(&log), Arc::clone(&healed));
                let action = move || {
                    log.lock().unwrap().push(number);
                    let fails = subset >> number & 1 == 1 && !healed.load(Ordering::SeqCst);
                    async move { if fails { Err(format!("no {number}")) } else { Ok(()) } }
                };
                scope.register_compensation(labelled(format!("action {number}"), action));
            }
            let failing: Vec<u32> = (0..6).rev().filter(|n| subset >> n & 1 == 1).collect();
            match block_on(scope.roll_back(&policy)) {
                Ok(report) => assert_eq!((report.succeeded(), subset), (6, 0)),
                Err(failure) => {
                    assert_eq!(failure.error().code(), ErrorCode::Compensation);
                    let report = failure.report();
                    assert_eq!(report.succeeded(), 6 - failing.len());
                    let mut labels: Vec<_> =
                        report.failures().iter().filter_map(|failed| failed.label()).collect();
                    labels.sort_unstable_by(|a, b| b.cmp(a));
                    let expected: Vec<_> = failing.iter().map(|n| format!("action {n}")).collect();
                    assert_eq!(labels, expected);
                    let said = format!("{:#}", failure.error());
                    assert!(said.ends_with(&format!("no {}", failing[0])), "{said}");
                }
            }
            assert_eq!(scope.len(), failing.len());
            assert_eq!(*log.lock().unwrap(), [5, 4, 3, 2, 1, 0], "all were attempted");
            log.lock().unwrap().clear();
            healed.store(true, Ordering::SeqCst);
            block_on(scope.roll_back(&policy)).unwrap();
            assert_eq!(*log.lock().unwrap(), failing, "the rest, in order");
        }
    }
}

// Rules 4.4, 5.4
#[test]
fn a_failing_action_is_retried_by_the_clock_of_the_rollback() {
    for policy in running() {
        let ((clock, shared), scope) = (manual(), CompensationScope::new());
        let attempts = Arc::new(AtomicU32::new(0));
        scope.register_compensation(fails(2, &attempts));
        let policy = policy.retry(RetryPolicy::fixed(3, SECOND));
        let mut rollback = Hand::new(scope.roll_back(&policy).clock(&shared));
        for attempt in 1..=2 {
            assert!(rollback.run().is_pending());
            assert_eq!(attempts.load(Ordering::SeqCst), attempt);
            clock.advance(SECOND / 2);
            assert!(rollback.poll().is_pending(), "it is not due");
            assert_eq!(attempts.load(Ordering::SeqCst), attempt);
            clock.advance(SECOND / 2);
        }
        let Poll::Ready(Ok(report)) = rollback.run() else { panic!("it has succeeded") };
        assert_eq!((report.succeeded(), attempts.load(Ordering::SeqCst)), (1, 3));
    }
}

// Rules 4.4, 4.6
#[test]
fn an_attempt_that_takes_too_long_is_dropped_and_has_failed() {
    for policy in running() {
        for polled_late in [false, true] {
            let ((clock, shared), scope) = (manual(), CompensationScope::new());
            let held = Arc::new(());
            let own = Arc::clone(&held);
            scope.register_compensation(move || {
                let own = Arc::clone(&own);
                async move {
                    std::future::pending::<()>().await;
                    drop(own);
                }
            });
            let done = Arc::new(AtomicBool::new(false));
            scope.register_compensation_with(Arc::clone(&done), |done| async move {
                done.store(true, Ordering::SeqCst);
            });
            let policy =
                policy.clone().attempt_timeout(SECOND).retry(RetryPolicy::fixed(2, SECOND));
            let mut rollback = Hand::new(scope.roll_back(&policy).clock(&shared));
            assert!(rollback.run().is_pending());
            assert!(done.load(Ordering::SeqCst));
            assert_eq!(Arc::strong_count(&held), 3);
            // By the clock's now, whatever its timers do.
            clock.advance(if polled_late { 10 * SECOND } else { SECOND });
            assert!(rollback.run().is_pending());
            assert_eq!(Arc::strong_count(&held), 2, "the attempt is dropped");
            clock.advance(SECOND);
            assert!(rollback.run().is_pending());
            assert_eq!(Arc::strong_count(&held), 3, "the next one");
            clock.advance(SECOND);
            let Poll::Ready(Err(failure)) = rollback.run() else { panic!("it is over") };
            let failed = &failure.report().failures()[0];
            assert_eq!((failed.attempts(), failed.error().code()), (2, ErrorCode::Timeout));
            assert_eq!((failure.report().succeeded(), scope.clear()), (1, 1));
            assert_eq!((clock.sleepers(), Arc::strong_count(&held)), (0, 1));
        }
    }
}

// Rule 4.6
#[test]
fn an_attempt_that_is_ready_when_it_is_polled_late_has_succeeded() {
    let ((clock, shared), scope) = (manual(), CompensationScope::new());
    scope.register_compensation(|| yields(1));
    let policy = CompensationPolicy::default().attempt_timeout(SECOND);
    let mut rollback = Hand::new(scope.roll_back(&policy).clock(&shared));
    assert!(rollback.poll().is_pending());
    clock.advance(2 * SECOND);
    assert!(matches!(rollback.poll(), Poll::Ready(Ok(_))));
    for (timeout, ends) in [(Duration::ZERO, true), (Duration::MAX, false)] {
        scope.register_compensation(std::future::pending::<()>);
        let policy = CompensationPolicy::default().attempt_timeout(timeout);
        let mut rollback = Hand::new(scope.roll_back(&policy).clock(&shared));
        let _ = rollback.run();
        clock.advance(Duration::from_secs(1 << 32));
        assert_eq!(rollback.run().is_ready() || scope.is_empty(), ends || scope.is_empty());
        drop(rollback);
        assert_eq!(scope.clear(), 1);
    }
}

// Rule 4.5
#[test]
fn a_cancelled_rollback_keeps_what_has_not_succeeded_and_says_what_has() {
    for policy in running() {
        let (scope, stop) = (CompensationScope::new(), CancellationSource::new());
        scope.register_compensation(std::future::pending::<()>);
        scope.register_compensation(|| async { Err("no") });
        scope.register_compensation(|| async {});
        let mut rollback = Hand::new(scope.roll_back(&policy).cancellation(stop.token()));
        assert!(rollback.run().is_pending());
        let before = rollback.wakes();
        stop.cancel();
        assert!(rollback.wakes() > before);
        let Poll::Ready(Err(failure)) = rollback.poll() else { panic!("it is cancelled") };
        assert_eq!(failure.error().code(), ErrorCode::Canceled);
        assert_eq!(failure.report().succeeded(), 1);
        assert_eq!(failure.report().failures().len(), 1);
        assert_eq!(failure.error().related()[0].code(), ErrorCode::Compensation);
        assert_eq!(scope.clear(), 2);
    }
}

// Rule 4.5
#[test]
fn a_rollback_that_is_dropped_while_it_waits_keeps_the_action_and_forgets_the_wait() {
    for policy in running() {
        let ((clock, shared), scope) = (manual(), CompensationScope::new());
        scope.register_compensation(|| async { Err("no") });
        let policy = policy.retry(RetryPolicy::fixed(u32::MAX, SECOND)).attempt_timeout(SECOND);
        let mut rollback = Hand::new(scope.roll_back(&policy).clock(&shared));
        assert!(rollback.run().is_pending());
        assert_eq!((scope.len(), clock.sleepers()), (1, 1));
        drop(rollback);
        assert_eq!((scope.clear(), clock.sleepers()), (1, 0));
    }
}

// Rule 4.6
#[test]
fn as_many_actions_run_at_once_as_the_policy_says() {
    let cases = [
        (CompensationPolicy::sequential_reverse(), 1),
        (CompensationPolicy::parallel_limited(1), 1),
        (CompensationPolicy::parallel_limited(3), 3),
        (CompensationPolicy::parallel_limited(usize::MAX), 300),
        (CompensationPolicy::parallel(), 300),
    ];
    for (policy, expected) in cases {
        let scope = CompensationScope::new();
        let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        for _ in 0..300 {
            scope.register_compensation_with(Arc::clone(&running), |running| async move {
                let now = running.0.fetch_add(1, Ordering::SeqCst) + 1;
                running.1.fetch_max(now, Ordering::SeqCst);
                yields(30).await;
                running.0.fetch_sub(1, Ordering::SeqCst);
            });
        }
        assert_eq!(block_on(scope.roll_back(&policy)).unwrap().succeeded(), 300);
        assert_eq!(running.1.load(Ordering::SeqCst), expected, "{policy:?}");
    }
}

// Rule 4.6
#[test]
fn nothing_runs_by_the_policy_none_and_a_limit_of_none_at_all_is_an_error() {
    let scope = CompensationScope::new();
    scope.register_compensation(|| async {});
    let report = block_on(scope.roll_back(&CompensationPolicy::none())).unwrap();
    assert_eq!((report.succeeded(), scope.len()), (0, 1));
    let failure = block_on(scope.roll_back(&CompensationPolicy::parallel_limited(0))).unwrap_err();
    assert_eq!((failure.error().code(), scope.clear()), (ErrorCode::Validation, 1));
}

// Rule 4.6
#[test]
fn a_panic_in_an_action_or_of_the_clock_is_a_failed_action() {
    #[derive(Debug)]
    struct Broken;
    impl Clock for Broken {
        fn now(&self) -> watershed::Tick {
            panic!("no time")
        }
        fn sleep_until(&self, _: watershed::Tick) -> watershed::Sleep {
            panic!("no sleep")
        }
    }
    for policy in running() {
        let scope = CompensationScope::new();
        scope.register_compensation(|| std::future::poll_fn(|_| -> Poll<()> { panic!("in poll") }));
        scope.register_compensation(|| -> std::future::Ready<()> { panic!("in call") });
        let failure = block_on(scope.roll_back(&policy)).unwrap_err();
        let failures = failure.report().failures();
        assert!(failures.iter().all(|failed| failed.error().code() == ErrorCode::Panic));
        assert_eq!(scope.clear(), 2);

        scope.register_compensation(|| async { Err("no") });
        let broken: Arc<dyn Clock> = Arc::new(Broken);
        let retried = policy.clone().retry(RetryPolicy::fixed(2, SECOND));
        let failure = block_on(scope.roll_back(&retried).clock(&broken)).unwrap_err();
        assert_eq!((failure.report().failures().len(), scope.len()), (1, 1));
        let timed = policy.attempt_timeout(SECOND);
        let failure = block_on(scope.roll_back(&timed).clock(&broken)).unwrap_err();
        assert_eq!((failure.report().failures().len(), scope.clear()), (1, 1));
    }
}

// Rules 4.5, 4.12
#[test]
fn a_waker_that_panics_loses_no_action() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("the waker");
        }
    }
    for policy in running() {
        let (scope, gate) = (CompensationScope::new(), crate::support::Gate::default());
        let wait = gate.clone();
        scope.register_compensation(move || {
            let wait = wait.clone();
            async move { wait.wait().await }
        });
        scope.register_compensation(|| yields(2));
        let bad = Waker::from(Arc::new(Panics));
        let mut rollback = Box::pin(scope.roll_back(&policy));
        for _ in 0..4 {
            let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                rollback.as_mut().poll(&mut Context::from_waker(&bad)).is_pending()
            }));
            assert!(polled.unwrap_or(true));
            scope.register_compensation(|| async {});
        }
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gate.open()));
        let staged = scope.len();
        let mut good = Hand::new(scope.roll_back(&policy));
        assert!(matches!(good.run(), Poll::Ready(Ok(_))), "{staged} were left of {policy:?}");
        assert!(scope.is_empty());
    }
}

// Rule 4.7
#[test]
fn an_action_registered_while_rolling_back_runs_in_the_same_rollback() {
    for policy in running() {
        let (scope, ran) = (CompensationScope::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..100 {
            let (inner, ran) = (scope.clone(), Arc::clone(&ran));
            scope.register_compensation(move || {
                let late = Arc::clone(&ran);
                inner.register_compensation(move || {
                    late.fetch_add(1, Ordering::SeqCst);
                    yields(1)
                });
                yields(1)
            });
        }
        let report = block_on(scope.roll_back(&policy)).unwrap();
        assert_eq!((report.succeeded(), ran.load(Ordering::SeqCst), scope.len()), (200, 100, 0));
    }
}

// Rules 4.7, 4.10
#[test]
fn an_action_registered_from_outside_wakes_a_rollback_that_may_start_it_at_once() {
    let (scope, ran) = (CompensationScope::new(), Arc::new(AtomicBool::new(false)));
    scope.register_compensation(std::future::pending::<()>);
    let mut rollback = Hand::new(scope.roll_back(&CompensationPolicy::parallel()));
    assert!(rollback.run().is_pending());
    let wakes = rollback.wakes();
    scope.register_compensation_with(Arc::clone(&ran), |ran| async move {
        ran.store(true, Ordering::SeqCst);
    });
    assert!(rollback.wakes() > wakes);
    assert!(rollback.run().is_pending());
    assert!(ran.load(Ordering::SeqCst));
    drop(rollback);
    assert_eq!(scope.clear(), 1);
}

// Rule 4.13
#[test]
fn a_million_actions_roll_back_in_order_on_a_small_stack() {
    let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn(|| {
        let (scope, next) = (CompensationScope::new(), Arc::new(AtomicUsize::new(1_000_000)));
        for number in 0..1_000_000 {
            scope.register_compensation_with(Arc::clone(&next), move |next| async move {
                let expected = next.fetch_sub(1, Ordering::Relaxed) - 1;
                if expected == number { Ok(()) } else { Err("out of order") }
            });
        }
        block_on(scope.roll_back(&CompensationPolicy::default())).map(|report| report.succeeded())
    });
    let succeeded = thread.unwrap().join().unwrap();
    assert_eq!(succeeded.unwrap(), 1_000_000);
}

// Rules 2.4, 4.13
#[test]
fn a_rollback_gives_the_thread_back_and_hears_its_token_soon() {
    for policy in [CompensationPolicy::default(), CompensationPolicy::parallel()] {
        let (scope, ran) = (CompensationScope::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..10_000 {
            scope.register_compensation_with(Arc::clone(&ran), |ran| async move {
                ran.fetch_add(1, Ordering::SeqCst);
            });
        }
        let stop = CancellationSource::new();
        let mut rollback = Hand::new(scope.roll_back(&policy).cancellation(stop.token()));
        let mut before = 0;
        for _ in 0..10 {
            assert!(rollback.poll().is_pending());
            let now = ran.load(Ordering::SeqCst);
            assert!(now - before <= 256, "{} in one poll", now - before);
            before = now;
        }
        stop.cancel();
        let Poll::Ready(Err(failure)) = rollback.poll() else { panic!("it is cancelled") };
        assert_eq!(failure.report().succeeded(), ran.load(Ordering::SeqCst));
        assert_eq!(scope.clear(), 10_000 - ran.load(Ordering::SeqCst));
    }
}

// Rule 4.14
#[test]
fn an_action_may_wait_by_the_step_it_is_given() {
    for policy in running() {
        let ((clock, shared), work) = (manual(), CancellationSource::new());
        let context =
            StepContext::new("booking").with_clock(shared).with_cancellation(work.token());
        let told = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&told);
        context.register_compensation(with_step(move |step: StepContext| {
            let list = Arc::clone(&list);
            async move {
                delay(&step, SECOND).await?;
                list.lock().unwrap().push((step.name().to_owned(), step.scope().len()));
                Ok::<_, watershed::Error>(())
            }
        }));
        context.register_compensation(with_step(async |step: StepContext| {
            delay(&step, Duration::ZERO).await
        }));
        work.cancel();
        let stop = CancellationSource::new();
        let mut rollback = Hand::new(context.roll_back(&policy).cancellation(stop.token()));
        assert!(rollback.run().is_pending());
        clock.advance(SECOND);
        assert!(matches!(rollback.run(), Poll::Ready(Ok(_))));
        assert_eq!(*told.lock().unwrap(), [("booking".to_owned(), 1)]);
    }
}

// Rule 4.14
#[test]
fn the_step_of_an_action_ends_with_the_token_of_the_rollback() {
    let (scope, stop) = (CompensationScope::new(), CancellationSource::new());
    let heard = Arc::new(AtomicBool::new(false));
    let own = Arc::clone(&heard);
    let source = stop.clone();
    scope.register_compensation(with_step(move |step: StepContext| {
        let (own, source) = (Arc::clone(&own), source.clone());
        async move {
            source.cancel();
            own.store(step.cancellation().is_cancelled(), Ordering::SeqCst);
        }
    }));
    block_on(scope.roll_back(&CompensationPolicy::default()).cancellation(stop.token())).unwrap();
    assert!(heard.load(Ordering::SeqCst));
}
