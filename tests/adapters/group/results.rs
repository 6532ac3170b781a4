//! What the tasks of a group come to.

use super::*;
use crate::support::neighbours::ByHand;

// P6
#[test]
fn a_wait_group_absorbs_the_compensations_of_its_tasks() {
    let context = context(&ManualClock::new());
    let (ledger, pool) = (Ledger::default(), ThreadPool::new().expect("threads start"));
    let group = wait_group(&context);
    for effect in 0..4 {
        let ledger = ledger.clone();
        let work = move |step: StepContext| async move {
            ledger.apply(&step, 10 * effect);
            yields(effect as usize % 3).await;
            ledger.apply(&step, 10 * effect + 1);
            Ok::<_, BoxError>(Compensated::new(()).with_compensation(|| async {}))
        };
        if effect % 2 == 0 {
            group.go(None, work).expect("it is open");
        } else {
            group.go_on(&pool, None, work).expect("it is open");
        }
    }
    let report = block_on(closed(&group)).expect("all succeed");
    assert_eq!((report.additions(), report.completions(), report.outstanding()), (4, 4, 0));
    assert_eq!((report.succeeded(), report.failed(), report.dropped()), (4, 0, 0));
    assert_eq!(group.report().succeeded(), 4);
    assert_eq!(roll_back(context.scope()), 12);
    let (mut done, mut undone) = (ledger.done(), ledger.undone());
    done.sort_unstable();
    undone.sort_unstable();
    assert_eq!((done.len(), done), (8, undone));
}

// Rule 4.2
#[test]
fn what_tasks_staged_is_undone_in_reverse_over_all_of_them() {
    let context = context(&ManualClock::new());
    let ledger = Ledger::default();
    let group = wait_group(&context);
    for task in 0..3 {
        let ledger = ledger.clone();
        let work = move |step: StepContext| async move {
            for effect in 0..3 {
                ledger.apply(&step, 10 * task + effect);
                yields(1).await;
            }
            Ok::<_, BoxError>(())
        };
        group.go(None, work).expect("it is open");
    }
    block_on(group.wait()).expect("all succeed");
    assert_eq!(ledger.done()[..4], [0, 10, 20, 1], "they ran at once");
    assert_eq!(roll_back(context.scope()), 9);
    ledger.assert_undone_in_reverse();
}

// P6, P15; PARITY 3.15: the original absorbs nothing when the work throws
#[test]
fn a_task_that_fails_or_panics_keeps_what_it_staged() {
    for waits in [true, false] {
        let context = context(&ManualClock::new());
        let ledger = Ledger::default();
        let work = |effect: u32| {
            let ledger = ledger.clone();
            move |step: StepContext| async move {
                ledger.apply(&step, effect);
                yields(1).await;
                assert_ne!(effect, 2, "two panics");
                Err::<(), BoxError>("no".into())
            }
        };
        let group = if waits { wait_group(&context) } else { err_group(&context) };
        group.go("fails", work(1)).expect("it is open");
        group.go("panics", work(2)).expect("it is open");
        let result = block_on(group.wait());
        let (error, report) = result.expect_err("both fail").into_parts();
        assert_eq!((error.code(), report.failed()), (ErrorCode::Handler, 2));
        assert_eq!(error.related()[0].code(), ErrorCode::Panic);
        assert_eq!(roll_back(context.scope()), 2);
        ledger.assert_undone_in_reverse();
    }
}

// P15
#[test]
fn an_err_group_absorbs_what_its_tasks_bring() {
    let context = context(&ManualClock::new());
    let ledger = Ledger::default();
    let group = err_group(&context);
    let inner = ledger.clone();
    let work = move |step: StepContext| async move {
        inner.apply(&step, 1);
        Ok::<_, BoxError>(Compensated::new(()).with_compensation(|| async {}))
    };
    group.go(None, work).expect("it is open");
    block_on(group.wait()).expect("it succeeds");
    assert_eq!(roll_back(context.scope()), 2);
    ledger.assert_undone_in_reverse();
}

// P6: the child's name
#[test]
fn a_task_has_a_step_of_its_own() {
    let stop = CancellationSource::new();
    let context = context(&ManualClock::new()).with_cancellation(stop.token());
    let names = Mutex::new(Vec::new());
    let waits = wait_group(&context);
    let errs = err_group(&context);
    for name in [Some("mail"), None] {
        let note = |step: StepContext| {
            assert!(step.scope().is_empty() && !step.cancellation().is_cancelled());
            assert_eq!(step.clock().now(), Tick::ZERO, "the context's clock");
            names.lock().expect("no panic").push(step.name().to_owned());
            async { Ok::<_, BoxError>(()) }
        };
        waits.go(name, note).expect("it is open");
        errs.go(name, note).expect("it is open");
    }
    block_on(waits.wait()).expect("all succeed");
    block_on(errs.wait()).expect("all succeed");
    let names = names.lock().expect("no panic");
    assert_eq!(*names, ["mail", "t.waitgroup", "mail", "t.errgroup"]);
}

// A failure of one task of a wait group stops no other, and errors come in the order of `go`.
#[test]
fn a_wait_group_waits_for_all_and_reports_in_the_order_of_addition() {
    let group = wait_group(&context(&ManualClock::new()));
    for (name, pause, fails) in
        [("a", 2, false), ("b", 3, true), ("c", 0, true), ("d", 5, false), ("e", 1, true)]
    {
        let work = move |step: StepContext| async move {
            yields(pause).await;
            assert!(!step.cancellation().is_cancelled());
            if fails { Err("no") } else { Ok(()) }
        };
        group.go(name, work).expect("it is open");
    }
    let (error, report) = block_on(group.wait()).expect_err("three fail").into_parts();
    assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Handler, Some("b")));
    assert_eq!(tasks(error.related()), ["c", "e"]);
    assert_eq!(report.succeeded(), 2);
    assert_eq!(report.failed(), 3);
    assert_eq!((report.dropped(), report.outstanding()), (0, 0));
}

// P51
#[test]
fn the_first_failure_of_an_err_group_cancels_the_rest_before_compensation() {
    let context = context(&ManualClock::new());
    let events = Mutex::new(Vec::new());
    let log = |event: &'static str| events.lock().expect("no panic").push(event);
    let undone = Arc::new(Mutex::new(Vec::new()));
    let group = err_group(&context).roll_back(CompensationPolicy::sequential_reverse());
    for (name, pause) in [("slow", 9), ("first", 2), ("second", 3)] {
        let (log, undone) = (&log, Arc::clone(&undone));
        let work = move |step: StepContext| async move {
            step.register_compensation_with(undone, move |undone| async move {
                undone.lock().expect("no panic").push(name);
            });
            if name == "slow" {
                step.cancellation().cancelled().await;
                log("slow was told");
                return Ok(());
            }
            yields(pause).await;
            log(name);
            Err::<_, BoxError>(name.into())
        };
        group.go(name, work).expect("it is open");
    }
    let mut wait = group.wait();
    let error = loop {
        if !events.lock().expect("no panic").contains(&"second") {
            assert_eq!(*undone.lock().expect("no panic"), [""; 0], "all have ended first");
        }
        if let Some(result) = poll_times(&mut wait, 1) {
            break result.expect_err("two fail").into_error();
        }
    };
    assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Handler, Some("first")));
    assert_eq!(tasks(error.related()), ["second"]);
    assert_eq!(*events.lock().expect("no panic"), ["first", "slow was told", "second"]);
    assert_eq!(*undone.lock().expect("no panic"), ["second", "first", "slow"]);
    assert!(context.scope().is_empty());
}

// P51: the error of the first in time, not of the first that was added
#[test]
fn the_others_are_related_in_the_order_of_addition() {
    let group = err_group(&context(&ManualClock::new()));
    for (name, pause) in [("a", 4), ("b", 3), ("c", 1), ("d", 2)] {
        let work = move |_| async move {
            yields(pause).await;
            Err::<(), BoxError>("no".into())
        };
        group.go(name, work).expect("it is open");
    }
    let error = block_on(group.wait()).expect_err("all fail").into_error();
    assert_eq!(error.metadata("task"), Some("c"));
    assert_eq!(tasks(error.related()), ["a", "b", "d"]);
}

// Rule 2.1 of tasks: what has not begun does not begin
#[test]
fn a_task_that_has_not_begun_when_the_group_stops_does_not_begin() {
    let begun = AtomicU32::new(0);
    let group = err_group(&context(&ManualClock::new()));
    let spawner = ByHand::default();
    group.go("fails", |_| async { Err::<(), BoxError>("no".into()) }).expect("it is open");
    for _ in 0..2 {
        let work = |_| async {
            begun.fetch_add(1, Ordering::Relaxed);
            Ok::<_, BoxError>(())
        };
        group.go(None, work).expect("it is open");
    }
    let work = |_| async { unreachable!("it must not begin") as Result<(), BoxError> };
    group.go_on(&spawner, None, work).expect("it is open");
    let mut wait = group.clone().wait();
    assert!(poll_times(&mut wait, 3).is_none(), "one is with its executor");
    group.go(None, |_| never()).expect("it is still open");
    spawner.turn();
    let (_, report) =
        poll_times(&mut wait, 1).expect("it is over").expect_err("one failed").into_parts();
    assert_eq!((report.failed(), report.dropped()), (1, 4));
    assert_eq!(begun.load(Ordering::Relaxed), 0);
}

// P52
#[test]
fn a_panic_is_a_structured_error() {
    let group = err_group(&context(&ManualClock::new()));
    let pool = ThreadPool::new().expect("threads start");
    let work = |_| async { panic!("no more") as Result<(), BoxError> };
    group.go_on(&pool, "spawned", work).expect("it is open");
    let error = block_on(group.wait()).expect_err("it panicked").into_error();
    assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Panic, Some("spawned")));
    assert_eq!(error.to_string(), "the task panicked: no more");

    let group = wait_group(&context(&ManualClock::new()));
    let call = |_| -> std::future::Ready<Result<(), BoxError>> { panic!("at the call") };
    group.go("in place", call).expect("it is open");
    let error = block_on(group.wait()).expect_err("it panicked").into_error();
    assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Panic, Some("in place")));
}

// P53, rule 3.5
#[test]
fn a_group_is_cancelled_when_its_linked_token_is() {
    for errs in [true, false] {
        for before in [true, false] {
            let stop = CancellationSource::new();
            let context = context(&ManualClock::new()).with_cancellation(stop.token());
            let ledger = Ledger::default();
            let group = if errs { err_group(&context) } else { wait_group(&context) };
            for fails in [false, true] {
                let ledger = ledger.clone();
                let work = move |step: StepContext| async move {
                    ledger.apply(&step, 1);
                    step.cancellation().cancelled().await;
                    if fails { Err("was told") } else { Ok(()) }
                };
                group.go("a", work).expect("it is open");
            }
            let mut wait = group.wait();
            if !before {
                assert!(poll_times(&mut wait, 2).is_none());
            }
            stop.cancel();
            let (error, report) =
                poll_times(&mut wait, 3).expect("it is over").expect_err("cancelled").into_parts();
            assert_eq!(error.code(), ErrorCode::Canceled);
            if before {
                assert_eq!(report.dropped(), 2);
                assert_eq!(ledger.done(), [], "nothing has begun");
            } else {
                assert_eq!(tasks(error.related()), ["a"]);
                assert_eq!(report.succeeded(), 1);
                assert_eq!(roll_back(context.scope()), 2);
            }
        }
    }
}

// P53: what a task on an executor answers to a cancellation does not hide it
#[test]
fn a_spawned_task_that_fails_because_of_the_token_is_not_the_cause() {
    let stop = CancellationSource::new();
    let context = context(&ManualClock::new()).with_cancellation(stop.token());
    let (group, spawner) = (err_group(&context), ByHand::default());
    let work = |step: StepContext| async move {
        step.cancellation().cancelled().await;
        Err::<(), BoxError>("was told".into())
    };
    group.go_on(&spawner, "a", work).expect("it is open");
    spawner.turn();
    stop.cancel();
    spawner.turn();
    let error = block_on(group.wait()).expect_err("cancelled").into_error();
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert_eq!(tasks(error.related()), ["a"]);
}

// P54
#[test]
fn a_manual_cancel_does_not_overwrite_an_error() {
    let group = err_group(&context(&ManualClock::new()));
    let deaf = |_| async {
        yields(5).await;
        Ok::<_, BoxError>(())
    };
    group.go("deaf", deaf).expect("it is open");
    let fails = |_| async {
        yields(1).await;
        Err::<(), BoxError>("no".into())
    };
    group.go("fails", fails).expect("it is open");
    let mut wait = closed(&group);
    while group.report().failed() == 0 {
        assert!(poll_times(&mut wait, 1).is_none());
    }
    group.cancel();
    let error = poll_times(&mut wait, 9).expect("it is over").expect_err("one failed").into_error();
    assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Handler, Some("fails")));
    assert!(error.related().is_empty());
}

// P54
#[test]
fn a_manual_cancel_is_the_cause_of_what_follows() {
    let group = err_group(&context(&ManualClock::new()));
    let work = |step: StepContext| async move {
        step.cancellation().cancelled().await;
        Err::<(), BoxError>("was told".into())
    };
    group.go("a", work).expect("it is open");
    let mut wait = group.clone().wait();
    assert!(poll_times(&mut wait, 2).is_none());
    group.cancel();
    group.cancel();
    let error = poll_times(&mut wait, 2).expect("it is over").expect_err("cancelled").into_error();
    assert_eq!(error.code(), ErrorCode::Canceled);
    assert_eq!(tasks(error.related()), ["a"]);
    group.cancel();
}

// P55
#[test]
fn a_group_refuses_work_after_its_end() {
    let context = context(&ManualClock::new());
    let (errs, waits) = (err_group(&context), wait_group(&context));
    block_on(closed(&errs)).expect("it is empty");
    block_on(closed(&waits)).expect("it is empty");
    let spawner = ByHand::default();
    for refused in [
        errs.go(None, |_| never()),
        errs.go_on(&spawner, None, |_| never()),
        waits.go(None, |_| never()),
        waits.go_on(&spawner, None, |_| never()),
        block_on(errs.clone().wait()).map(drop).map_err(Error::from),
        block_on(waits.clone().wait()).map(drop).map_err(Error::from),
    ] {
        let error = refused.expect_err("it has ended");
        assert_eq!(error.code(), ErrorCode::Validation);
        assert_eq!(error.to_string(), "the group has ended");
    }
    assert_eq!(waits.report().additions(), 0);
    assert!(spawner.is_idle());
}

#[test]
fn a_second_wait_is_refused_and_harms_nothing() {
    let group = wait_group(&context(&ManualClock::new()));
    let work = |_| async {
        yields(3).await;
        Ok::<_, BoxError>(())
    };
    group.go(None, work).expect("it is open");
    let mut first = group.clone().wait();
    let mut second = group.clone().wait();
    assert!(poll_times(&mut first, 1).is_none());
    let error =
        poll_times(&mut second, 1).expect("it is refused").expect_err("it is refused").into_error();
    assert_eq!(error.code(), ErrorCode::Validation);
    drop(second);
    drop(group.wait());
    assert_eq!(block_on(&mut first).expect("it succeeds").succeeded(), 1);
    let again =
        poll_times(&mut first, 1).expect("it says so").expect_err("it is over").into_error();
    assert_eq!(again.code(), ErrorCode::Unspecified);
}
