//! What is undone, and by whom.

use super::*;
use crate::support::neighbours::{Bomb, Breaks};

// Rules 4.4, 5.4: STYLE 5, nothing swallowed
#[test]
fn what_cannot_be_undone_is_attached_and_stays_staged() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let ledger = Ledger::default();
    let tried = Arc::new(AtomicU32::new(0));
    let operation = with_timeout(&context, SECOND, |step| {
        let (ledger, tried) = (ledger.clone(), Arc::clone(&tried));
        async move {
            ledger.apply(&step, 1);
            step.register_compensation(labelled("refund", move || {
                tried.fetch_add(1, Ordering::Relaxed);
                async { Err("the bank is closed") }
            }));
            ledger.apply(&step, 2);
            never().await
        }
    });
    let policy = CompensationPolicy::sequential_reverse().retry(RetryPolicy::fixed(3, SECOND));
    let mut operation = Box::pin(operation.compensation(policy).into_future());
    assert!(poll_times(&mut operation, 1).is_none());
    clock.advance(SECOND);
    for attempt in 1..=2 {
        assert!(poll_times(&mut operation, 3).is_none());
        assert_eq!(tried.load(Ordering::Relaxed), attempt);
        assert_eq!(clock.sleepers(), 1, "it waits by the context's clock");
        clock.advance(SECOND);
    }
    let error = poll_times(&mut operation, 3).expect("it is over").expect_err("it timed out");
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert_eq!(tried.load(Ordering::Relaxed), 3);
    assert_eq!(ledger.undone(), [2, 1], "one that fails keeps no other from running");
    assert_eq!(context.scope().len(), 1);
    context.scope().clear();
}

// Rule 4.4
#[test]
fn the_error_of_the_rollback_is_related_to_the_timeout() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let operation = with_timeout(&context, SECOND, |step| async move {
        step.register_compensation(labelled("refund", || async { Err("the bank is closed") }));
        never().await
    });
    let mut operation = Box::pin(operation.into_future());
    assert!(poll_times(&mut operation, 1).is_none());
    clock.advance(SECOND);
    let error = poll_times(&mut operation, 1).expect("it is over").expect_err("it timed out");
    assert_eq!(error.code(), ErrorCode::Timeout);
    let [rollback] = error.related() else { panic!("one error, not {:?}", error.related()) };
    assert_eq!(rollback.code(), ErrorCode::Compensation);
    assert_eq!(rollback.related()[0].metadata("label"), Some("refund"));
    assert_eq!(context.scope().clear(), 1);
}

// Rule 4.6
#[test]
fn a_policy_of_none_leaves_everything_staged() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let operation = with_timeout(&context, SECOND, |step| async move {
        step.register_compensation(|| async {});
        never().await
    });
    let operation = operation.compensation(CompensationPolicy::none());
    let mut operation = Box::pin(operation.into_future());
    assert!(poll_times(&mut operation, 1).is_none());
    clock.advance(SECOND);
    assert!(poll_times(&mut operation, 1).expect("it is over").is_err());
    assert_eq!(roll_back(context.scope()), 1);
}

// Rules 3.5, 4.1
#[test]
fn whoever_kept_the_step_hears_of_the_timeout_and_stages_on_the_context() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let mut kept = None;
    let operation = with_timeout(&context, SECOND, |step| {
        kept = Some(step.clone());
        never()
    });
    let mut operation = Box::pin(operation.into_future());
    assert!(poll_times(&mut operation, 1).is_none());
    clock.advance(SECOND);
    assert!(poll_times(&mut operation, 1).expect("it is over").is_err());
    drop(operation);
    let kept = kept.expect("the operation was called");
    assert!(kept.cancellation().is_cancelled());
    kept.register_compensation(|| async {});
    assert_eq!(roll_back(context.scope()), 1);
}

// Rule 4.7
#[test]
fn what_is_staged_while_it_rolls_back_runs_as_well() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let ledger = Ledger::default();
    let operation = with_timeout(&context, SECOND, |step| {
        let ledger = ledger.clone();
        async move {
            let late = (ledger.clone(), step.clone(), Arc::new(AtomicU32::new(0)));
            step.register_compensation_with(late, |(ledger, step, runs)| async move {
                if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                    ledger.apply(&step, 2);
                }
            });
            never().await
        }
    });
    let mut operation = Box::pin(operation.into_future());
    assert!(poll_times(&mut operation, 1).is_none());
    clock.advance(SECOND);
    assert!(poll_times(&mut operation, 1).expect("it is over").is_err());
    assert_eq!(ledger.undone(), [2]);
    assert!(context.scope().is_empty());
}

// Rule 3.7
#[test]
fn a_destructor_that_panics_is_attached_to_what_dropped_the_operation() {
    for times_out in [true, false] {
        let (clock, stop) = (ManualClock::new(), CancellationSource::new());
        let context = context(&clock).with_cancellation(stop.token());
        let operation = with_timeout(&context, SECOND, |step| async move {
            step.register_compensation(|| async {});
            let bomb = Bomb;
            let result = never().await;
            drop(bomb);
            result
        });
        let mut operation = Box::pin(operation.into_future());
        assert!(poll_times(&mut operation, 1).is_none());
        if times_out {
            clock.advance(SECOND);
        } else {
            stop.cancel();
        }
        let error = poll_times(&mut operation, 1).expect("it is over").expect_err("it ends");
        let expected = if times_out { ErrorCode::Timeout } else { ErrorCode::Canceled };
        assert_eq!((error.code(), error.related()[0].code()), (expected, ErrorCode::Panic));
        assert_eq!(roll_back(context.scope()), usize::from(!times_out));
    }
}

// Rule 3.7
#[test]
fn a_clock_that_panics_is_an_error_and_loses_nothing() {
    #[derive(Debug)]
    struct Broken(AtomicU32);
    impl Clock for Broken {
        fn now(&self) -> Tick {
            assert!(self.0.fetch_sub(1, Ordering::Relaxed) > 0, "the clock is broken");
            Tick::ZERO
        }
        fn sleep_until(&self, _: Tick) -> Sleep {
            Box::pin(pending())
        }
    }
    for readings in 0..4 {
        let clock = Arc::new(Broken(AtomicU32::new(readings)));
        let context = StepContext::new("t").with_clock(clock);
        let operation = with_timeout(&context, SECOND, |step| async move {
            step.register_compensation(|| async {});
            never().await
        });
        let mut operation = Box::pin(operation.into_future());
        let error = poll_times(&mut operation, 5).expect("it is over").expect_err("it ends");
        assert_eq!(error.code(), ErrorCode::Panic);
        assert_eq!(roll_back(context.scope()), usize::from(readings > 1));
    }
}

// Rules 3.7, 4.5
#[test]
fn a_clock_that_panics_while_it_rolls_back_hides_no_timeout() {
    let clock = Arc::new(Breaks::default());
    let context = StepContext::new("t").with_clock(clock.clone());
    let operation = with_timeout(&context, SECOND, |step| {
        let clock = clock.clone();
        async move {
            step.register_compensation(|| async {});
            step.register_compensation(move || {
                clock.1.store(true, Ordering::Relaxed);
                async { Err("closed") }
            });
            never().await
        }
    });
    let twice = RetryPolicy::fixed(2, SECOND);
    let operation = operation.compensation(CompensationPolicy::default().retry(twice));
    let mut operation = Box::pin(operation.into_future());
    assert!(poll_times(&mut operation, 1).is_none());
    clock.0.advance(SECOND);
    let error = poll_times(&mut operation, 1).expect("it is over").expect_err("it timed out");
    assert_eq!(error.code(), ErrorCode::Timeout);
    let rollback = &error.related()[0];
    assert_eq!(rollback.code(), ErrorCode::Compensation);
    assert_eq!(rollback.related()[0].related()[0].code(), ErrorCode::Panic);
    assert_eq!(context.scope().clear(), 1, "the one that failed; the other has run");
}

// Rules 4.1, 4.5
#[test]
fn it_may_be_dropped_after_any_poll_also_while_it_rolls_back() {
    let mut drops = 0;
    for end in ["timeout", "success", "error"] {
        for k in 0.. {
            let clock = ManualClock::new();
            let context = context(&clock);
            let ledger = Ledger::default();
            let operation = with_timeout(&context, SECOND, |step| {
                let (ledger, clock) = (ledger.clone(), clock.clone());
                async move {
                    for effect in 1..=4 {
                        ledger.apply_slowly(&step, effect);
                        yields(1).await;
                    }
                    match end {
                        "timeout" => {
                            clock.advance(SECOND);
                            never().await
                        }
                        "success" => Ok(()),
                        _ => Err("no".into()),
                    }
                }
            });
            let mut operation = Box::pin(operation.into_future());
            let ended = poll_times(&mut operation, k);
            drop(operation);
            roll_back(context.scope());
            ledger.assert_undone_in_reverse();
            assert_eq!(clock.sleepers(), 0, "poll {k}");
            drops += 1;
            if let Some(result) = ended {
                assert_eq!(result.is_ok(), end == "success");
                break;
            }
        }
    }
    assert!(drops > 20, "{drops} drops");
}

#[test]
fn a_drop_tells_whoever_kept_the_step() {
    let context = context(&ManualClock::new());
    let mut kept = None;
    let operation = with_timeout(&context, SECOND, |step| {
        kept = Some(step.clone());
        never()
    });
    let mut operation = Box::pin(operation.into_future());
    assert!(poll_times(&mut operation, 1).is_none());
    drop(operation);
    assert!(kept.expect("the operation was called").cancellation().is_cancelled());
}

#[test]
fn it_says_that_it_has_ended() {
    let context = context(&ManualClock::new());
    let operation = with_timeout(&context, SECOND, |_| async { Ok::<_, BoxError>(()) });
    let mut operation = Box::pin(operation.into_future());
    assert!(poll_times(&mut operation, 1).expect("it is over").is_ok());
    let again = poll_times(&mut operation, 1).expect("it says so").expect_err("it is over");
    assert_eq!(again.code(), ErrorCode::Unspecified);
}

// Rule 5.3
#[test]
fn it_can_be_sent_when_its_parts_can() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let context = context(&ManualClock::new());
    let operation = with_timeout(&context, SECOND, |_| async { Ok::<_, BoxError>(()) });
    block_on(sent(operation.into_future())).expect("it is done");
    // And it need not be: what it borrows stays on this thread.
    let local = std::rc::Rc::new(7);
    let operation = with_timeout(&context, SECOND, |_| async { Ok::<_, BoxError>(*local) });
    assert_eq!(block_on(operation).expect("it is done"), 7);
}

// P4, rule 5.2
async fn a_timeout_is_rolled_back_and_reported() {
    let context = StepContext::new("suite");
    let ledger = Ledger::default();
    let inner = ledger.clone();
    let error = with_timeout(&context, Duration::from_millis(2), |step| async move {
        inner.apply_slowly(&step, 1);
        inner.apply_slowly(&step, 2);
        never().await
    })
    .await
    .expect_err("it timed out");
    assert_eq!(error.code(), ErrorCode::Timeout);
    ledger.assert_undone_in_reverse();
}

// Rule 5.2
async fn success_within_the_time_is_kept() {
    let context = StepContext::new("suite");
    let number = with_timeout(&context, Duration::from_secs(60), |step| async move {
        step.register_compensation(|| async {});
        yields(3).await;
        "17".parse::<u32>()
    })
    .await
    .expect("it is done");
    assert_eq!((number, context.scope().clear()), (17, 1));
}

on_every_executor! {
    a_timeout_is_rolled_back_and_reported,
    success_within_the_time_is_kept,
}
