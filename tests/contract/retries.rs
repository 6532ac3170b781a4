//! Rules 3.10 and 3.11: messages that are tried again, and messages that come later.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::time::Duration;

use futures::{FutureExt, stream};
use watershed::{
    Answer, BoxError, CancellationSource, Clock, Commit, CompensationPolicy, ErrorCode, Letter,
    OnFailure, Progress, RetryPolicy, Source, StepContext, fan_in,
};

use crate::support::ending::{
    DEADLINE, ENDINGS, Ending, Stage, assert_adds_up, assert_settled, heed, report,
};
use crate::support::fed::{Fed, Gates};
use crate::support::{Hand, Ledger, Log, filled, manual, roll_back, yields};

const SECOND: Duration = Duration::from_secs(1);

fn seconds(clock: &watershed::ManualClock) -> u64 {
    clock.now().as_nanos() / 1_000_000_000
}

// Rule 3.10
#[test]
fn a_failed_message_is_tried_again_as_the_policy_says_and_undone_between_attempts() {
    for how in ["error", "panic", "timeout"] {
        let ((context, clock), ledger, at) = (manual("t"), Ledger::default(), Log::default());
        let drain = fan_in(&context, [filled([1])], async |_: u32, step: StepContext| {
            at.push((step.attempt(), seconds(&clock), ledger.undone().len()));
            ledger.apply(&step, step.attempt() * 10);
            ledger.apply_slowly(&step, step.attempt() * 10 + 1);
            if step.attempt() < 4 {
                match how {
                    "panic" => panic!("thrown"),
                    "timeout" => pending::<()>().await,
                    _ => return Err("not yet"),
                }
            }
            Ok(())
        });
        let drain = drain.retry(RetryPolicy::exponential(5, 10 * SECOND)).message_timeout(SECOND);
        let report = Hand::new(drain.into_future()).finish_by(&clock).expect("the fourth is well");
        let late = if how == "timeout" { 1 } else { 0 };
        let wanted = [(1, 0, 0), (2, 10 + late, 2), (3, 30 + 2 * late, 4), (4, 70 + 3 * late, 6)];
        assert_eq!(at.take(), wanted, "{how}");
        assert_eq!((report.handled(), report.failed(), report.attempts()), (1, 0, 4));
        assert_settled(&report);
        assert_eq!(ledger.undone(), [11, 10, 21, 20, 31, 30]);
        assert!(!context.scope().has_actions(), "success has cleared the rest");
    }
}

// Rule 3.10
#[test]
fn only_the_last_failure_counts() {
    for mode in 0..3 {
        let ((context, clock), letters) = (manual("t"), Log::default());
        let drain = fan_in(&context, [filled([1])], async |_: u32, step: StepContext| {
            Err::<(), _>(format!("attempt {}", step.attempt()))
        });
        let drain = drain.retry(RetryPolicy::fixed(3, SECOND));
        let mut drain = Hand::new(match mode {
            0 => drain.into_future().boxed_local(),
            1 => drain.on_failure(OnFailure::Continue).into_future().boxed_local(),
            _ => {
                let store = async |letter: Letter<u32>| {
                    letters.push((letter.attempts(), format!("{:#}", letter.error())));
                };
                drain.dead_letters(store).into_future().boxed_local()
            }
        });
        let ended = drain.finish_by(&clock);
        let report = report(&ended);
        assert_eq!((report.failed(), report.attempts(), report.taken()), (1, 3, 1));
        assert_settled(report);
        if let Err(failure) = &ended {
            assert_eq!(mode, 0);
            assert!(format!("{:#}", failure.error()).contains("attempt 3"));
            assert_eq!(failure.error().related_total(), 0);
        }
        if mode == 2 {
            let (attempts, error) = letters.take().remove(0);
            assert!(attempts == 3 && error.contains("attempt 3"), "{attempts}: {error}");
        }
    }
}

// Rule 3.10
#[test]
fn a_retry_that_waits_holds_no_permit_and_its_source_or_key_waits_with_it() {
    for order in 0..4 {
        let ((context, clock), handled) = (manual("t"), Log::default());
        let sources = [filled([1, 11, 2]), filled([21, 3])];
        let drain = fan_in(&context, sources, async |message: u32, step: StepContext| {
            if message == 1 && step.attempt() < 3 {
                return Err("not yet");
            }
            handled.push(message);
            Ok(())
        });
        let drain = drain.retry(RetryPolicy::fixed(3, SECOND));
        let key = |message: &u32| message % 10;
        let mut drain = Hand::new(in_order!(order, drain, key));
        assert!(drain.run().is_pending());
        let mut meanwhile = handled.take();
        meanwhile.sort_unstable();
        let wanted = match order {
            0 => vec![3, 21],
            1 => vec![2, 3, 11, 21],
            // Key 1 is busy with the first message, and 2 is behind 11, which is held.
            2 => vec![3, 21],
            _ => vec![],
        };
        // In order over all sources 21 is held as well, so its source stops before 3.
        assert_eq!(meanwhile, wanted, "order {order}");
        drain.finish_by(&clock).expect("no failure");
        let rest = handled.take();
        let at = |message| rest.iter().position(|other| *other == message);
        if order != 1 {
            assert!(at(1) < at(11), "order {order}: {rest:?}");
        }
    }
}

// Rule 3.10
#[test]
fn beyond_max_waiting_a_failed_message_keeps_its_permit_and_changes_places_with_one_that_is_due() {
    let ((context, clock), progress) = (manual("t"), Progress::new());
    let attempts = Log::default();
    let drain =
        fan_in(&context, [stream::iter(0..100)], async |message: u32, step: StepContext| {
            attempts.push((message, step.attempt()));
            if step.attempt() < 2 { Err("not yet") } else { Ok(()) }
        });
    let drain = drain.unordered().concurrency(4).max_waiting(6).progress(&progress);
    let mut drain = Hand::new(drain.retry(RetryPolicy::fixed(2, 10 * SECOND)).into_future());
    assert!(drain.run().is_pending());
    let now = progress.report();
    assert_adds_up(&now);
    // Six wait, and four keep their permits; nothing more is taken.
    assert_eq!(now.taken(), 10, "{now:?}");
    assert_eq!(now.waiting() + now.in_flight(), 10, "{now:?}");
    let told = now.warnings().iter().any(|warning| warning.option() == "max_waiting");
    assert!(told, "progress says that all permits are kept: {:?}", now.warnings());
    clock.advance(10 * SECOND);
    assert!(drain.run().is_pending());
    let now = progress.report();
    assert!(now.handled() >= 10, "those that are due have their attempt: {now:?}");
    assert_adds_up(&now);
    let report = drain.finish_by(&clock).expect("no failure");
    assert_eq!((report.handled(), report.attempts()), (100, 200));
    assert_settled(&report);
}

// Rule 3.10
#[test]
fn however_many_change_places_the_number_of_those_that_wait_is_bounded() {
    for order in 0..4 {
        let ((context, clock), progress) = (manual("t"), Progress::new());
        let (most, looks) = (Cell::new(0), Cell::new(0));
        let look = || {
            most.set(progress.report().waiting().max(most.get()));
            looks.set(looks.get() + 1);
        };
        let sources = (0..8).map(|source| stream::iter(source * 2_000..(source + 1) * 2_000));
        let drain = fan_in(&context, sources, async |message: u32, step: StepContext| {
            look();
            yields(usize::from(message % 8 == 3)).await;
            if step.attempt() == 1 { Err("once") } else { Ok(()) }
        });
        let policy = RetryPolicy::fixed(2, SECOND);
        let drain = drain.concurrency(16).max_waiting(4).retry(policy).progress(&progress);
        let key = |message: &u32| message / 4;
        let mut drain = Hand::new(in_order!(order, drain, key));
        let report = drain.finish_by(&clock).expect("each succeeds at its second attempt");
        assert_eq!((report.handled(), looks.get()), (16_000, 32_000));
        // Those that kept a permit and are due wait for their turn, as any message does, while others
        // that begin meanwhile may fail, too.
        assert!(most.get() <= 4 + 2 * 16, "{} wait, order {order}", most.get());
    }
}

// Rule 3.10
#[test]
fn a_crowd_of_1024_waits_at_once_where_nothing_else_is_said() {
    let ((context, clock), progress) = (manual("t"), Progress::new());
    let drain = fan_in(&context, [stream::iter(0..5_000)], async |_: u32, step: StepContext| {
        if step.attempt() < 2 { Err("not yet") } else { Ok(()) }
    });
    let drain = drain.unordered().concurrency(10).progress(&progress);
    let mut drain = Hand::new(drain.retry(RetryPolicy::fixed(2, SECOND)).into_future());
    assert!(drain.run().is_pending());
    assert_eq!(progress.report().taken(), 1_034);
    assert_eq!(drain.finish_by(&clock).expect("no failure").handled(), 5_000);
}

// Rules 3.10, 3.9
#[test]
fn an_attempt_that_fails_while_the_drain_stops_is_its_last_and_given_up_as_usual() {
    for ending in [Ending::Shutdown, Ending::Cancelled, Ending::Timeout, Ending::Failure] {
        let (stage, letters, gates) = (Stage::default(), Log::default(), Gates::default());
        let trigger = Fed::open([]);
        let sources = [filled([1]).erased(), trigger.source().erased()];
        let drain = fan_in(&stage.context, sources, async |message: u32, _| {
            if message == 1 {
                gates.wait(()).await;
                return Err("not yet".into());
            }
            heed(message)
        });
        let drain = drain.retry(RetryPolicy::fixed(9, SECOND)).concurrency(3).timeout(DEADLINE);
        let drain = drain.cancellation(stage.stop.token()).shutdown(stage.shutdown.token());
        let drain = drain.dead_letters(async |letter: Letter<u32>| {
            letters.push((letter.attempts(), letter.into_message()));
            // The store fails for the message of the trigger: that is what ends the drain.
            if ending == Ending::Failure { Err("the store is full") } else { Ok(()) }
        });
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        match ending {
            Ending::Shutdown => stage.shutdown.cancel(),
            Ending::Cancelled => stage.stop.cancel(),
            Ending::Timeout => stage.clock.advance(DEADLINE),
            _ => return,
        }
        assert!(drain.run().is_pending());
        gates.open(());
        let ended = drain.finish();
        assert_eq!(ended.is_ok(), ending == Ending::Shutdown);
        let report = report(&ended);
        assert_settled(report);
        assert_eq!((report.attempts(), report.waiting()), (1, 0), "{ending:?}");
        match ending {
            Ending::Shutdown => assert_eq!(letters.take(), [(1, Some(1))], "given up as usual"),
            // 3.5: such a message is no dead letter.
            Ending::Cancelled => assert_eq!(letters.take(), []),
            _ => {}
        }
    }
}

// Rules 3.10, 2.1
#[test]
fn any_end_of_the_drain_ends_the_waiting_at_once_and_it_is_neither_failure_nor_letter() {
    for ending in ENDINGS {
        let (stage, letters) = (Stage::default(), Log::default());
        let sources = [filled(0..50).erased(), stage.trigger().erased()];
        let back = RefCell::new(Vec::new());
        let drain = fan_in(&stage.context, sources, async |message: u32, step: StepContext| {
            if message < 50 && step.attempt() == 1 {
                return Err("not yet".into());
            }
            heed(message)
        });
        let policy = RetryPolicy::fixed(2, 1_000 * SECOND)
            .only_if(|error| format!("{error:#}").contains("not yet"));
        let drain = drain.unordered().retry(policy).concurrency(3).timeout(DEADLINE);
        let drain = drain.cancellation(stage.stop.token()).shutdown(stage.shutdown.token());
        let drain = drain.put_back(|_, message| back.borrow_mut().push(message));
        let letter = async |letter: Letter<u32>| {
            letters.push(letter.into_message());
            Err("the store is full")
        };
        let mut drain = if matches!(ending, Ending::Failure | Ending::Panic) {
            Hand::new(drain.into_future().boxed_local())
        } else {
            Hand::new(drain.dead_letters(letter).into_future().boxed_local())
        };
        assert!(drain.run().is_pending());
        let before = stage.clock.now();
        let ended = stage.end(ending, drain);
        let waited = stage.clock.now().since(before);
        assert!(waited <= DEADLINE, "{ending:?}: at once, not after {waited:?}");
        let mut back = back.into_inner();
        back.sort_unstable();
        assert_eq!(back, (0..50).collect::<Vec<_>>(), "{ending:?}");
        assert_eq!(letters.take(), [], "{ending:?}");
        let Some(ended) = ended else { continue };
        let failed = u64::from(matches!(ending, Ending::Failure | Ending::Panic));
        assert_eq!(
            (report(&ended).put_back(), report(&ended).failed()),
            (50, failed),
            "{ending:?}"
        );
        assert_settled(report(&ended));
    }
}

// Rule 3.10
#[test]
fn where_an_undo_between_two_attempts_fails_for_good_no_further_attempt_is_made() {
    for mode in 0..2 {
        let ((context, clock), tries) = (manual("t"), Log::default());
        let drain = fan_in(&context, [filled([1, 2])], async |message: u32, step: StepContext| {
            tries.push(message);
            if message == 1 {
                step.register_compensation(async || Err("cannot be undone"));
                return Err("the handler's words");
            }
            Ok(())
        });
        let undo = CompensationPolicy::sequential_reverse().retry(RetryPolicy::fixed(3, SECOND));
        let drain = drain.retry(RetryPolicy::fixed(9, SECOND)).message_compensation(undo);
        let drain = if mode == 0 { drain } else { drain.on_failure(OnFailure::Continue) };
        let ended = Hand::new(drain.into_future()).finish_by(&clock);
        assert_eq!((ended.is_ok(), report(&ended).failed()), (mode == 1, 1));
        assert_eq!(tries.take(), if mode == 1 { vec![1, 2] } else { vec![1] });
        assert_settled(report(&ended));
        assert_eq!(context.scope().clear(), 1, "the action stays staged, mode {mode}");
        if let Err(failure) = ended {
            let said = format!("{:#} {:?}", failure.error(), failure.error());
            assert!(said.contains("the handler's words"), "{said}");
        }
    }
}

// Rules 3.10, 2.3
#[test]
fn due_retries_of_an_ordered_source_are_its_messages_and_starve_nobody() {
    let ((context, _clock), order) = (manual("t"), RefCell::new(Vec::new()));
    let stop = CancellationSource::new();
    // The first source has nothing but retries, at once and for ever.
    let sources = [filled([1]).erased(), stream::repeat(2).erased(), stream::repeat(3).erased()];
    let drain = fan_in(&context, sources, async |message: u32, _| {
        order.borrow_mut().push(message);
        if order.borrow().len() == 6_000 {
            stop.cancel();
        }
        if message == 1 { Err("again") } else { Ok(()) }
    });
    let drain = drain.retry(RetryPolicy::fixed(u32::MAX, Duration::ZERO)).quantum(10);
    let mut drain = Hand::new(drain.cancellation(stop.token()).into_future());
    drain.finish().expect_err("cancelled");
    let order = order.borrow();
    let of = |message| order.iter().filter(|other| **other == message).count();
    assert!(of(1) >= 100, "the retry has its turns: {} of 6,000", of(1));
    assert!(of(2) >= 1_000 && of(3) >= 1_000, "{} and {} of 6,000", of(2), of(3));
    let longest = order.chunk_by(|one, other| one == other).map(<[u32]>::len).max();
    assert!(longest <= Some(10), "a turn of {longest:?}");
}

// Rules 3.10, 3.7
#[test]
fn a_policy_and_a_clone_that_panic_fail_the_message_and_nothing_else() {
    #[derive(Debug)]
    struct Fragile(u32);
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert!(self.0 != 1, "the clone");
            Self(self.0)
        }
    }
    let (context, clock) = manual("t");
    let drain =
        fan_in(&context, [filled([Fragile(1), Fragile(2)])], async |message: Fragile, _| {
            if message.0 == 2 { Ok(()) } else { Err("fails") }
        });
    let drain = drain.retry(RetryPolicy::fixed(2, SECOND)).on_failure(OnFailure::Continue);
    let report = Hand::new(drain.into_future()).finish_by(&clock).expect("it goes on");
    assert_eq!((report.handled(), report.failed()), (1, 1), "{report:?}");
    assert_settled(&report);

    let policy = RetryPolicy::custom(|_| panic!("the policy"));
    let drain =
        fan_in(
            &context,
            [filled([1, 2])],
            async |message, _| {
                if message == 2 { Ok(()) } else { Err("fails") }
            },
        );
    let drain = drain.retry(policy).on_failure(OnFailure::Continue);
    let report = Hand::new(drain.into_future()).finish_by(&clock).expect("it goes on");
    assert_eq!((report.handled(), report.failed()), (1, 1));
}

// Rule 3.11
#[test]
fn later_undoes_and_waits_but_is_no_failure_and_costs_no_attempt() {
    for order in 0..3 {
        let ((context, clock), ledger) = (manual("t"), Ledger::default());
        let (at, calls) = (Log::default(), Cell::new(0));
        let drain = fan_in(&context, [filled([1])], async |_: u32, step: StepContext| {
            calls.set(calls.get() + 1);
            at.push((calls.get(), step.attempt(), seconds(&clock), ledger.undone().len()));
            ledger.apply(&step, calls.get());
            match calls.get() {
                1 | 2 | 4 => Ok(Answer::Later(100 * SECOND)),
                3 => Err("a failure"),
                _ => Ok(Answer::Done),
            }
        });
        // The cap and the jitter are those of failures.
        let policy = RetryPolicy::exponential(2, 7 * SECOND).cap(7 * SECOND);
        let drain = drain.retry(policy).commit(Commit::Message);
        let mut drain = Hand::new(in_order!(order, drain, |key| *key));
        let report = drain.finish_by(&clock).expect("two attempts are enough");
        let wanted = [(1, 1, 0, 0), (2, 1, 100, 1), (3, 1, 200, 2), (4, 2, 207, 3), (5, 2, 307, 4)];
        assert_eq!(at.take(), wanted, "order {order}");
        assert_eq!((report.handled(), report.failed()), (1, 0));
        assert_settled(&report);
        assert_eq!(ledger.undone(), [1, 2, 3, 4]);
        assert!(!context.scope().has_actions());
    }
}

// Rule 3.11
#[test]
fn later_waits_in_its_source_and_goes_back_at_the_end_as_a_retry_does() {
    for ending in ENDINGS {
        let (stage, back) = (Stage::default(), RefCell::new(Vec::new()));
        let fed = Fed::open([1, 2]);
        let sources = [fed.source().erased(), stage.trigger().erased()];
        let drain = fan_in(&stage.context, sources, async |message: u32, _| {
            heed(message)?;
            Ok::<_, BoxError>(Answer::Later(1_000 * SECOND))
        });
        let policy = RetryPolicy::fixed(1, SECOND);
        let drain = drain.retry(policy).timeout(DEADLINE).cancellation(stage.stop.token());
        let drain = drain.shutdown(stage.shutdown.token());
        let drain = drain.put_back(|_, message| back.borrow_mut().push(message));
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        let ended = stage.end(ending, drain);
        assert_eq!((back.take(), fed.left()), (vec![1], vec![2]), "{ending:?}");
        if let Some(ended) = ended {
            assert_settled(report(&ended));
            assert_eq!(report(&ended).put_back(), 1);
        }
    }
}

// Rule 3.11
#[test]
fn later_fails_where_no_message_is_kept() {
    let context = StepContext::new("t");
    let drain =
        fan_in(&context, [filled([1])], async |_: u32, _| Ok::<_, BoxError>(Answer::Later(SECOND)));
    let failure = Hand::new(drain.into_future()).finish().expect_err("no retry");
    assert_eq!(failure.error().code(), ErrorCode::Validation);
}

// Rules 3.10, 4.1
#[test]
fn what_is_undone_between_attempts_is_undone_once_whatever_comes_then() {
    for ending in ENDINGS {
        let (stage, ledger) = (Stage::default(), Ledger::default());
        let sources = [filled([1]).erased(), filled([2]).erased(), stage.trigger().erased()];
        let drain = fan_in(&stage.context, sources, async |message: u32, step: StepContext| {
            heed(message)?;
            ledger.apply(&step, message * 100 + step.attempt());
            yields(1).await;
            if message == 2 { Ok::<_, BoxError>(()) } else { Err("not yet".into()) }
        });
        let policy = RetryPolicy::fixed(3, 30 * SECOND)
            .only_if(|error| format!("{error:#}").contains("not yet"));
        let drain = drain.retry(policy).timeout(DEADLINE).cancellation(stage.stop.token());
        let drain = drain.shutdown(stage.shutdown.token()).commit(Commit::Never);
        let mut drain = Hand::new(drain.into_future());
        assert!(drain.run().is_pending());
        stage.clock.advance(30 * SECOND);
        assert!(drain.run().is_pending());
        stage.end(ending, drain);
        assert_eq!(roll_back(stage.context.scope()), 1, "{ending:?}");
        let mut undone = ledger.undone();
        undone.sort_unstable();
        assert_eq!(undone, [101, 102, 201], "{ending:?}");
    }
}
