//! When its time is over.

use super::*;

// P4
#[test]
fn the_operation_is_undone_in_reverse_before_the_timeout_is_reported() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let ledger = Ledger::default();
    ledger.apply(&context, 1);
    let operation = with_timeout(&context, 10 * SECOND, |step| {
        let ledger = ledger.clone();
        async move {
            ledger.apply_slowly(&step, 2);
            ledger.apply_slowly(&step, 3);
            never().await
        }
    });
    let mut operation = Box::pin(operation.into_future());
    assert!(poll_times(&mut operation, 3).is_none());
    clock.advance(9 * SECOND);
    assert!(poll_times(&mut operation, 3).is_none());
    assert_eq!(ledger.undone(), []);
    clock.advance(SECOND);
    assert!(poll_times(&mut operation, 1).is_none(), "the rollback has begun");
    let error = poll_times(&mut operation, 9).expect("it is over").expect_err("it timed out");
    assert_eq!((error.code(), error.metadata("duration")), (ErrorCode::Timeout, Some("10s")));
    assert_eq!(error.to_string(), "the operation was not done within 10s");
    assert!(error.related().is_empty());
    assert_eq!(ledger.undone(), [3, 2], "its own, and nobody else's");
    assert_eq!((context.scope().len(), clock.sleepers()), (1, 0));
    roll_back(context.scope());
    ledger.assert_undone_in_reverse();
}

// Rule 3.3
#[test]
fn a_timeout_of_zero_does_not_call_the_operation() {
    let context = context(&ManualClock::new());
    let mut called = false;
    let operation = with_timeout(&context, Duration::ZERO, |_| {
        called = true;
        never()
    });
    let error = block_on(operation).expect_err("it timed out");
    assert_eq!((error.code(), error.metadata("duration")), (ErrorCode::Timeout, Some("0ns")));
    assert!(!called);
}

// Rule 3.3
#[test]
fn a_timeout_without_end_never_fires() {
    let clock = ManualClock::new();
    let (gate, opened) = async_channel::bounded::<u32>(1);
    let operation = with_timeout(&context(&clock), Duration::MAX, |_| {
        let opened = opened.clone();
        async move { opened.recv().await }
    });
    let mut operation = Box::pin(operation.into_future());
    assert!(poll_times(&mut operation, 2).is_none());
    clock.set(Tick::MAX);
    assert!(poll_times(&mut operation, 2).is_none());
    gate.try_send(7).expect("there is room");
    assert_eq!(poll_times(&mut operation, 1).expect("it is over").expect("it is done"), 7);
}

// Rules 2.4, 3.3: time counts from the first poll, and an operation that is always ready to go on
// does not hold it up.
#[test]
fn an_operation_that_wakes_itself_for_ever_times_out() {
    let clock = ManualClock::new();
    let polls = Arc::new(AtomicU32::new(0));
    let operation = with_timeout(&context(&clock), SECOND, |_| {
        let (clock, polls) = (clock.clone(), Arc::clone(&polls));
        async move {
            loop {
                yields(1).await;
                polls.fetch_add(1, Ordering::Relaxed);
                clock.advance(Duration::from_millis(10));
            }
            #[allow(unreachable_code, reason = "it names the type")]
            Ok::<(), BoxError>(())
        }
    });
    clock.advance(100 * SECOND);
    assert_eq!(block_on(operation).expect_err("it timed out").code(), ErrorCode::Timeout);
    assert_eq!(polls.load(Ordering::Relaxed), 100);
}

// Rule 3.3
#[test]
fn a_result_that_is_there_counts_however_late_the_poll() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let ledger = Ledger::default();
    let (gate, opened) = async_channel::bounded::<u32>(1);
    let operation = with_timeout(&context, SECOND, |step| {
        let (ledger, opened) = (ledger.clone(), opened.clone());
        async move {
            ledger.apply(&step, 1);
            opened.recv().await
        }
    });
    let mut operation = Box::pin(operation.into_future());
    assert!(poll_times(&mut operation, 1).is_none());
    gate.try_send(7).expect("there is room");
    clock.advance(9 * SECOND);
    assert_eq!(poll_times(&mut operation, 1).expect("it is over").expect("it is done"), 7);
    assert_eq!((ledger.undone(), roll_back(context.scope())), (vec![], 1));
}

// Rules 3.7, 4.1
#[test]
fn success_error_and_panic_leave_the_decision_to_the_caller() {
    for end in ["done", "failed", "panicked"] {
        let context = context(&ManualClock::new());
        let ledger = Ledger::default();
        let operation = with_timeout(&context, SECOND, |step| {
            let ledger = ledger.clone();
            async move {
                ledger.apply(&step, 1);
                yields(1).await;
                ledger.apply(&step, 2);
                match end {
                    "done" => Ok(17),
                    "failed" => "x".parse::<u32>(),
                    _ => panic!("no more"),
                }
            }
        });
        match block_on(operation) {
            Ok(number) => assert_eq!((end, number), ("done", 17)),
            Err(error) if end == "failed" => {
                assert_eq!(error.code(), ErrorCode::Unspecified);
                assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
            }
            Err(error) => {
                assert_eq!((end, error.code()), ("panicked", ErrorCode::Panic));
                assert_eq!(error.to_string(), "the operation panicked: no more");
            }
        }
        assert_eq!(ledger.undone(), []);
        assert_eq!(roll_back(context.scope()), 2, "{end}");
        ledger.assert_undone_in_reverse();
    }
}

// Rules 3.7, 4.1
#[test]
fn an_operation_that_panics_when_it_is_called_keeps_what_it_staged() {
    let context = context(&ManualClock::new());
    let operation = with_timeout(&context, SECOND, |step| {
        step.register_compensation(|| async {});
        assert!(!step.scope().has_actions(), "bad luck");
        never()
    });
    assert_eq!(block_on(operation).expect_err("it panicked").code(), ErrorCode::Panic);
    assert_eq!(roll_back(context.scope()), 1);
}

// Rule 6.1
#[test]
fn an_error_of_this_crate_comes_out_as_it_is() {
    let context = context(&ManualClock::new());
    let operation =
        with_timeout(&context, SECOND, |_| async { Err::<(), _>(Error::validation("too far")) });
    let error = block_on(operation).expect_err("it fails");
    assert_eq!((error.code(), error.to_string().as_str()), (ErrorCode::Validation, "too far"));
}

// Rule 3.5
#[test]
fn an_operation_whose_token_is_cancelled_before_is_not_called() {
    for by_context in [true, false] {
        let (stop, never_stops) = (CancellationSource::new(), CancellationSource::new());
        stop.cancel();
        let (of_context, of_call) =
            if by_context { (&stop, &never_stops) } else { (&never_stops, &stop) };
        let context = context(&ManualClock::new()).with_cancellation(of_context.token());
        let operation = with_timeout(&context, SECOND, |step| {
            step.register_compensation(|| async {});
            never()
        });
        let error = block_on(operation.cancellation(of_call.token())).expect_err("cancelled");
        assert_eq!(error.code(), ErrorCode::Canceled);
        assert!(context.scope().is_empty());
    }
}

// Rule 3.5
#[test]
fn cancellation_drops_the_operation_and_leaves_its_compensations_to_the_caller() {
    for by_context in [true, false] {
        let (of_context, of_call) = (CancellationSource::new(), CancellationSource::new());
        let clock = ManualClock::new();
        let context = context(&clock).with_cancellation(of_context.token());
        let ledger = Ledger::default();
        let operation = with_timeout(&context, SECOND, |step| {
            let ledger = ledger.clone();
            async move {
                ledger.apply(&step, 1);
                never().await
            }
        });
        let mut operation = Box::pin(operation.cancellation(of_call.token()).into_future());
        assert!(poll_times(&mut operation, 2).is_none());
        if by_context {
            of_context.cancel();
        } else {
            of_call.cancel();
        }
        let error = poll_times(&mut operation, 1).expect("it is over").expect_err("cancelled");
        assert_eq!(error.code(), ErrorCode::Canceled);
        assert_eq!((ledger.undone(), clock.sleepers()), (vec![], 0));
        assert_eq!(roll_back(context.scope()), 1);
    }
}

// A rollback that has begun is not stopped by the token.
#[test]
fn cancellation_while_it_rolls_back_changes_nothing() {
    let (clock, stop) = (ManualClock::new(), CancellationSource::new());
    let context = context(&clock).with_cancellation(stop.token());
    let ledger = Ledger::default();
    let operation = with_timeout(&context, SECOND, |step| {
        let ledger = ledger.clone();
        async move {
            ledger.apply_slowly(&step, 1);
            ledger.apply_slowly(&step, 2);
            never().await
        }
    });
    let mut operation = Box::pin(operation.into_future());
    assert!(poll_times(&mut operation, 1).is_none());
    clock.advance(SECOND);
    assert!(poll_times(&mut operation, 2).is_none());
    stop.cancel();
    let error = poll_times(&mut operation, 9).expect("it is over").expect_err("it timed out");
    assert_eq!(error.code(), ErrorCode::Timeout);
    ledger.assert_undone_in_reverse();
    assert!(context.scope().is_empty());
}
