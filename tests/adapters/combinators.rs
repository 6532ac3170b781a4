//! All operations, any of them, one again, one tier after another; and what each of them undoes.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Ledger, poll_times, roll_back, yields};
use futures::FutureExt;
use futures::future::BoxFuture;
use watershed::combinators::{Fallback, retry, when_all, when_any};
use watershed::{
    BoxError, CancellationSource, CompensationPolicy, Error, ErrorCode, ManualClock, RetryPolicy,
    StepContext,
};

const SECOND: Duration = Duration::from_secs(1);

type Operation<'a> =
    Box<dyn FnOnce(StepContext) -> BoxFuture<'a, Result<u32, BoxError>> + Send + 'a>;

fn block_on<F: Future>(future: F) -> F::Output {
    futures::executor::block_on(future)
}

fn context(clock: &ManualClock) -> StepContext {
    StepContext::new("t").with_clock(Arc::new(clock.clone()))
}

/// Does an effect, waits, does another one, and returns the number or fails.
fn operation(ledger: &Ledger, number: u32, waits: usize, fails: bool) -> Operation<'static> {
    let ledger = ledger.clone();
    Box::new(move |step| {
        async move {
            ledger.apply(&step, number);
            yields(waits).await;
            ledger.apply(&step, 10 * number);
            if fails { Err(format!("{number} fails").into()) } else { Ok(number) }
        }
        .boxed()
    })
}

/// Does an effect, and never ends by itself; one that `heeds` its token ends with an error.
fn endless(ledger: &Ledger, number: u32, heeds: bool) -> Operation<'static> {
    let ledger = ledger.clone();
    Box::new(move |step| {
        async move {
            ledger.apply(&step, number);
            if heeds {
                step.cancellation().cancelled().await;
                ledger.apply(&step, 10 * number);
                return Err("told to stop".into());
            }
            pending().await
        }
        .boxed()
    })
}

fn panicking() -> Operation<'static> {
    Box::new(|_| panic!("in the call"))
}

fn messages(errors: &[Error]) -> Vec<String> {
    let text = |error: &Error| {
        std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
    };
    errors.iter().map(text).collect()
}

// P17
#[test]
fn all_values_come_in_the_order_of_the_operations_and_their_compensations_are_staged() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let operations = (1..=5).map(|number| operation(&ledger, number, 6 - number as usize, false));
    let values = block_on(when_all(&context, operations).into_future()).expect("all succeed");
    assert_eq!(values, [1, 2, 3, 4, 5]);
    assert_eq!(roll_back(context.scope()), 10);
    ledger.assert_undone_in_reverse();
}

// P18, P19
#[test]
fn all_of_nothing_succeeds_and_a_cancelled_token_runs_nothing() {
    let none: [Operation<'_>; 0] = [];
    assert_eq!(
        block_on(when_all(&StepContext::new("t"), none).into_future()).expect("nothing"),
        []
    );
    let stop = CancellationSource::new();
    stop.cancel();
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    for by_context in [true, false] {
        let all = if by_context {
            when_all(
                &context.clone().with_cancellation(stop.token()),
                [operation(&ledger, 1, 0, false)],
            )
        } else {
            when_all(&context, [operation(&ledger, 1, 0, false)]).cancellation(stop.token())
        };
        assert_eq!(block_on(all.into_future()).expect_err("cancelled").code(), ErrorCode::Canceled);
    }
    assert_eq!(ledger.done(), []);
}

// P20, P22, P23, PARITY 3.5
#[test]
fn when_one_fails_all_are_undone_in_reverse_the_failing_one_included() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let operations = [
        operation(&ledger, 1, 0, false),
        endless(&ledger, 2, true),
        operation(&ledger, 3, 2, true),
        operation(&ledger, 4, 2, true),
        endless(&ledger, 5, true),
    ];
    let error = block_on(when_all(&context, operations).into_future()).expect_err("two fail");
    assert_eq!(messages(std::slice::from_ref(&error)), ["3 fails"], "the first is the cause");
    assert_eq!(messages(error.related()), ["told to stop", "4 fails", "told to stop"]);
    assert_eq!((error.metadata("completed"), error.metadata("failed")), (Some("1"), Some("4")));
    assert_eq!(ledger.done().len(), 10);
    ledger.assert_undone_in_reverse();
    assert!(context.scope().is_empty());
}

// P21
#[test]
fn a_cancellation_from_outside_undoes_what_has_succeeded() {
    let stop = CancellationSource::new();
    let (context, ledger) =
        (StepContext::new("t").with_cancellation(stop.token()), Ledger::default());
    let operations = [operation(&ledger, 1, 0, false), endless(&ledger, 2, true)];
    let mut all = Box::pin(when_all(&context, operations).into_future());
    assert!(poll_times(&mut all, 2).is_none());
    stop.cancel();
    let error = block_on(all).expect_err("cancelled");
    assert_eq!((error.code(), error.metadata("completed")), (ErrorCode::Canceled, Some("1")));
    assert_eq!(messages(error.related()), ["told to stop"]);
    ledger.assert_undone_in_reverse();
}

// Rules 3.3, 3.6, 3.7
#[test]
fn a_timeout_waits_for_the_grace_and_a_panic_is_an_error() {
    let clock = ManualClock::new();
    let (context, ledger) = (context(&clock), Ledger::default());
    let all = when_all(&context, [endless(&ledger, 1, false), endless(&ledger, 2, true)]);
    let mut all = Box::pin(all.timeout(SECOND).grace(SECOND).into_future());
    assert!(poll_times(&mut all, 2).is_none());
    clock.advance(SECOND);
    assert!(poll_times(&mut all, 3).is_none(), "there is grace");
    clock.advance(SECOND);
    let error = poll_times(&mut all, 2).expect("it is over").expect_err("it timed out");
    assert_eq!((error.code(), error.metadata("dropped_handlers")), (ErrorCode::Timeout, Some("1")));
    ledger.assert_undone_in_reverse();
    let error = block_on(when_all(&context, [panicking()]).into_future()).expect_err("a panic");
    assert_eq!(error.code(), ErrorCode::Panic);
}

// Rule 2.2
#[test]
fn no_more_operations_run_at_once_than_the_limit_and_none_starts_after_a_failure() {
    let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0)));
    let operations = (0..20).map(|number| {
        let running = Arc::clone(&running);
        move |_: StepContext| async move {
            running.2.fetch_add(1, Ordering::Relaxed);
            let now = running.0.fetch_add(1, Ordering::Relaxed) + 1;
            running.1.fetch_max(now, Ordering::Relaxed);
            yields(number % 3).await;
            running.0.fetch_sub(1, Ordering::Relaxed);
            if number == 9 { Err("no") } else { Ok(()) }
        }
    });
    let context = StepContext::new("t");
    block_on(when_all(&context, operations).concurrency(3).into_future()).expect_err("one fails");
    assert_eq!(running.1.load(Ordering::Relaxed), 3);
    assert!(running.2.load(Ordering::Relaxed) < 14);
}

// P24, P25, P26
#[test]
fn the_first_success_wins_and_the_others_are_undone_whether_they_succeed_or_fail() {
    let stop = CancellationSource::new();
    let (context, ledger) =
        (StepContext::new("t").with_cancellation(stop.token()), Ledger::default());
    let stops = stop.clone();
    let late: Operation<'_> = {
        let ledger = ledger.clone();
        Box::new(move |step: StepContext| {
            async move {
                ledger.apply(&step, 4);
                step.cancellation().cancelled().await;
                stops.cancel();
                Ok(4)
            }
            .boxed()
        })
    };
    let operations = [
        operation(&ledger, 1, 0, true),
        operation(&ledger, 2, 3, false),
        endless(&ledger, 3, true),
        late,
    ];
    let raced = block_on(when_any(&context, operations).into_future()).expect("the second wins");
    assert_eq!((*raced.value(), raced.index()), (2, 1));
    assert_eq!(raced.rollback().expect("all are undone").succeeded(), 5);
    let undone = ledger.undone();
    assert!(undone.iter().all(|effect| ![2, 20].contains(effect)), "{undone:?}");
    assert_eq!(roll_back(context.scope()), 2);
    assert_eq!(ledger.undone().len(), ledger.done().len());
}

// P27, P28
#[test]
fn any_of_nothing_is_not_valid_and_a_cancelled_token_does_not_hang() {
    let none: [Operation<'_>; 0] = [];
    let error = block_on(when_any(&StepContext::new("t"), none).into_future()).expect_err("nobody");
    assert_eq!(error.code(), ErrorCode::Validation);
    let stop = CancellationSource::new();
    stop.cancel();
    let context = StepContext::new("t").with_cancellation(stop.token());
    let race = when_any(&context, [endless(&Ledger::default(), 1, false)]);
    let error = race.into_future().now_or_never().expect("at once").expect_err("cancelled");
    assert_eq!(error.code(), ErrorCode::Canceled);
}

// P29, P30
#[test]
fn without_a_winner_all_errors_are_there_and_all_cancelled_is_cancelled() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let operations = [operation(&ledger, 1, 3, true), panicking(), operation(&ledger, 3, 0, true)];
    let error = block_on(when_any(&context, operations).into_future()).expect_err("all fail");
    assert_eq!(error.code(), ErrorCode::Aggregate);
    let expected = ["1 fails", "the operation panicked: in the call", "3 fails"];
    assert_eq!(messages(error.related()), expected);
    ledger.assert_undone_in_reverse();

    let cancelled =
        |_: StepContext| async { Err::<(), _>(Error::new(ErrorCode::Canceled, "stop")) };
    let error =
        block_on(when_any(&context, [cancelled, cancelled]).into_future()).expect_err("nobody");
    assert_eq!((error.code(), error.related().len()), (ErrorCode::Canceled, 2));
}

// P31
#[test]
fn a_loser_that_cannot_be_undone_is_reported_and_stays_staged() {
    let context = StepContext::new("t");
    let stuck: Operation<'_> = Box::new(|step: StepContext| {
        step.register_compensation(|| async { Err("no connection") });
        async {
            yields(2).await;
            Ok(1)
        }
        .boxed()
    });
    let quick: Operation<'_> = Box::new(|_| async { Ok(2) }.boxed());
    let raced =
        block_on(when_any(&context, [stuck, quick]).into_future()).expect("the second wins");
    assert_eq!(
        (*raced.value(), raced.rollback().expect_err("stuck").code()),
        (2, ErrorCode::Compensation)
    );
    assert_eq!(context.scope().clear(), 1);
}

fn attempts(count: u32, wait: Duration) -> RetryPolicy {
    RetryPolicy::exponential(count, wait)
}

// P3, PARITY 3.6
#[test]
fn an_operation_is_tried_until_it_succeeds_and_failed_attempts_are_undone_before_the_next() {
    let clock = ManualClock::new();
    let (context, ledger) = (context(&clock), Ledger::default());
    let mut count = 0;
    let policy = attempts(5, SECOND);
    let retried = retry(&context, policy.clone(), |step| {
        count += 1;
        assert_eq!(ledger.undone().len(), 2 * (count as usize - 1), "undone before");
        operation(&ledger, count, 1, count < 3)(step)
    })
    .into_future();
    let mut retried = Box::pin(retried);
    for wait in [SECOND, 2 * SECOND] {
        assert!(poll_times(&mut retried, 5).is_none());
        clock.advance(wait.checked_sub(Duration::from_nanos(1)).unwrap());
        assert!(poll_times(&mut retried, 5).is_none(), "not yet");
        clock.advance(Duration::from_nanos(1));
    }
    assert_eq!(poll_times(&mut retried, 5).expect("it ends").expect("the third succeeds"), 3);
    assert_eq!((ledger.undone(), roll_back(context.scope())), (vec![10, 1, 20, 2], 2));
}

// P40
#[test]
fn the_last_error_says_how_often_and_how_long_and_has_the_earlier_ones() {
    let clock = ManualClock::new();
    let (context, ledger) = (context(&clock), Ledger::default());
    let mut count = 0;
    let policy = attempts(3, SECOND);
    let mut retried = Box::pin(
        retry(&context, policy.clone(), |step| {
            count += 1;
            operation(&ledger, count, 0, true)(step)
        })
        .into_future(),
    );
    while poll_times(&mut retried, 1).is_none_or(|result| {
        let error = result.expect_err("all fail");
        assert_eq!(messages(std::slice::from_ref(&error)), ["3 fails"]);
        assert_eq!(messages(error.related()), ["1 fails", "2 fails"]);
        let (attempts, waits) = (error.metadata("attempts"), error.metadata("waits"));
        assert_eq!((attempts, waits), (Some("3"), Some("1s, 2s")));
        false
    }) {
        clock.advance_to_next();
    }
    assert_eq!(ledger.undone(), [10, 1, 20, 2, 30, 3]);
    assert!(context.scope().is_empty());
}

// PARITY 3.6
#[test]
fn a_rollback_that_fails_or_an_error_not_worth_it_ends_the_retrying() {
    let context = StepContext::new("t");
    let policy = attempts(9, Duration::ZERO);
    let mut count = 0;
    let stuck = retry(&context, policy.clone(), |step| {
        count += 1;
        step.register_compensation(|| async { Err("no connection") });
        async { Err::<(), _>("no") }
    })
    .into_future();
    let error = block_on(stuck).expect_err("it fails");
    assert_eq!(error.related().last().map(Error::code), Some(ErrorCode::Compensation));
    assert_eq!((count, context.scope().clear()), (1, 1));

    let policy = RetryPolicy::fixed(u32::MAX, Duration::ZERO);
    let policy = policy.only_if(|error| error.code() != ErrorCode::Validation);
    let mut count = 0;
    let invalid = retry(&context, policy.clone(), |_| {
        count += 1;
        let error =
            if count < 4 { Error::new(ErrorCode::Source, "x") } else { Error::validation("y") };
        async { Err::<(), _>(error) }
    })
    .into_future();
    assert_eq!(block_on(invalid).expect_err("not valid").metadata("attempts"), Some("4"));
}

// Rule 3.5
#[test]
fn a_cancellation_before_during_and_between_attempts_ends_the_retrying() {
    for when in ["before", "during", "between"] {
        let (clock, stop) = (ManualClock::new(), CancellationSource::new());
        let (context, ledger) =
            (context(&clock).with_cancellation(stop.token()), Ledger::default());
        let policy = attempts(9, SECOND);
        if when == "before" {
            stop.cancel();
        }
        let mut retried = Box::pin(
            retry(&context, policy.clone(), |step| match when {
                "during" => endless(&ledger, 1, true)(step),
                _ => operation(&ledger, 1, 0, true)(step),
            })
            .into_future(),
        );
        if when != "before" {
            assert!(poll_times(&mut retried, 3).is_none());
            stop.cancel();
        }
        let error = poll_times(&mut retried, 3).expect("it ends").expect_err("cancelled");
        assert_eq!(error.code(), ErrorCode::Canceled, "{when}");
        let done = if when == "before" { 0 } else { 2 };
        assert_eq!((ledger.done().len(), ledger.undone().len()), (done, done), "{when}");
    }
}

#[test]
fn waits_double_up_to_the_cap_and_jitter_is_the_same_for_the_same_seed() {
    let many = u32::MAX;
    let policy = RetryPolicy::exponential(many, SECOND).cap(10 * SECOND);
    let waits = |policy: &RetryPolicy| (1..60).map(|n| policy.wait_after(n)).collect::<Vec<_>>();
    assert!(waits(&policy)[4..].iter().all(|wait| *wait == Some(10 * SECOND)));
    let full = |seed| waits(&policy.clone().full_jitter(seed));
    assert_eq!(full(1), full(1));
    assert_ne!(full(1), full(2));
    let drawn = full(1);
    assert!(drawn.iter().all(|wait| wait.is_some_and(|wait| wait <= 10 * SECOND)));
    let mean = drawn[4..].iter().flatten().sum::<Duration>() / 55;
    assert!((3 * SECOND..7 * SECOND).contains(&mean), "{mean:?}");
    let equal = waits(&policy.clone().equal_jitter(1));
    assert!(equal[4..].iter().all(|wait| (Some(5 * SECOND)..=Some(10 * SECOND)).contains(wait)));
    let panics = RetryPolicy::custom(|_| panic!("no idea"));
    assert_eq!(panics.wait_after(1), None);
    assert_eq!(
        RetryPolicy::fixed(many, Duration::MAX).full_jitter(3).wait_after(1).map(|_| ()),
        Some(())
    );
}

// P56
#[test]
fn the_first_tier_that_succeeds_wins_and_its_peers_are_stopped_and_undone() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let tiers = Fallback::new(&context)
        .tier("cache")
        .strategy("memory", operation(&ledger, 1, 0, true))
        .strategy("disk", operation(&ledger, 2, 1, true))
        .tier("replica")
        .strategy("near", operation(&ledger, 3, 2, false))
        .strategy("far", endless(&ledger, 4, true))
        .tier("origin")
        .strategy("never asked", operation(&ledger, 5, 0, false));
    let reached = block_on(tiers.into_future()).expect("the replica");
    assert_eq!((reached.tier(), reached.strategy(), *reached.value()), ("replica", "near", 3));
    assert_eq!(ledger.undone()[..4].len(), 4, "the cache is undone");
    assert!(!ledger.done().contains(&5));
    assert_eq!(roll_back(context.scope()), 2);
    assert_eq!(ledger.undone().len(), ledger.done().len());
}

// P56
#[test]
fn when_every_tier_fails_each_error_names_its_tier_and_strategy() {
    let (context, ledger) = (StepContext::new("t"), Ledger::default());
    let tiers = Fallback::new(&context)
        .tier("a")
        .strategy("x", operation(&ledger, 1, 0, true))
        .tier("empty")
        .tier("b")
        .strategy("y", operation(&ledger, 2, 1, true))
        .strategy("z", operation(&ledger, 3, 0, true));
    let error = block_on(tiers.into_future()).expect_err("all fail");
    let places: Vec<_> = error
        .related()
        .iter()
        .map(|error| {
            (error.metadata("tier").unwrap_or("-"), error.metadata("strategy").unwrap_or("-"))
        })
        .collect();
    assert_eq!(
        (error.code(), places),
        (ErrorCode::Aggregate, vec![("a", "x"), ("b", "y"), ("b", "z")])
    );
    ledger_is_empty(&context);
    let error =
        block_on(Fallback::<()>::new(&context).tier("none").into_future()).expect_err("nothing");
    assert_eq!(error.code(), ErrorCode::Validation);
}

fn ledger_is_empty(context: &StepContext) {
    assert!(context.scope().is_empty(), "everything was undone");
}

// Rule 4.1
#[test]
fn dropping_any_of_them_after_any_poll_loses_no_compensation() {
    type Job<'a> = BoxFuture<'a, ()>;
    let jobs: [fn(&StepContext, &Ledger) -> Job<'static>; 4] = [
        |context, ledger| {
            let operations = [operation(ledger, 1, 2, false), operation(ledger, 2, 3, true)];
            when_all(context, operations).into_future().map(drop).boxed()
        },
        |context, ledger| {
            let operations = [operation(ledger, 1, 2, true), operation(ledger, 2, 3, false)];
            when_any(context, operations).into_future().map(drop).boxed()
        },
        |context, ledger| {
            let (context, ledger) = (context.clone(), ledger.clone());
            async move {
                let mut count = 0;
                let policy = attempts(3, Duration::ZERO);
                let retried = retry(&context, policy.clone(), |step| {
                    count += 1;
                    operation(&ledger, count, 1, count < 3)(step)
                })
                .into_future();
                drop(retried.await);
            }
            .boxed()
        },
        |context, ledger| {
            let tiers =
                Fallback::new(context).strategy("a", operation(ledger, 1, 1, true)).tier("b");
            tiers.strategy("b", operation(ledger, 2, 2, false)).into_future().map(drop).boxed()
        },
    ];
    for (which, job) in jobs.into_iter().enumerate() {
        for k in 0.. {
            let (context, ledger) = (StepContext::new("t"), Ledger::default());
            let mut running = job(&context, &ledger);
            let ended = poll_times(&mut running, k).is_some();
            drop(running);
            roll_back(context.scope());
            let (mut done, mut undone) = (ledger.done(), ledger.undone());
            done.sort_unstable();
            undone.sort_unstable();
            assert_eq!(done, undone, "job {which}, poll {k}");
            if ended {
                assert!(k > 2, "job {which}");
                break;
            }
        }
    }
}

// Rule 5.2
async fn all_any_retry_and_fallback_work_here() {
    let (context, ledger) = (StepContext::new("suite"), Ledger::default());
    let operations = (1..=3).map(|number| operation(&ledger, number, 1, false));
    assert_eq!(when_all(&context, operations).await.expect("all succeed"), [1, 2, 3]);
    let operations = [endless(&ledger, 4, true), operation(&ledger, 5, 1, false)];
    let raced = when_any(&context, operations).compensation(CompensationPolicy::parallel());
    assert_eq!(raced.await.expect("the second").into_value(), 5);
    let policy = attempts(3, SECOND / 1_000);
    let mut count = 5;
    let retried = retry(&context, policy.clone(), |step| {
        count += 1;
        operation(&ledger, count, 1, count < 7)(step)
    })
    .into_future();
    assert_eq!(retried.await.expect("the second attempt"), 7);
    let tiers = Fallback::new(&context).strategy("a", operation(&ledger, 8, 0, true));
    let tiers = tiers.tier("b").strategy("b", operation(&ledger, 9, 1, false));
    assert_eq!(tiers.await.expect("the second tier").into_value(), 9);
    assert_eq!(context.scope().clear(), 12);
}

on_every_executor! { all_any_retry_and_fallback_work_here }
