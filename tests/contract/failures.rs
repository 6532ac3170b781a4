//! Rule 3.8: a failed message that is undone alone, and the dead letters.

use std::cell::RefCell;
use std::future::pending;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use watershed::{
    BoxError, CancellationSource, CompensationPolicy, ErrorCode, Letter, OnFailure, RetryPolicy,
    Source, StepContext, fan_in,
};

use crate::support::ending::assert_settled;
use crate::support::fed::Gates;
use crate::support::{Hand, Ledger, Log, block_on, filled, manual, roll_back, yields};

const SECOND: Duration = Duration::from_secs(1);

// Rule 3.8
#[test]
fn a_failed_message_is_undone_alone_at_once_and_in_reverse_and_the_drain_goes_on() {
    for letters in [true, false] {
        let (context, ledger) = (StepContext::new("t"), Ledger::default());
        let at_failure = Log::default();
        let drain = fan_in(&context, [filled([1, 2, 3])], async |message, step: StepContext| {
            at_failure.push(ledger.undone());
            ledger.apply(&step, message * 10);
            ledger.apply_slowly(&step, message * 10 + 1);
            yields(1).await;
            ledger.apply(&step, message * 10 + 2);
            if message == 2 { Err("no") } else { Ok(()) }
        });
        let report = if letters {
            block_on(drain.dead_letters(async |_| ()))
        } else {
            block_on(drain.on_failure(OnFailure::Continue))
        };
        let report = report.expect("it went on");
        assert_eq!((report.handled(), report.failed(), report.taken()), (2, 1, 3));
        assert_settled(&report);
        assert_eq!(ledger.undone(), [22, 21, 20]);
        assert_eq!(at_failure.take(), [vec![], vec![], vec![22, 21, 20]], "before the next one");
        assert!(!context.scope().has_actions());
    }
}

// Rules 3.8, 3.7, 3.4
#[test]
fn without_either_option_a_failure_ends_the_drain_and_everything_stays_staged() {
    for how in ["error", "panic", "timeout", "retried"] {
        let ((context, clock), ledger) = (manual("t"), Ledger::default());
        let drain = fan_in(&context, [filled([1, 2, 3])], async |message, step: StepContext| {
            ledger.apply(&step, message);
            if message == 2 {
                match how {
                    "panic" => panic!("thrown"),
                    "timeout" => pending::<()>().await,
                    _ => return Err("no"),
                }
            }
            Ok(())
        });
        let mut drain = drain.message_timeout(SECOND);
        if how == "retried" {
            drain = drain.retry(RetryPolicy::fixed(2, SECOND));
        }
        let failure = Hand::new(drain.into_future()).finish_by(&clock).expect_err(how);
        assert_eq!((failure.report().handled(), failure.report().failed()), (1, 1), "{how}");
        let code = match how {
            "panic" => ErrorCode::Panic,
            "timeout" => ErrorCode::Timeout,
            _ => ErrorCode::Handler,
        };
        assert_eq!(failure.error().code(), code, "{how}");
        assert_eq!(ledger.done().len(), if how == "retried" { 3 } else { 2 });
        roll_back(context.scope());
        let mut undone = ledger.undone();
        undone.sort_unstable();
        assert_eq!(undone, ledger.done(), "{how}");
    }
}

// Rule 3.8
#[test]
fn a_letter_has_the_message_the_error_its_facts_and_how_the_rollback_went() {
    let ((context, clock), letters) = (manual("t"), Log::default());
    let sources = [filled(["a", "stuck"]).named("web"), filled(["b"]).named("phone")];
    let drain = fan_in(&context, sources, async |message, step: StepContext| {
        step.register_compensation(async || {});
        if message == "stuck" {
            step.register_compensation(async || Err("cannot be undone"));
        }
        if message == "a" { Ok(()) } else { Err(format!("no {message}")) }
    });
    let drain =
        drain.retry(RetryPolicy::fixed(2, SECOND)).dead_letters(async |letter: Letter<_>| {
            assert_eq!(letter.error().source_name(), Some(letter.source_name()));
            assert_eq!(letter.error().message_number(), Some(letter.message_number()));
            assert!(format!("{:#}", letter.error()).contains("no "));
            let undone = match letter.rollback() {
                Ok(report) => (report.succeeded(), report.failures().len()),
                Err(failure) => (failure.report().succeeded(), failure.report().failures().len()),
            };
            let origin =
                (letter.source_name().to_owned(), letter.source_id(), letter.message_number());
            assert_eq!(
                letter.message().copied(),
                Some(if letter.source_name() == "web" { "stuck" } else { "b" })
            );
            letters.push((letter.attempts(), undone, origin, letter.into_message()));
        });
    let report = Hand::new(drain.into_future()).finish_by(&clock).expect("it goes on");
    let mut letters = letters.take();
    letters.sort_by_key(|letter| letter.3);
    let [web, phone] = [0, 1].map(|row| report.sources()[row].id());
    assert_eq!(letters[0], (2, (1, 0), ("phone".to_owned(), phone, 1), Some("b")));
    // What cannot be undone is not tried again.
    assert_eq!(letters[1], (1, (1, 1), ("web".to_owned(), web, 2), Some("stuck")));
    assert_eq!(context.scope().clear(), 1, "the action that failed stays staged");
    assert_settled(&report);
}

// Rule 3.8
#[test]
fn a_message_is_undone_before_its_letter_and_its_source_waits_for_both() {
    let (context, events) = (StepContext::new("t"), Log::default());
    let drain = fan_in(&context, [filled([1, 2])], async |message, step: StepContext| {
        events.push(("handler", message));
        step.register_compensation_with(events.clone(), move |events| async move {
            yields(3).await;
            events.push(("undone", message));
        });
        Err::<(), _>("no")
    });
    let drain = drain.dead_letters(async |letter: Letter<u32>| {
        yields(3).await;
        events.push(("stored", letter.into_message().expect("it was decoded")));
    });
    assert_eq!(block_on(drain.concurrency(5)).expect("it goes on").failed(), 2);
    let of = |message| [("handler", message), ("undone", message), ("stored", message)];
    assert_eq!(events.take(), [of(1), of(2)].concat());
}

// Rule 3.8
#[test]
fn a_letter_that_fails_ends_the_drain_with_both_errors_and_the_message_goes_back() {
    for how in ["error", "panic", "call", "hangs", "default"] {
        for put_back in [true, false] {
            let ((context, clock), back) = (manual("t"), RefCell::new(Vec::new()));
            let drain = fan_in(&context, [filled([1, 2])], async |_: u32, _| {
                Err::<(), _>("the handler's words")
            });
            let drain =
                if how == "default" { drain } else { drain.dead_letter_timeout(7 * SECOND) };
            let drain = drain.dead_letters(|_| {
                assert!(how != "call", "the store's words");
                async move {
                    match how {
                        "panic" => panic!("the store's words"),
                        "error" => Err("the store's words"),
                        _ => pending().await,
                    }
                }
            });
            let mut drain = Hand::new(if put_back {
                let keep = |_, message| back.borrow_mut().push(message);
                drain.put_back(keep).into_future().boxed_local()
            } else {
                drain.into_future().boxed_local()
            });
            let failure = drain.finish_by(&clock).expect_err(how);
            let waited = match how {
                "hangs" => 7,
                "default" => 30,
                _ => 0,
            };
            assert_eq!(clock_seconds(&clock), waited, "{how}");
            let error = failure.error();
            let mut said = format!("{error:#}");
            error.related().iter().for_each(|error| said += &format!(" {error:#}"));
            assert!(said.contains("the handler's words"), "{how}: {said}");
            if waited == 0 {
                assert!(said.contains("the store's words"), "{how}: {said}");
            } else {
                let codes = [error].into_iter().chain(error.related()).map(|error| error.code());
                assert!(
                    codes.into_iter().any(|code| code == ErrorCode::Timeout),
                    "{how}: {error:?}"
                );
            }
            let report = failure.report();
            assert_settled(report);
            assert_eq!(*back.borrow(), if put_back { vec![1] } else { vec![] }, "{how}");
            let counts = (report.put_back(), report.unfinished(), report.failed());
            assert_eq!(counts, if put_back { (1, 0, 0) } else { (0, 1, 0) }, "{how}");
        }
    }
}

fn clock_seconds(clock: &watershed::ManualClock) -> u64 {
    watershed::Clock::now(clock).as_nanos() / 1_000_000_000
}

fn unexpected() {
    panic!("no letter was to come");
}

// Rule 3.8
#[test]
fn while_the_drain_ends_a_message_that_fails_or_heeds_its_token_is_undone_alone() {
    for letters in [true, false] {
        for fails in [true, false] {
            let ((context, clock), ledger) = (manual("t"), Ledger::default());
            let stop = CancellationSource::new();
            let sources = [filled([1]), filled([2]), filled([3])];
            let drain = fan_in(&context, sources, async |message, step: StepContext| {
                ledger.apply_slowly(&step, message);
                if message == 1 {
                    return Ok(());
                }
                step.cancellation().cancelled().await;
                if fails || message == 3 { Err("stopped") } else { Ok(()) }
            });
            let drain = drain.cancellation(stop.token()).concurrency(5);
            let mut drain = Hand::new(if letters {
                drain.dead_letters(async |_| unexpected()).into_future().boxed_local()
            } else {
                drain.on_failure(OnFailure::Continue).into_future().boxed_local()
            });
            assert!(drain.run().is_pending());
            stop.cancel();
            let failure = drain.finish().expect_err("cancelled");
            assert_eq!(failure.error().code(), ErrorCode::Canceled);
            assert_settled(failure.report());
            let mut undone = ledger.undone();
            undone.sort_unstable();
            assert_eq!(undone, if fails { vec![2, 3] } else { vec![3] });
            // What was done well is the caller's to undo.
            assert_eq!(roll_back(context.scope()), if fails { 1 } else { 2 });
            let mut undone = ledger.undone();
            undone.sort_unstable();
            assert_eq!(undone, [1, 2, 3], "each once");
            assert_eq!(clock_seconds(&clock), 0);
        }
    }
}

// Rules 3.8, 3.6
#[test]
fn what_is_not_undone_when_the_grace_ends_is_staged_on_the_contexts_scope() {
    let ((context, clock), gates, ledger) = (manual("t"), Gates::default(), Ledger::default());
    let stop = CancellationSource::new();
    let drain = fan_in(&context, [filled([1])], async |message, step: StepContext| {
        ledger.apply(&step, message);
        let gate = gates.of("undo");
        step.register_compensation(move || {
            let gate = gate.clone();
            async move { gate.wait().await }
        });
        ledger.apply(&step, message + 1);
        Err::<(), _>("no")
    });
    let drain = drain.on_failure(OnFailure::Continue).cancellation(stop.token()).grace(SECOND);
    let mut drain = Hand::new(drain.into_future());
    assert!(drain.run().is_pending());
    assert_eq!(ledger.undone(), [2]);
    stop.cancel();
    let failure = drain.finish_by(&clock).expect_err("cancelled");
    assert_eq!(failure.report().dropped_rollbacks(), 1);
    assert_settled(failure.report());
    assert_eq!(context.scope().len(), 2, "the one that was running included");
    gates.open("undo");
    assert_eq!(roll_back(context.scope()), 2);
    assert_eq!(ledger.undone(), [2, 1]);
}

// Rules 3.8, 4.6; fault d9
#[test]
fn an_action_that_hangs_holds_up_its_source_no_longer_than_its_deadline() {
    let (context, clock) = manual("t");
    let begun = Log::default();
    let drain = fan_in(&context, [filled([1, 2, 3])], async |message, step: StepContext| {
        begun.push(message);
        step.register_compensation(pending::<()>);
        Err::<(), _>("no")
    });
    let policy = CompensationPolicy::sequential_reverse().attempt_timeout(SECOND);
    let drain = drain.on_failure(OnFailure::Continue).message_compensation(policy);
    let report = Hand::new(drain.into_future()).finish_by(&clock).expect("it goes on");
    assert_eq!((begun.take(), report.failed()), (vec![1, 2, 3], 3));
    assert_eq!(context.scope().clear(), 3, "what could not be undone stays staged");
}

// Rule 3.8
#[test]
fn the_policy_of_the_messages_is_what_undoes_them() {
    let ((context, clock), tries) = (manual("t"), Log::default());
    let drain = fan_in(&context, [filled([1])], async |_: u32, step: StepContext| {
        for action in 0..2 {
            step.register_compensation_with(tries.clone(), move |tries| async move {
                tries.push(action);
                yields(1).await;
                if tries.len() < 4 { Err("not yet") } else { Ok(()) }
            });
        }
        Err::<(), _>("no")
    });
    let policy = CompensationPolicy::parallel().retry(RetryPolicy::fixed(3, SECOND));
    let drain = drain.on_failure(OnFailure::Continue).message_compensation(policy);
    let report = Hand::new(drain.into_future()).finish_by(&clock).expect("it goes on");
    assert_eq!(report.failed(), 1);
    assert_eq!(tries.take(), [1, 0, 1, 0], "both at once, and both once more");
    assert!(!context.scope().has_actions());
}

// Rules 3.8, 2.2
#[test]
fn a_neighbour_that_stores_hangs_or_floods_does_not_hold_up_the_others() {
    let ((context, _clock), done) = (manual("t"), Log::default());
    let sources = [
        filled(vec![0]).erased(),
        filled(vec![1]).erased(),
        futures::stream::repeat(2).take(10_000).erased(),
        filled(vec![3; 50]).erased(),
    ];
    let drain = fan_in(&context, sources, async |message, step: StepContext| match message {
        0 => pending().await,
        1 => {
            step.register_compensation(pending::<()>);
            Err("no")
        }
        2 => Err("one of many"),
        _ => {
            done.push(message);
            Ok(())
        }
    });
    let drain = drain.on_failure(OnFailure::Continue).concurrency(4);
    let mut drain = Hand::new(drain.into_future());
    assert!(drain.run().is_pending());
    assert_eq!(done.len(), 50);
    drop(drain);
    assert_eq!(context.scope().clear(), 1);
}

// Rules 3.8, 2.8
#[test]
fn a_crowd_of_failures_is_undone_and_counted() {
    let (context, letters) = (StepContext::new("t"), Log::default());
    let drain = fan_in(&context, [filled(0..100_000)], async |message: u32, step: StepContext| {
        step.register_compensation(async || {});
        if message % 2 == 0 { Err::<(), BoxError>("no".into()) } else { Ok(()) }
    });
    let drain = drain.unordered().concurrency(50).dead_letters(async |_| letters.push(()));
    let report = block_on(drain).expect("it goes on");
    assert_eq!((report.handled(), report.failed(), letters.len()), (50_000, 50_000, 50_000));
    assert!(!context.scope().has_actions());
}

// Rules 3.8, 3.7, 6.1
#[test]
fn a_letter_that_panics_after_a_handler_that_panicked_ends_the_drain_with_both_errors() {
    let places = ["call", "first poll", "later poll"];
    let cases = places.into_iter().flat_map(|handler| places.map(|letter| (handler, letter)));
    for ((handler, letter), attempts) in cases.flat_map(|case| [(case, 1), (case, 2)]) {
        for unordered in [true, false] {
            let (context, clock) = manual("t");
            let drain = fan_in(&context, [filled([1])], |_: u32, _| {
                assert!(handler != "call", "the handler's");
                async move {
                    yields(usize::from(handler == "later poll")).await;
                    assert!(handler == "call", "the handler's");
                    Ok::<_, BoxError>(())
                }
            });
            let drain = drain.retry(RetryPolicy::fixed(attempts, SECOND)).dead_letters(move |_| {
                assert!(letter != "call", "the letter's");
                async move {
                    yields(usize::from(letter == "later poll")).await;
                    assert!(letter == "call", "the letter's");
                }
            });
            let mut drain = Hand::new(if unordered {
                drain.unordered().into_future().boxed_local()
            } else {
                drain.into_future().boxed_local()
            });
            let failure = drain.finish_by(&clock).expect_err("the letter failed");
            let case = format!("{handler}, {letter}, {attempts}, unordered: {unordered}");
            assert!(
                format!("{:#}", failure.error()).contains("the handler's"),
                "{case}: {failure:#}"
            );
            let said = format!("{:?}", failure.error().related());
            assert!(said.contains("the letter's"), "{case}: {said}");
            assert_settled(failure.report());
            assert_eq!(failure.report().elapsed(), SECOND * (attempts - 1), "{case}: no grace");
            assert_eq!(failure.report().dropped_letters(), 0, "{case}");
        }
    }
}
