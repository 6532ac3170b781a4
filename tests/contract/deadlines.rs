//! Rules 3.4 and 3.9: a deadline for each message, and a drain that is shut down.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use watershed::{
    BoxError, CancellationSource, Clock, ErrorCode, Letter, OnFailure, RetryPolicy, Source,
    StepContext, fan_in,
};

use crate::support::ending::{assert_settled, report};
use crate::support::fed::{Fed, Gates};
use crate::support::{Hand, Ledger, Log, filled, manual, roll_back, yields};

const SECOND: Duration = Duration::from_secs(1);

fn ok() -> Result<(), BoxError> {
    Ok(())
}

fn seconds(clock: &watershed::ManualClock) -> u64 {
    clock.now().as_nanos() / 1_000_000_000
}

/// Tells when it is dropped.
struct Dropped<T: Clone>(Log<T>, T);

impl<T: Clone> Drop for Dropped<T> {
    fn drop(&mut self) {
        self.0.push(self.1.clone());
    }
}

// Rule 3.4
#[test]
fn passing_its_deadline_fails_the_attempt_and_everything_else_comes_after_its_handler_is_gone() {
    let ((context, clock), events) = (manual("t"), Log::default());
    let drain = fan_in(&context, [filled([1]), filled([2])], async |message, step: StepContext| {
        let name = |what: &str| format!("{what} {}", step.attempt());
        if message == 2 {
            // The token of another message is not cancelled.
            yields(1).await;
            return ok();
        }
        events.push(name("call"));
        let _dropped = Dropped(events.clone(), name("drop"));
        let (undo, token) = (name("undo"), step.cancellation().clone());
        step.register_compensation_with(events.clone(), move |events| {
            let entry = format!("{undo}, cancelled: {}", token.is_cancelled());
            async move {
                yields(2).await;
                events.push(entry);
            }
        });
        pending().await
    });
    let drain = drain.message_timeout(3 * SECOND).grace(100 * SECOND).concurrency(2);
    let drain = drain.retry(RetryPolicy::fixed(2, 10 * SECOND));
    let drain = drain.dead_letters(async |letter: Letter<i32>| {
        assert_eq!(letter.error().code(), ErrorCode::Timeout);
        assert!(letter.error().to_string().contains("3s"), "{}", letter.error());
        events.push("letter".to_owned());
    });
    let report = Hand::new(drain.into_future()).finish_by(&clock).expect("it goes on");
    let wanted = [
        "call 1",
        "drop 1",
        "undo 1, cancelled: true",
        "call 2",
        "drop 2",
        "undo 2, cancelled: true",
        "letter",
    ];
    assert_eq!(events.take(), wanted);
    assert_eq!(seconds(&clock), 3 + 10 + 3, "no grace, and a deadline for each attempt");
    assert_eq!((report.handled(), report.failed(), report.attempts()), (1, 1, 3));
}

// Rule 3.4
#[test]
fn without_another_attempt_it_ends_the_drain_and_others_have_the_grace() {
    let ((context, clock), stays) = (manual("t"), Cell::new(false));
    let drain = fan_in(&context, [filled([1]), filled([2])], async |message, step: StepContext| {
        if message == 1 {
            pending::<()>().await;
        }
        yields(1).await;
        clock.advance(2 * SECOND);
        step.cancellation().cancelled().await;
        stays.set(true);
        ok()
    });
    let drain = drain.message_timeout(3 * SECOND).concurrency(2);
    let failure = Hand::new(drain.into_future()).finish_by(&clock).expect_err("the first hangs");
    assert_eq!(failure.error().code(), ErrorCode::Timeout);
    assert_eq!(
        (failure.error().message_number(), failure.error().source_name()),
        (Some(1), Some("source 0"))
    );
    assert!(stays.get(), "the second one hears of it, and is awaited");
    assert_eq!((failure.report().handled(), failure.report().failed()), (1, 1));
    assert_eq!(seconds(&clock), 3);
}

// Rule 3.4
#[test]
fn a_handler_that_is_done_in_the_very_poll_in_which_its_deadline_passed_has_succeeded() {
    for order in 0..3 {
        let ((context, clock), gates) = (manual("t"), Gates::default());
        let drain = fan_in(&context, [filled([1])], async |_: u32, _| {
            gates.wait(()).await;
            ok()
        });
        let drain = drain.message_timeout(SECOND);
        let mut drain = Hand::new(in_order!(order, drain, |key| *key));
        assert!(drain.run().is_pending());
        clock.advance(SECOND);
        gates.open(());
        assert_eq!(drain.finish().expect("it is done").handled(), 1, "order {order}");
    }
}

// Rule 3.4
#[test]
fn a_deadline_of_zero_fails_a_handler_that_waits_and_the_greatest_never_comes() {
    for (deadline, fails) in [(Duration::ZERO, true), (Duration::MAX, false)] {
        let ((context, clock), gates) = (manual("t"), Gates::default());
        let drain = fan_in(&context, [filled([1])], async |_: u32, _| {
            gates.wait(()).await;
            ok()
        });
        let mut drain = Hand::new(drain.message_timeout(deadline).into_future());
        if fails {
            let failure = drain.finish_by(&clock).expect_err("late at once");
            assert_eq!(failure.error().code(), ErrorCode::Timeout);
        } else {
            assert!(drain.run().is_pending());
            clock.advance(Duration::from_secs(1 << 33));
            gates.open(());
            assert_eq!(drain.finish().expect("no failure").handled(), 1);
        }
    }
}

// Rules 3.4, 2.2
#[test]
fn a_crowd_of_deadlines_passes_at_once_and_each_message_has_its_own() {
    let ((context, clock), counts) = (manual("t"), Cell::new(0));
    let drain = fan_in(&context, [filled(0..10_000)], async |message: u32, _| {
        counts.set(counts.get() + 1);
        if message % 2 == 0 {
            pending::<()>().await;
        }
        ok()
    });
    let drain = drain.unordered().concurrency(100).message_timeout(SECOND);
    let drain = drain.on_failure(OnFailure::Continue);
    let report = Hand::new(drain.into_future()).finish_by(&clock).expect("it goes on");
    assert_eq!((report.handled(), report.failed(), counts.get()), (5_000, 5_000, 10_000));
    assert_eq!(seconds(&clock), 50, "a hundred at a time");
    assert_settled(&report);
}

// Rule 3.9
#[test]
fn a_shutdown_takes_nothing_more_finishes_what_runs_and_succeeds() {
    for order in 0..3 {
        let ((context, clock), gates) = (manual("t"), Gates::default());
        let shutdown = CancellationSource::new();
        let ledger = Ledger::default();
        let queues = [filled(0..10), filled(10..20), filled(20..30)];
        let cancelled = Rc::new(Cell::new(false));
        let heard = Rc::clone(&cancelled);
        let drain = fan_in(&context, queues.clone(), async |message, step: StepContext| {
            ledger.apply(&step, message);
            gates.wait(message % 10).await;
            heard.set(heard.get() || step.cancellation().is_cancelled());
            ok()
        });
        let drain = drain.concurrency(3).shutdown(shutdown.token());
        let mut drain = Hand::new(match order {
            0 => drain.into_future().boxed_local(),
            1 => drain.unordered().per_source_concurrency(1).into_future().boxed_local(),
            _ => drain.ordered_by(|message| message / 10).into_future().boxed_local(),
        });
        gates.open(0);
        assert!(drain.run().is_pending());
        let taken = 30 - queues.iter().map(async_channel::Receiver::len).sum::<usize>();
        shutdown.cancel();
        for _ in 0..3 {
            assert!(drain.run().is_pending());
            clock.advance(1_000_000 * SECOND);
        }
        (0..10).for_each(|message| gates.open(message));
        let report = drain.finish().expect("a shutdown is a success");
        assert_settled(&report);
        let left: usize = queues.iter().map(async_channel::Receiver::len).sum();
        assert_eq!(30 - left, taken, "order {order}: nothing more was taken");
        assert_eq!(report.taken(), taken as u64);
        assert!(!cancelled.get(), "the handlers' token is not cancelled");
        assert!(!context.scope().has_actions(), "it is a success, and commits");
    }
}

// Rule 3.9
#[test]
fn a_shutdown_before_the_first_poll_takes_nothing_and_succeeds() {
    let (context, shutdown) = (StepContext::new("t"), CancellationSource::new());
    shutdown.cancel();
    let fed = Fed::closed([1]);
    let drain = fan_in(&context, [fed.source()], async |_: u32, _| ok());
    let ended = drain.shutdown(shutdown.token()).into_future().now_or_never().expect("at once");
    assert_eq!((ended.expect("a success").taken(), fed.polls()), (0, 0));
}

// Rule 3.9
#[test]
fn what_runs_when_the_time_to_finish_is_over_is_cancelled_and_that_is_a_timeout() {
    for heeds in [true, false] {
        let ((context, clock), ledger) = (manual("t"), Ledger::default());
        let shutdown = CancellationSource::new();
        let drain =
            fan_in(&context, [filled([1]), filled([2])], async |message, step: StepContext| {
                ledger.apply(&step, message);
                if message == 2 {
                    return ok();
                }
                if heeds {
                    step.cancellation().cancelled().await;
                } else {
                    pending::<()>().await;
                }
                ok()
            });
        let drain = drain.concurrency(2).grace(5 * SECOND).finish_within(30 * SECOND);
        let mut drain = Hand::new(drain.shutdown(shutdown.token()).into_future());
        assert!(drain.run().is_pending());
        clock.advance(100 * SECOND);
        assert!(drain.run().is_pending(), "its time begins with the shutdown");
        shutdown.cancel();
        let failure = drain.finish_by(&clock).expect_err("late");
        assert_eq!(failure.error().code(), ErrorCode::Timeout);
        assert_eq!(failure.error().metadata("duration"), Some("30s"));
        assert_eq!(seconds(&clock), if heeds { 130 } else { 135 });
        assert_eq!(failure.report().handled(), if heeds { 2 } else { 1 });
        assert_settled(failure.report());
        assert_eq!(roll_back(context.scope()), 2);
    }
}

// Rules 3.9, 3.8
#[test]
fn a_failure_that_ends_the_drain_is_its_result_during_a_shutdown_too() {
    for letters in [true, false] {
        let ((context, clock), gates) = (manual("t"), Gates::default());
        let (shutdown, stored) = (CancellationSource::new(), Log::default());
        let drain = fan_in(&context, [filled([1, 2])], async |message: u32, _| {
            gates.wait(message).await;
            Err::<(), _>("fails while it shuts down")
        });
        let drain = drain.shutdown(shutdown.token()).finish_within(SECOND);
        let mut drain = Hand::new(if letters {
            let drain = drain.dead_letters(async |letter: Letter<u32>| {
                stored.push(letter.into_message());
            });
            drain.into_future().boxed_local()
        } else {
            drain.into_future().boxed_local()
        });
        assert!(drain.run().is_pending());
        shutdown.cancel();
        assert!(drain.run().is_pending());
        gates.open(1);
        let ended = drain.finish_by(&clock);
        assert_settled(report(&ended));
        assert_eq!((report(&ended).failed(), report(&ended).taken()), (1, 1));
        if letters {
            assert!(ended.is_ok(), "it goes on after failures");
            assert_eq!(stored.take(), [Some(1)]);
        } else {
            assert_eq!(ended.expect_err("fails").error().code(), ErrorCode::Handler);
        }
    }
}

// Rules 3.9, 3.3, 3.5
#[test]
fn a_drain_that_shuts_down_can_still_be_cancelled_and_time_out() {
    for cancel in [true, false] {
        let (context, clock) = manual("t");
        let (stop, shutdown) = (CancellationSource::new(), CancellationSource::new());
        let drain = fan_in(&context, [filled([1])], async |_: u32, _| {
            pending::<()>().await;
            ok()
        });
        let drain = drain.timeout(100 * SECOND).grace(Duration::ZERO).cancellation(stop.token());
        let mut drain = Hand::new(drain.shutdown(shutdown.token()).into_future());
        assert!(drain.run().is_pending());
        shutdown.cancel();
        assert!(drain.run().is_pending());
        if cancel {
            stop.cancel();
        }
        let failure = drain.finish_by(&clock).expect_err("it hangs");
        let code = if cancel { ErrorCode::Canceled } else { ErrorCode::Timeout };
        assert_eq!(failure.error().code(), code);
    }
}

// Rules 3.9, 2.7
#[test]
fn a_shutdown_ends_a_drain_that_waits_for_sources_its_rate_or_resume() {
    for what in ["sources", "rate", "nothing"] {
        let (context, _clock) = manual("t");
        let (shutdown, fed) = (CancellationSource::new(), Fed::open([1, 2, 3]));
        let (live, incoming) = watershed::channels::live();
        live.add(fed.source().erased()).unwrap_or_else(|_| panic!("it will run"));
        let drain = fan_in(&context, [], async |_: u32, _| ok()).incoming(incoming);
        let drain = if what == "rate" { drain.rate(1, 1_000 * SECOND) } else { drain };
        let mut drain = Hand::new(drain.shutdown(shutdown.token()).into_future());
        if what != "sources" {
            drop(live);
        }
        assert!(drain.run().is_pending());
        shutdown.cancel();
        let report = drain.finish().expect("a shutdown is a success");
        assert_eq!(report.handled(), if what == "rate" { 1 } else { 3 }, "{what}");
        assert_eq!(fed.left().len(), if what == "rate" { 2 } else { 0 });
    }
}
