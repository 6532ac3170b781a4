//! Section 4: what is staged, in which order it is undone, and what nothing can lose.

mod support;

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use support::{Ledger, block_on, filled, poll_times, yields};
use watershed::{
    BoxError, CancellationSource, CancellationToken, Commit, CompensationPolicy, CompensationScope,
    Error, ErrorCode, ManualClock, RetryPolicy, RollbackFailed, RollbackReport, StepContext,
    diagnostics, fan_in, labelled, run_compensation,
};

type Log = Arc<Mutex<Vec<u32>>>;

fn stage(scope: &CompensationScope, log: &Log, number: u32) {
    scope.register_compensation_with(Arc::clone(log), move |log| async move {
        log.lock().expect("no panic").push(number);
    });
}

fn run(scope: &CompensationScope, policy: &CompensationPolicy) -> Result<RollbackReport, Error> {
    block_on(run_compensation(policy, scope, CancellationToken::never()))
}

fn sequential() -> CompensationPolicy {
    CompensationPolicy::sequential_reverse()
}

// Rule 4.2
#[test]
fn absorbed_scopes_roll_back_in_reverse_of_registration_over_any_nesting() {
    let log = Log::default();
    let (left, right, inner) = Default::default();
    stage(&left, &log, 1);
    stage(&right, &log, 2);
    stage(&inner, &log, 3);
    stage(&left, &log, 4);
    stage(&inner, &log, 5);
    stage(&right, &log, 6);
    right.absorb(&inner);
    left.absorb(&right);
    left.absorb(&left.clone());
    stage(&left, &log, 7);
    run(&left, &sequential()).expect("all succeed");
    assert_eq!(*log.lock().expect("no panic"), [7, 6, 5, 4, 3, 2, 1]);
}

// P2, rules 4.2, 4.1
#[test]
fn concurrent_handlers_are_rolled_back_in_reverse_of_registration() {
    let context = StepContext::new("t");
    let ledger = Ledger::default();
    let sources: Vec<_> = (0..4).map(|s| filled((0..9).map(move |m| s * 100 + m * 10))).collect();
    let drain = fan_in(&context, sources, |message: u32, step| {
        let ledger = ledger.clone();
        async move {
            for effect in 0..3 {
                ledger.apply(&step, message + effect);
                yields((message / 10 + effect) as usize % 4).await;
            }
            if message == 270 { Err("boom") } else { Ok(()) }
        }
    });
    block_on(drain.concurrency(NonZeroUsize::new(4).expect("not zero"))).expect_err("it fails");
    run(context.scope(), &sequential()).expect("all succeed");
    assert!(ledger.done().len() > 60);
    ledger.assert_undone_in_reverse();
}

// Rules 4.3, 4.8
#[test]
fn a_drain_clears_only_what_its_own_messages_staged() {
    let context = StepContext::new("t");
    context.register_compensation(|| async {});
    let handler = |_: u32, step: StepContext| async move {
        step.register_compensation(|| async {});
        yields(1).await;
        Ok::<_, BoxError>(())
    };
    let mut short = fan_in(&context, [filled([1])], handler).into_future();
    let mut long = fan_in(&context, [filled([1, 2, 3])], handler).into_future();
    assert!(poll_times(&mut long, 3).is_none());
    context.register_compensation(|| async {});
    assert!(poll_times(&mut short, 9).expect("it is over").is_ok());
    assert!(context.scope().len() > 2, "what the other drain staged is there");
    assert!(poll_times(&mut long, 9).expect("it is over").is_ok());
    assert_eq!(context.scope().clear(), 2);
}

// Rule 4.3
#[test]
fn commit_message_clears_each_message_and_never_clears_none() {
    for (commit, left) in [(Commit::Message, 0), (Commit::Never, 6), (Commit::Pipeline, 0)] {
        let context = StepContext::new("t");
        let most = AtomicUsize::new(0);
        let drain = fan_in(&context, [filled([1, 2, 3])], |_: u32, step| {
            most.fetch_max(context.scope().len(), Ordering::Relaxed);
            async move {
                step.register_compensation(|| async {});
                step.register_compensation(|| async {});
                Ok::<_, BoxError>(())
            }
        });
        block_on(drain.commit(commit)).expect("the drain succeeds");
        assert_eq!(context.scope().clear(), left);
        let staged_meanwhile = if commit == Commit::Message { 0 } else { 4 };
        assert_eq!(most.into_inner(), staged_meanwhile, "{commit:?}");
    }
}

// Rule 4.4
#[test]
fn every_subset_of_failing_actions_is_attempted_reported_and_kept() {
    for subset in 0_u32..1 << 7 {
        let scope = CompensationScope::new();
        let log = Log::default();
        let healed = Arc::new(AtomicUsize::new(0));
        for number in 0..7 {
            let (log, healed) = (Arc::clone(&log), Arc::clone(&healed));
            let action = move || {
                log.lock().expect("no panic").push(number);
                let fails = subset >> number & 1 == 1 && healed.load(Ordering::Relaxed) == 0;
                async move { if fails { Err(format!("no {number}")) } else { Ok(()) } }
            };
            scope.register_compensation(labelled(format!("action {number}"), action));
        }
        let failing: Vec<_> = (0..7).rev().filter(|number| subset >> number & 1 == 1).collect();
        match run(&scope, &sequential()) {
            Ok(report) => assert_eq!((report.succeeded(), subset), (7, 0)),
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::Compensation);
                let failed = error.downcast_ref::<RollbackFailed>().expect("the report");
                assert_eq!(failed.report().succeeded(), 7 - failing.len());
                let labels: Vec<_> = error.related().iter().map(|e| e.metadata("label")).collect();
                let expected: Vec<_> = failing.iter().map(|n| format!("action {n}")).collect();
                assert_eq!(labels, expected.iter().map(|l| Some(&**l)).collect::<Vec<_>>());
                for failure in failed.report().failures() {
                    assert!(failure.registered_at().file().ends_with("compensation.rs"));
                }
            }
        }
        assert_eq!(scope.len(), failing.len());
        assert_eq!(*log.lock().expect("no panic"), [6, 5, 4, 3, 2, 1, 0], "all attempted");
        log.lock().expect("no panic").clear();
        healed.store(1, Ordering::Relaxed);
        run(&scope, &sequential()).expect("all succeed now");
        assert_eq!(*log.lock().expect("no panic"), failing, "the rest, in order");
    }
}

// Rules 4.4, 5.4
#[test]
fn a_failing_action_is_retried_by_the_clock_of_the_policy() {
    let clock = ManualClock::new();
    let scope = CompensationScope::new();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    scope.register_compensation(move || {
        let attempt = counted.fetch_add(1, Ordering::Relaxed);
        async move { if attempt < 2 { Err("not yet") } else { Ok(()) } }
    });
    let second = Duration::from_secs(1);
    let retry = RetryPolicy::fixed(NonZeroU32::new(3).expect("not zero"), second);
    let policy = sequential().retry(retry).clock(Arc::new(clock.clone()));
    let mut rollback = scope.run_compensation(&policy, CancellationToken::never());
    for attempt in 1..=2 {
        assert!(poll_times(&mut rollback, 5).is_none());
        assert_eq!(attempts.load(Ordering::Relaxed), attempt);
        clock.advance(second);
    }
    let report = poll_times(&mut rollback, 5).expect("it is over").expect("it succeeds");
    assert_eq!((report.succeeded(), attempts.load(Ordering::Relaxed)), (1, 3));
}

// Rule 4.5
#[test]
fn a_cancelled_rollback_keeps_what_has_not_succeeded() {
    let (scope, log, stop) = (CompensationScope::new(), Log::default(), CancellationSource::new());
    stage(&scope, &log, 1);
    scope.register_compensation(std::future::pending::<()>);
    stage(&scope, &log, 3);
    let mut rollback = scope.run_compensation(&sequential(), stop.token());
    assert!(poll_times(&mut rollback, 5).is_none());
    stop.cancel();
    let error = poll_times(&mut rollback, 2).expect("it is over").expect_err("cancelled");
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert_eq!((&*log.lock().expect("no panic"), scope.clear()), (&vec![3], 2));
}

// Rule 4.6
#[test]
fn policies_run_nothing_all_at_once_or_up_to_a_limit_and_contain_panics() {
    let scope = CompensationScope::new();
    let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    for _ in 0..10 {
        scope.register_compensation_with(Arc::clone(&running), |running| async move {
            let now = running.0.fetch_add(1, Ordering::Relaxed) + 1;
            running.1.fetch_max(now, Ordering::Relaxed);
            yields(2).await;
            running.0.fetch_sub(1, Ordering::Relaxed);
            Err::<(), _>("again")
        });
    }
    assert_eq!(run(&scope, &CompensationPolicy::none()).expect("nothing ran").succeeded(), 0);
    let three = NonZeroUsize::new(3).expect("not zero");
    for (policy, most) in [
        (CompensationPolicy::parallel(), 10),
        (CompensationPolicy::parallel_limited(three), 3),
        (sequential(), 1),
    ] {
        let error = run(&scope, &policy).expect_err("all fail");
        assert_eq!((error.related().len(), scope.len()), (10, 10));
        assert_eq!(running.1.swap(0, Ordering::Relaxed), most);
    }
    scope.clear();
    scope.register_compensation(|| std::future::poll_fn(|_| -> Poll<()> { panic!("in poll") }));
    scope.register_compensation(|| -> std::future::Ready<()> { panic!("in call") });
    for policy in [sequential(), CompensationPolicy::parallel()] {
        let error = run(&scope, &policy).expect_err("both panic");
        assert!(error.related().iter().all(|error| error.code() == ErrorCode::Panic));
        assert_eq!(scope.len(), 2);
    }
    scope.clear();
}

// Rule 4.7
#[test]
fn an_action_registered_while_rolling_back_runs_in_the_same_rollback() {
    for policy in [sequential(), CompensationPolicy::parallel()] {
        let (context, log) = (StepContext::new("t"), Log::default());
        let (late, late_log) = (Arc::new(Mutex::new(None)), Arc::clone(&log));
        *late.lock().expect("no panic") = Some(context.scope().clone());
        stage(context.scope(), &log, 1);
        context.register_compensation(move || {
            if let Some(scope) = late.lock().expect("no panic").take() {
                stage(&scope, &late_log, 2);
            }
            yields(1)
        });
        assert_eq!(run(context.scope(), &policy).expect("all succeed").succeeded(), 3);
        let mut log = log.lock().expect("no panic").clone();
        log.sort_unstable();
        assert_eq!(log, [1, 2]);
    }
}

// Rule 4.9
#[test]
fn a_reservation_stays_staged_when_dropped_and_does_nothing_when_disarmed() {
    let (scope, other, log) = (CompensationScope::new(), CompensationScope::new(), Log::default());
    let reserve = |number: u32| {
        let log = Arc::clone(&log);
        scope.reserve(move || {
            log.lock().expect("no panic").push(number);
            async {}
        })
    };
    drop(reserve(1));
    let (second, third) = (reserve(2), reserve(3));
    assert!(second.disarm());
    assert_eq!(scope.len(), 2);
    other.absorb(&scope);
    assert!(!third.disarm(), "it has moved on, and does nothing there");
    run(&other, &sequential()).expect("all succeed");
    assert_eq!(*log.lock().expect("no panic"), [1]);
}

// Rule 4.10
#[test]
fn two_rollbacks_at_once_share_the_actions_and_answer_when_all_have_ended() {
    let policies = [sequential(), CompensationPolicy::parallel()];
    for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (scope, log) = (CompensationScope::new(), Log::default());
        for number in 0..6 {
            scope.register_compensation_with(Arc::clone(&log), move |log| async move {
                yields(2).await;
                log.lock().expect("no panic").push(number);
                if number == 3 { Err("three fails") } else { Ok(()) }
            });
        }
        let mut one = scope.run_compensation(&policies[first], CancellationToken::never());
        let mut two = scope.run_compensation(&policies[second], CancellationToken::never());
        let (mut answers, mut errors) = (0, Vec::new());
        for _ in 0..100 {
            for rollback in [&mut one, &mut two] {
                if errors.len() < 2 {
                    if let Some(answer) = poll_times(rollback, 1) {
                        assert_eq!(log.lock().expect("no panic").len(), 6, "all have ended");
                        answers += 1;
                        errors.push(answer.expect_err("three fails").related().len());
                    }
                }
            }
            if answers == 2 {
                break;
            }
        }
        assert_eq!(errors, [1, 1], "policies {first} and {second}");
        assert_eq!(scope.clear(), 1);
    }
}

// Rule 4.10
#[test]
fn a_rollback_takes_over_from_one_that_is_dropped() {
    let (scope, log) = (CompensationScope::new(), Log::default());
    for number in 0..4 {
        scope.register_compensation_with(Arc::clone(&log), move |log| async move {
            yields(3).await;
            log.lock().expect("no panic").push(number);
        });
    }
    let mut first = scope.run_compensation(&sequential(), CancellationToken::never());
    let mut second = scope.run_compensation(&sequential(), CancellationToken::never());
    assert!(poll_times(&mut first, 2).is_none());
    assert!(poll_times(&mut second, 2).is_none());
    drop(first);
    let report = poll_times(&mut second, 50).expect("it is over").expect("all succeed");
    assert_eq!(report.succeeded(), 4);
    assert_eq!(*log.lock().expect("no panic"), [3, 2, 1, 0]);
}

// Rule 4.11
#[test]
fn actions_lost_with_their_scope_are_counted_and_not_run() {
    let before = diagnostics::snapshot();
    let (scope, log) = (CompensationScope::new(), Log::default());
    stage(&scope, &log, 1);
    stage(&scope, &log, 2);
    drop(scope);
    assert!(diagnostics::snapshot().since(&before).compensations_lost >= 2);
    assert!(log.lock().expect("no panic").is_empty());
    assert_eq!(Arc::strong_count(&log), 1, "nothing leaked");
}

// Rule 4.12
#[test]
fn panicking_destructors_leak_no_neighbour_and_leave_the_scope_usable() {
    struct Bomb(CompensationScope, #[expect(dead_code, reason = "counted")] Arc<()>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            // It would deadlock if a lock of the library were held.
            assert!(self.0.len() > 1_000, "bomb");
        }
    }
    let other = CompensationScope::new();
    let alive = Arc::new(());
    let fill = |scope: &CompensationScope| {
        for _ in 0..3 {
            let bomb = Bomb(other.clone(), Arc::clone(&alive));
            scope.register_compensation(move || {
                let _ = &bomb;
                async {}
            });
        }
    };
    let scope = CompensationScope::new();
    fill(&scope);
    assert_eq!(scope.clear(), 3);
    fill(&scope);
    assert_eq!(run(&scope, &sequential()).expect("all succeed").succeeded(), 3);
    fill(&scope);
    drop(scope);
    for commit in [Commit::Message, Commit::Pipeline] {
        let context = StepContext::new("t");
        let drain = fan_in(&context, [filled([1])], |_: u32, step| {
            fill(step.scope());
            async { Ok::<_, BoxError>(()) }
        });
        let error = block_on(drain.commit(commit)).expect_err("a destructor panicked");
        assert_eq!(error.code(), ErrorCode::Panic);
        assert!(context.scope().is_empty());
    }
    assert_eq!(Arc::strong_count(&alive), 1, "nothing leaked");
}

// Rule 4.13
#[test]
fn a_million_actions_roll_back_in_order_on_a_small_stack() {
    let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn(|| {
        let scope = CompensationScope::new();
        let next = Arc::new(AtomicUsize::new(1_000_000));
        for number in 0..1_000_000 {
            scope.register_compensation_with(Arc::clone(&next), move |next| async move {
                let expected = next.fetch_sub(1, Ordering::Relaxed) - 1;
                if expected == number { Ok(()) } else { Err("out of order") }
            });
        }
        run(&scope, &sequential()).map(|report| report.succeeded())
    });
    let succeeded = thread.expect("the thread starts").join().expect("the thread ends");
    assert_eq!(succeeded.expect("all in order"), 1_000_000);
}
