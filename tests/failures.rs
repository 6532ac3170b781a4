//! Rules 3.2 and 3.8: how failures end a drain, and how it goes on without ending.

mod support;

use std::future::Ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use support::{Bad, Ledger, block_on, filled, poll_times, roll_back, yields};
use watershed::{
    BoxError, CancellationSource, Commit, CompensationPolicy, Error, ErrorCode, Letter,
    ManualClock, OnFailure, RetryPolicy, Source, StepContext, fan_in, labelled,
};

// Rules 3.1, 6.1
#[test]
fn an_error_names_source_and_message_and_gives_the_users_error_back() {
    let context = StepContext::new("t");
    let sources = [filled([1, 2]).named("web"), filled([3, 4, 5]).named("phone")];
    let error = block_on(fan_in(&context, sources, |message, _| async move {
        if message == 4 { Err(Bad(message)) } else { Ok(()) }
    }))
    .expect_err("the drain fails")
    .into_error();
    assert_eq!(error.downcast_ref::<Bad>(), Some(&Bad(4)));
    assert_eq!((error.source_name(), error.message_number()), (Some("phone"), Some(2)));
    assert_eq!(error.metadata("handled"), Some("3"));
}

// Rule 3.2
#[test]
fn further_errors_are_attached_in_the_order_of_sources() {
    let context = StepContext::new("t");
    let sources = [filled([1]), filled([2]), filled([3])];
    let error = block_on(
        fan_in(&context, sources, |message, step| async move {
            if message == 2 {
                yields(1).await;
            } else {
                step.cancellation().cancelled().await;
            }
            Err::<(), _>(Bad(message))
        })
        .concurrency(3),
    )
    .expect_err("the drain fails")
    .into_error();
    assert_eq!(error.downcast_ref::<Bad>(), Some(&Bad(2)));
    let related: Vec<_> = error.related().iter().filter_map(|e| e.downcast_ref::<Bad>()).collect();
    assert_eq!(related, [&Bad(1), &Bad(3)]);
}

// Rule 3.2
#[test]
fn a_source_fault_is_noticed_although_another_source_is_always_ready() {
    let context = StepContext::new("t");
    let faulty = stream::iter([Ok(1), Err(Bad(7))]).boxed();
    let busy = stream::repeat_with(|| Ok(1)).boxed();
    let sources = [busy.faults().named("busy"), faulty.faults().named("faulty")];
    let mut count = 0;
    let error = block_on(fan_in(&context, sources, |_, _| {
        count += 1;
        async { Ok::<_, BoxError>(()) }
    }))
    .expect_err("the drain fails")
    .into_error();
    assert_eq!(error.code(), ErrorCode::Source);
    assert_eq!(error.source_name(), Some("faulty"));
    assert_eq!(error.downcast_ref::<Bad>(), Some(&Bad(7)));
    assert!(count <= 64 + 1, "one turn of the busy source at most, not {count} messages");
}

// Rule 3.8
#[test]
fn a_failed_message_is_rolled_back_alone_and_the_drain_goes_on() {
    for commit in [Commit::Pipeline, Commit::Message] {
        let context = StepContext::new("t");
        let ledger = Ledger::default();
        let mut letters = Vec::new();
        let report = block_on(
            fan_in(&context, [filled([1, 2, 3]), filled([4, 5, 6])], |message, step| {
                let ledger = ledger.clone();
                async move {
                    ledger.apply(&step, message * 10);
                    ledger.apply(&step, message * 10 + 1);
                    if message % 3 == 2 {
                        assert_ne!(message, 5, "five panics");
                        return Err(Bad(message));
                    }
                    Ok(())
                }
            })
            .commit(commit)
            .on_failure(OnFailure::Continue)
            .dead_letters(|letter: Letter<u32>| {
                letters.push((letter.error().code(), letter.rollback().expect("ok").succeeded()));
                async {}
            }),
        )
        .expect("the drain succeeds");
        assert_eq!((report.handled(), report.failed()), (4, 2));
        assert_eq!(letters, [(ErrorCode::Handler, 2), (ErrorCode::Panic, 2)]);
        assert_eq!(ledger.undone(), [21, 20, 51, 50]);
        assert!(context.scope().is_empty(), "{commit:?}");
    }
}

// Rule 3.2
#[test]
fn errors_and_panics_met_after_a_fault_are_attached_and_late_successes_count() {
    let context = StepContext::new("t");
    let ledger = Ledger::default();
    let sources = [
        filled([Ok(1)]).faults().named("fails"),
        filled([Ok(2), Err(Bad(7)), Ok(9)]).faults().named("faulty"),
        filled([Ok(3)]).faults().named("panics"),
        filled([Ok(4)]).faults().named("succeeds"),
    ];
    let error = block_on(
        fan_in(&context, sources, |message: u32, step| {
            let ledger = ledger.clone();
            async move {
                ledger.apply(&step, message);
                if message == 2 {
                    yields(1).await; // until the others have begun
                    return Ok(());
                }
                step.cancellation().cancelled().await;
                assert_ne!(message, 3, "three panics");
                if message == 1 { Err(Bad(message)) } else { Ok(()) }
            }
        })
        .concurrency(4),
    )
    .expect_err("the drain fails")
    .into_error();
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Source, Some("faulty")));
    assert_eq!(error.metadata("handled"), Some("2"));
    let related: Vec<_> = error.related().iter().map(|e| (e.code(), e.source_name())).collect();
    let expected = [(ErrorCode::Handler, Some("fails")), (ErrorCode::Panic, Some("panics"))];
    assert_eq!(related, expected);
    assert_eq!(roll_back(context.scope()), 4);
    ledger.assert_undone_in_reverse();
}

// Rules 3.2, 6.1
#[test]
fn an_error_of_the_library_returned_by_a_handler_keeps_its_code_and_metadata() {
    let context = StepContext::new("t");
    let error = block_on(fan_in(&context, [filled([1]).named("web")], |_, _| async {
        Err::<(), _>(Error::validation("no such order").with_metadata("order", 17))
    }))
    .expect_err("the drain fails")
    .into_error();
    assert_eq!((error.code(), error.metadata("order")), (ErrorCode::Validation, Some("17")));
    assert_eq!((error.source_name(), error.message_number()), (Some("web"), Some(1)));
}

// Rules 3.8, 4.4
#[test]
fn a_compensation_that_fails_when_its_message_is_rolled_back_stays_staged() {
    for commit in [Commit::Pipeline, Commit::Message, Commit::Never] {
        let context = StepContext::new("t");
        let ledger = Ledger::default();
        let mut letters = Vec::new();
        let report = block_on(
            fan_in(&context, [filled([1])], |message, step| {
                let ledger = ledger.clone();
                async move {
                    ledger.apply(&step, message);
                    let stuck = || async { Err::<(), _>("still down") };
                    step.register_compensation(labelled("row", stuck));
                    Err::<(), _>(Bad(message))
                }
            })
            .commit(commit)
            .on_failure(OnFailure::Continue)
            .dead_letters(|letter: Letter<u32>| {
                let rollback = letter.rollback().expect_err("one compensation fails").error();
                letters.push((letter.error().downcast_ref() == Some(&Bad(1)), rollback.code()));
                async {}
            }),
        )
        .expect("the drain succeeds");
        assert_eq!(report.failed(), 1);
        assert_eq!(letters, [(true, ErrorCode::Compensation)]);
        assert_eq!(ledger.undone(), [1]);
        assert_eq!(context.scope().clear(), 1, "{commit:?}");
    }
}

// Rules 3.8, 5.4
#[test]
fn a_message_is_rolled_back_by_its_policy_on_the_contexts_clock() {
    let clock = ManualClock::new();
    let context = StepContext::new("t").with_clock(Arc::new(clock.clone()));
    let attempts = Arc::new(AtomicUsize::new(0));
    let retry = RetryPolicy::exponential(3, Duration::from_secs(60));
    let drain = fan_in(&context, [filled([1, 2])], |message, step| {
        let attempts = Arc::clone(&attempts);
        async move {
            step.register_compensation_with(attempts, |attempts| async move {
                match attempts.fetch_add(1, Ordering::Relaxed) {
                    0 => Err("not yet"),
                    _ => Ok(()),
                }
            });
            if message == 1 { Err(Bad(message)) } else { Ok(()) }
        }
    });
    let drain = drain.on_failure(OnFailure::Continue);
    let policy = CompensationPolicy::sequential_reverse().retry(retry);
    let mut drain = drain.message_compensation(policy).into_future();
    assert!(poll_times(&mut drain, 5).is_none(), "the second attempt is a minute away");
    assert_eq!(attempts.load(Ordering::Relaxed), 1);
    clock.advance(Duration::from_secs(60));
    let report = poll_times(&mut drain, 5).expect("it is over").expect("the drain succeeds");
    assert_eq!((report.handled(), report.failed()), (1, 1));
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
}

// Rules 2.5, 3.8
#[test]
fn other_sources_go_on_while_a_message_is_rolled_back() {
    let (gate, opened) = async_channel::bounded::<()>(1);
    let context = StepContext::new("t");
    let sources = [filled([0, 1]).named("fails"), filled([2, 3, 4]).named("goes on")];
    let report = block_on(
        fan_in(&context, sources, |message: u32, step| {
            if message == 0 {
                step.register_compensation_with(opened.clone(), |opened| async move {
                    assert!(opened.recv().await.is_err(), "the gate is closed");
                });
            }
            if message == 4 {
                gate.close();
            }
            async move { if message == 0 { Err(Bad(message)) } else { Ok(()) } }
        })
        .concurrency(2)
        .on_failure(OnFailure::Continue),
    )
    .expect("the drain succeeds");
    assert_eq!((report.handled(), report.failed()), (4, 1));
}

// Rules 3.5, 3.8
#[test]
fn a_message_that_fails_while_the_drain_ends_is_attached_and_undone_alone() {
    let stop = CancellationSource::new();
    let context = StepContext::new("t").with_cancellation(stop.token());
    let ledger = Ledger::default();
    let drain = fan_in(&context, [filled([1, 2])], |message, step| {
        let ledger = ledger.clone();
        async move {
            ledger.apply(&step, message);
            step.cancellation().cancelled().await;
            Err::<(), _>(Bad(message))
        }
    });
    let drain = drain.on_failure(OnFailure::Continue);
    let mut drain = drain.dead_letters(|_| -> Ready<()> { panic!("no letter") }).into_future();
    assert!(poll_times(&mut drain, 2).is_none());
    stop.cancel();
    let error = poll_times(&mut drain, 3).expect("it is over").expect_err("cancelled").into_error();
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert_eq!(error.related()[0].downcast_ref::<Bad>(), Some(&Bad(1)));
    assert!(context.scope().is_empty());
    ledger.assert_undone_in_reverse();
}

// Rule 6.1; fault d23
#[test]
fn a_handler_error_names_its_message_and_ends_with_the_users_words() {
    let context = StepContext::new("test");
    let sources = [stream::iter(["1", "x", "3"]).named("web")];
    let drain =
        fan_in(&context, sources, |text: &str, _| async move { text.parse::<u32>().map(drop) });
    let failure = block_on(drain).unwrap_err();
    let error = failure.error();
    assert_eq!(error.code(), ErrorCode::Handler);
    assert_eq!((error.source_name(), error.message_number()), (Some("web"), Some(2)));
    assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
    let what = "the handler failed (message 2 of source `web`)";
    assert_eq!(error.to_string(), what);
    assert_eq!(format!("{failure:#}"), format!("{what}: invalid digit found in string"));
}
