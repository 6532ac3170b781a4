//! Rules 3.1, 3.2, 3.3, 3.5 and 3.6: how a drain ends, and what its error says.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use watershed::{
    BoxError, CancellationSource, Clock, Commit, ErrorCode, OnFailure, RetryPolicy, Source,
    StepContext, fan_in,
};

use crate::support::ending::assert_settled;
use crate::support::fed::{Fed, Gates};
use crate::support::{Hand, Log, block_on, filled, manual, yields};

const SECOND: Duration = Duration::from_secs(1);

fn ok() -> Result<(), BoxError> {
    Ok(())
}

// Rule 3.1
#[test]
fn when_all_sources_have_ended_and_all_handlers_returned_ok_the_drain_succeeds_with_a_report() {
    let (context, clock) = manual("t");
    let sources = [filled(0..3).named("a"), filled(10..15).named("b"), filled(20..20).named("c")];
    let drain = fan_in(&context, sources, async |_: u32, _| {
        yields(1).await;
        clock.advance(SECOND);
        ok()
    });
    clock.advance(100 * SECOND);
    let report = block_on(drain.concurrency(2)).expect("no failure");
    assert_eq!((report.handled(), report.attempts(), report.elapsed()), (8, 8, 8 * SECOND));
    let rows: Vec<_> = report.sources().iter().map(|row| (row.name(), row.handled())).collect();
    assert_eq!(rows, [("a", 3), ("b", 5), ("c", 0)]);
    assert_settled(&report);
}

/// Four messages in flight: the first ends the drain, the others hear of it.
fn four(fault: &'static str) -> (ErrorCode, u64, u64) {
    let (context, gates, heard) = (StepContext::new("t"), Gates::default(), Log::default());
    let queue = filled(10..20);
    let fed: Fed<Result<u32, &str>> = Fed::open([]);
    let mut sources: Vec<_> = [1, 2, 3, 0].map(|number| filled([number]).erased()).into();
    sources.push(fed.source().faults().erased());
    let thrown = |message| {
        if fault == "call" && message == 0 {
            panic!("thrown in the call");
        }
    };
    let drain = fan_in(&context, sources, |message, step: StepContext| {
        let gate = gates.of(message);
        if message == 0 && fault == "call" {
            // The call itself waits for nothing.
            thrown(message);
        }
        let heard = heard.clone();
        async move {
            if message == 0 {
                gate.wait().await;
                assert!(fault != "panic", "thrown in a poll");
                return if fault == "error" { Err("the first error") } else { Ok(()) };
            }
            step.cancellation().cancelled().await;
            heard.push(message);
            gate.wait().await;
            if message == 2 { Err("a further error") } else { Ok(()) }
        }
    });
    let mut drain = Hand::new(drain.concurrency(9).into_future());
    let _ = drain.run();
    match fault {
        "fault" => fed.push(Err("the first error")),
        _ => gates.open(0),
    }
    assert!(drain.run().is_pending(), "{fault}: three are in flight");
    let mut told = heard.all();
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3], "{fault}: the handlers' token is cancelled");
    fed.push(Ok(7));
    (0..3).for_each(|message| gates.open(message));
    assert!(drain.run().is_pending(), "{fault}: one is in flight");
    gates.open(3);
    let failure = drain.finish().expect_err(fault);
    assert_eq!(queue.len(), 10);
    assert_settled(failure.report());
    assert_eq!(failure.error().related_total(), 1, "{fault}: {:?}", failure.error());
    let further = format!("{:#}", failure.error().related()[0]);
    assert!(further.contains("a further error"), "{further}");
    (failure.error().code(), failure.report().handled(), failure.report().failed())
}

// Rule 3.2
#[test]
fn the_first_failure_ends_the_drain_and_what_is_in_flight_is_awaited() {
    assert_eq!(four("error"), (ErrorCode::Handler, 2, 2));
    assert_eq!(four("panic"), (ErrorCode::Panic, 2, 2));
    assert_eq!(four("call"), (ErrorCode::Panic, 2, 2));
    // Message 0 was in flight, and is done.
    assert_eq!(four("fault"), (ErrorCode::Source, 3, 1));
}

// Rules 3.2, 6.1; fault d23
#[test]
fn the_error_says_what_failed_and_where_and_leads_to_the_users_own_words() {
    let context = StepContext::new("t");
    let drain = fan_in(&context, [filled([1, 2]).named("web")], async |message, _| {
        if message == 2 { Err(std::io::Error::other("the card was declined")) } else { Ok(()) }
    });
    let failure = block_on(drain).expect_err("declined");
    let error = failure.error();
    assert_eq!((error.source_name(), error.message_number()), (Some("web"), Some(2)));
    assert!(error.to_string().contains("web"), "{error}");
    assert!(format!("{error:#}").contains("the card was declined"), "{error:#}");
    assert!(error.downcast_ref::<std::io::Error>().is_some());
    let own: watershed::Error = failure.into();
    assert!(format!("{own:#}").contains("the card was declined"));
    let through = || -> Result<(), watershed::Error> {
        let drain = fan_in(&context, [filled([1])], async |_, _| Err::<(), _>(own.clone()));
        block_on(drain)?;
        Ok(())
    };
    assert!(format!("{:#}", through().unwrap_err()).contains("the card was declined"));
}

// Rules 3.2, 6.4
#[test]
fn a_crowd_of_further_errors_is_counted_and_the_first_are_kept() {
    for panics in [true, false] {
        let context = StepContext::new("t");
        let drain = fan_in(&context, [filled(0..10_000)], async |message, step: StepContext| {
            if message == 9_999 {
                return Err::<(), _>("the first".to_owned());
            }
            step.cancellation().cancelled().await;
            assert!(!panics, "number {message}");
            Err(format!("number {message}"))
        });
        let drain = drain.unordered().concurrency(10_000);
        let failure = Hand::new(drain.into_future()).finish().expect_err("all of them");
        let error = failure.error();
        assert!(format!("{error:#}").contains("the first"), "{error:#}");
        assert_eq!((error.related().len(), error.related_total()), (32, 9_999));
        assert_eq!(failure.report().failed(), 10_000);
        assert_settled(failure.report());
    }
}

// Rule 3.2
#[test]
fn a_fault_is_noticed_at_the_next_turn_of_its_source_however_busy_the_others_are() {
    for waits in [0, 2] {
        for others in [1, 300] {
            let (context, calls) = (StepContext::new("t"), Cell::new(0));
            let items = (0..9).map(Ok::<u32, &str>).chain([Err("the connection is gone")]);
            let faulty = stream::iter(items).faults().erased();
            let mut sources = vec![faulty];
            sources.extend((0..others).map(|_| stream::repeat(100).erased()));
            let drain = fan_in(&context, sources, async |_, _| {
                calls.set(calls.get() + 1);
                assert!(calls.get() < 1_000_000, "nobody asks the source");
                yields(waits).await;
                ok()
            });
            let failure = block_on(drain.quantum(10)).expect_err("a fault");
            assert_eq!(failure.error().code(), ErrorCode::Source);
            assert_eq!(failure.error().source_name(), Some("source 0"));
            assert!(format!("{:#}", failure.error()).contains("the connection is gone"));
            assert_eq!(failure.report().sources()[0].handled(), 9);
            let most = 12 * 10 * (others + 1);
            assert!(calls.get() <= most, "{} messages, at most {most}", calls.get());
        }
    }
}

// Rule 3.2
#[test]
fn an_err_item_is_a_message_unless_it_is_asked_to_be_a_fault() {
    let (context, seen) = (StepContext::new("t"), Log::default());
    let drain = fan_in(&context, [filled([Ok(1), Err("no fault"), Ok(2)])], async |item, _| {
        seen.push(item);
        ok()
    });
    assert_eq!(block_on(drain).expect("no failure").handled(), 3);
    assert_eq!(seen.take(), [Ok(1), Err("no fault"), Ok(2)]);
}

// Rule 3.3
#[test]
fn the_timeout_is_one_absolute_deadline_from_the_first_poll_by_the_contexts_clock() {
    let (context, clock) = manual("t");
    let fed = Fed::open([]);
    let drain = fan_in(&context, [fed.source()], async |_: u32, _| ok()).timeout(10 * SECOND);
    let mut drain = Hand::new(drain.into_future());
    clock.advance(100 * SECOND);
    assert!(drain.run().is_pending());
    for _ in 0..9 {
        clock.advance(SECOND);
        fed.push(1);
        assert!(drain.run().is_pending(), "messages do not move it");
    }
    clock.advance(SECOND - Duration::from_nanos(1));
    assert!(drain.run().is_pending());
    clock.advance(Duration::from_nanos(1));
    let failure = drain.finish().expect_err("late");
    let error = failure.error();
    assert_eq!((error.code(), error.code().as_str()), (ErrorCode::Timeout, "error.timeout"));
    assert_eq!(error.metadata("duration"), Some("10s"));
    assert!(error.to_string().contains("10s"), "{error}");
    assert_eq!((failure.report().handled(), failure.report().elapsed()), (9, 10 * SECOND));
}

// Rule 3.3
#[test]
fn a_timeout_of_zero_takes_nothing_and_the_greatest_one_never_comes() {
    let (context, clock) = manual("t");
    let fed = Fed::closed([1]);
    let drain = fan_in(&context, [fed.source()], async |_: u32, _| ok()).timeout(Duration::ZERO);
    let failure = block_on(drain).expect_err("late");
    assert_eq!((failure.error().code(), fed.polls()), (ErrorCode::Timeout, 0));
    for longest in [Some(Duration::MAX), None] {
        let open = Fed::open([]);
        let mut drain = fan_in(&context, [open.source()], async |_: u32, _| ok());
        if let Some(longest) = longest {
            drain = drain.timeout(longest);
        }
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        clock.advance(Duration::from_secs(u64::MAX / 4_000_000_000));
        assert!(drain.run().is_pending());
        open.close();
        drain.finish().expect("no failure");
    }
}

// Rule 3.3
#[test]
fn the_deadline_fires_while_handlers_run_and_they_have_the_grace() {
    for heeds in [true, false] {
        let (context, clock) = manual("t");
        let started = clock.now();
        let drain = fan_in(&context, [filled([1, 2])], async |_, step: StepContext| {
            if heeds {
                step.cancellation().cancelled().await;
            } else {
                pending::<()>().await;
            }
            ok()
        });
        let drain = drain.timeout(10 * SECOND).grace(3 * SECOND);
        let failure = Hand::new(drain.into_future()).finish_by(&clock).expect_err("late");
        assert_eq!(failure.error().code(), ErrorCode::Timeout);
        let took = clock.now().since(started);
        assert_eq!(took, if heeds { 10 * SECOND } else { 13 * SECOND });
        let report = failure.report();
        let counts = (report.handled(), report.unfinished(), report.dropped_handlers());
        assert_eq!(counts, if heeds { (1, 0, 0) } else { (0, 1, 1) });
    }
}

// Rules 3.3, 3.9
#[test]
fn of_several_reasons_in_one_poll_success_goes_first_then_cancellation_deadline_and_shutdown() {
    for bits in 1..32_u32 {
        let on = |bit: u32| bits & (1 << bit) != 0;
        let (done, cancelled, late, shut, failed) = (on(0), on(1), on(2), on(3), on(4));
        let (stop, shutdown, gates) =
            (CancellationSource::new(), CancellationSource::new(), Gates::default());
        let (context, clock) = manual("t");
        // Unordered: the end of both sources is known while their handlers run.
        let drain = fan_in(&context, [filled([1]), filled([2])], async |message, _| {
            gates.wait(message).await;
            if failed && message == 2 { Err("fails") } else { Ok(()) }
        });
        let drain = drain.unordered().concurrency(8).timeout(10 * SECOND).grace(SECOND);
        let drain = drain.cancellation(stop.token()).shutdown(shutdown.token());
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        if done || failed {
            gates.open(2);
        }
        if done {
            gates.open(1);
        }
        if cancelled {
            stop.cancel();
        }
        if shut {
            shutdown.cancel();
        }
        if late {
            clock.advance(10 * SECOND);
        }
        let code = match () {
            () if done && !failed => None,
            () if cancelled => Some(ErrorCode::Canceled),
            // The failure and the deadline are one as early as the other: 3.3 says nothing of it.
            () if failed && late => continue,
            () if failed => Some(ErrorCode::Handler),
            () if late => Some(ErrorCode::Timeout),
            () => None,
        };
        if code.is_none() && !done {
            assert!(drain.run().is_pending(), "a shutdown finishes what runs");
            gates.open(1);
            gates.open(2);
        }
        let ended = drain.finish_by(&clock);
        let got = ended.as_ref().err().map(|failure| failure.error().code());
        assert_eq!(got, code, "{done} {cancelled} {late} {shut} {failed}: {ended:?}");
        assert_settled(crate::support::ending::report(&ended));
    }
}

// Rules 3.3, 3.5
#[test]
fn a_handler_that_cancels_in_the_poll_in_which_the_deadline_passed_has_cancelled_the_drain() {
    for (failed, goes_on) in [(false, false), (true, false), (false, true), (true, true)] {
        let (context, clock) = manual("t");
        let stop = CancellationSource::new();
        let sources = [filled([1]).named("a"), filled([2]).named("b")];
        let drain = fan_in(&context, sources, async |message, _| {
            clock.sleep_until(clock.now() + SECOND).await;
            if message == 1 {
                stop.cancel();
                return if failed { Err("fails") } else { Ok(()) };
            }
            pending().await
        });
        let drain = drain.concurrency(2).timeout(SECOND).grace(Duration::ZERO);
        let drain = drain.cancellation(stop.token());
        let how = if goes_on { OnFailure::Continue } else { OnFailure::Abort };
        let drain = drain.on_failure(how).into_future();
        let failure = Hand::new(drain).finish_by(&clock).expect_err("cancelled");
        let error = failure.error();
        assert_eq!(error.code(), ErrorCode::Canceled, "{failed} {goes_on}: {error:?}");
        let related: Vec<_> = error.related().iter().map(|error| error.code()).collect();
        assert_eq!(related, [ErrorCode::Handler][..usize::from(failed)]);
        assert_settled(failure.report());
    }
}

// Rule 3.5
#[test]
fn either_token_cancels_the_drain_and_its_handlers_hear_of_it() {
    for which in 0..2 {
        let tokens = [CancellationSource::new(), CancellationSource::new()];
        let context = StepContext::new("t").with_cancellation(tokens[0].token());
        let heard = Cell::new(0);
        let drain = fan_in(&context, [filled(0..3), filled(0..3)], async |_, step: StepContext| {
            step.cancellation().cancelled().await;
            heard.set(heard.get() + 1);
            ok()
        });
        let drain = drain.cancellation(tokens[1].token()).concurrency(2);
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        tokens[which].cancel();
        let failure = drain.finish().expect_err("cancelled");
        assert_eq!((failure.error().code(), heard.get()), (ErrorCode::Canceled, 2));
        assert_eq!((failure.report().handled(), failure.report().taken()), (2, 2));
    }
}

// Rule 3.5
#[test]
fn a_drain_that_was_cancelled_before_its_first_poll_takes_nothing() {
    for which in 0..2 {
        let tokens = [CancellationSource::new(), CancellationSource::new()];
        let context = StepContext::new("t").with_cancellation(tokens[0].token());
        let (fed, coming) = (Fed::closed([1]), Cell::new(0));
        let incoming = stream::repeat_with(|| coming.set(coming.get() + 1)).map(|()| fed.source());
        let drain = fan_in(&context, [fed.source()], async |_, _| ok()).incoming(incoming);
        let drain = drain.cancellation(tokens[1].token());
        tokens[which].cancel();
        let failure = drain.into_future().now_or_never().expect("at once").expect_err("cancelled");
        assert_eq!(failure.error().code(), ErrorCode::Canceled);
        assert_eq!((fed.polls(), coming.get(), failure.report().taken()), (0, 0, 0));
    }
}

// Rules 3.5, 3.8; fault d3
#[test]
fn handlers_that_hear_of_it_first_and_fail_do_not_change_the_reason_and_are_no_dead_letters() {
    for mode in 0..4 {
        for unordered in [true, false] {
            let stop = CancellationSource::new();
            let (context, letters) = (StepContext::new("t"), Log::default());
            let drain = fan_in(&context, [filled(0..3), filled(0..3)], async |message, _| {
                yields(1).await;
                // In this very poll, before the drain has looked at the token.
                stop.cancel();
                Err::<(), _>(format!("stopped at {message}"))
            });
            let drain = drain.cancellation(stop.token()).concurrency(2);
            let drain = match mode {
                0 => drain,
                1 => drain.on_failure(OnFailure::Continue),
                _ => drain.retry(RetryPolicy::fixed(3, SECOND)),
            };
            let mut drain = Hand::new(match (mode, unordered) {
                (3, false) => {
                    drain.dead_letters(async |_| letters.push(())).into_future().boxed_local()
                }
                (3, true) => {
                    let drain = drain.unordered().dead_letters(async |_| letters.push(()));
                    drain.into_future().boxed_local()
                }
                (_, true) => drain.unordered().into_future().boxed_local(),
                (_, false) => drain.into_future().boxed_local(),
            });
            let failure = drain.finish().expect_err("cancelled");
            assert_eq!(failure.error().code(), ErrorCode::Canceled, "mode {mode}");
            assert_eq!(letters.len(), 0, "mode {mode}");
            let attached = failure.error().related_total();
            assert!((1..=2).contains(&attached), "mode {mode}: {attached} are attached");
            assert!(format!("{:#}", failure.error().related()[0]).contains("stopped at"));
            assert_settled(failure.report());
        }
    }
}

// Rule 3.5; fault d3
#[test]
fn a_drain_that_another_thread_cancels_says_so_whatever_its_handlers_return_then() {
    let mut other = 0;
    for round in 0..300_u64 {
        let stop = CancellationSource::new();
        let context = StepContext::new("t").with_cancellation(stop.token());
        let sources: Vec<_> = (0..4).map(|_| stream::repeat(1)).collect();
        let drain = fan_in(&context, sources, async |_: i32, step: StepContext| {
            yields(1).await;
            if step.cancellation().is_cancelled() { Err("stopped") } else { Ok(()) }
        });
        let drain = drain.concurrency(4).commit(Commit::Message);
        let canceller = std::thread::spawn(move || {
            (0..round * 977 % 3_000).for_each(|_| std::hint::spin_loop());
            stop.cancel();
        });
        let failure = block_on(drain).expect_err("cancelled");
        canceller.join().expect("no panic");
        other += u32::from(failure.error().code() != ErrorCode::Canceled);
    }
    assert_eq!(other, 0, "of 300 cancelled drains");
}

// Rule 3.5
#[test]
fn a_failure_that_came_before_the_cancellation_is_the_reason() {
    let (stop, context, gates) =
        (CancellationSource::new(), StepContext::new("t"), Gates::default());
    let drain = fan_in(&context, [filled([1]), filled([2])], async |message, _| {
        gates.wait(message).await;
        if message == 1 { Err("the reason") } else { Ok(()) }
    });
    let mut drain = Hand::new(drain.cancellation(stop.token()).concurrency(2).into_future());
    assert!(drain.run().is_pending());
    gates.open(1);
    assert!(drain.run().is_pending());
    stop.cancel();
    gates.open(2);
    assert_eq!(drain.finish().expect_err("fails").error().code(), ErrorCode::Handler);
}

// Rule 3.6
#[test]
fn what_is_in_flight_when_the_grace_ends_is_dropped_and_the_error_says_how_many_of_each() {
    struct Notes<'a>(&'a RefCell<Vec<u32>>, u32);
    impl Drop for Notes<'_> {
        fn drop(&mut self) {
            self.0.borrow_mut().push(self.1);
        }
    }
    let (context, clock) = manual("t");
    let (dropped, stop) = (RefCell::new(Vec::new()), CancellationSource::new());
    let drain = fan_in(&context, [filled(0..6_u32)], async |message, step: StepContext| {
        let _notes = Notes(&dropped, message);
        match message {
            0..3 => pending::<()>().await,
            3 | 4 => step.register_compensation(pending::<()>),
            _ => {}
        }
        Err::<(), _>("fails")
    });
    let drain = drain.unordered().concurrency(9).cancellation(stop.token()).grace(7 * SECOND);
    let drain = drain.dead_letters(async |_| pending::<()>().await);
    let mut drain = Hand::new(drain.into_future());
    assert!(drain.run().is_pending());
    dropped.borrow_mut().clear();
    stop.cancel();
    assert!(drain.run().is_pending());
    clock.advance(7 * SECOND - Duration::from_nanos(1));
    assert!(drain.run().is_pending(), "they have the grace");
    clock.advance(Duration::from_nanos(1));
    let failure = drain.finish().expect_err("cancelled");
    assert_eq!(*dropped.borrow(), [0, 1, 2]);
    let report = failure.report();
    let counts = (report.dropped_handlers(), report.dropped_rollbacks(), report.dropped_letters());
    assert_eq!(counts, (3, 2, 1));
    assert_settled(report);
    let error = failure.error();
    assert_eq!(error.metadata("dropped_handlers"), Some("3"), "{error:?}");
    assert_eq!(error.metadata("dropped_rollbacks"), Some("2"), "{error:?}");
    assert_eq!(error.metadata("dropped_letters"), Some("1"), "{error:?}");
    assert_eq!(context.scope().clear(), 2, "what was not undone is staged");
}

// Rule 3.6
#[test]
fn no_grace_at_all_drops_what_runs_at_once_and_the_default_is_five_seconds() {
    for grace in [Some(Duration::ZERO), None] {
        let (context, clock) = manual("t");
        let stop = CancellationSource::new();
        let mut drain = fan_in(&context, [filled([1])], async |_, _| {
            pending::<()>().await;
            ok()
        });
        drain = drain.cancellation(stop.token());
        if let Some(grace) = grace {
            drain = drain.grace(grace);
        }
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        stop.cancel();
        let failure = drain.finish_by(&clock).expect_err("cancelled");
        assert_eq!(failure.report().dropped_handlers(), 1);
        assert_eq!(clock.now().as_nanos(), u64::from(grace.is_none()) * 5_000_000_000);
    }
}
