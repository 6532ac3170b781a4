//! Groups of tasks: all of them are awaited, and nothing they staged is lost.

#[macro_use]
mod support;

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use futures::executor::ThreadPool;
use futures::task::{FutureObj, Spawn, SpawnError};
use support::{Ledger, block_on, poll_times, roll_back, yields};
use watershed::group::{Group, GroupReport};
use watershed::{
    BoxError, CancellationSource, Clock, Compensated, CompensationPolicy, Error, ErrorCode,
    Failure, ManualClock, OnFailure, RetryPolicy, Sleep, StepContext, Tick, labelled,
};

const SECOND: Duration = Duration::from_secs(1);

fn context(clock: &ManualClock) -> StepContext {
    StepContext::new("t").with_clock(Arc::new(clock.clone()))
}

/// A group that the first failure stops.
fn err_group<'a>(context: &StepContext) -> Group<'a> {
    Group::new(context)
}

/// A group that waits for all.
fn wait_group<'a>(context: &StepContext) -> Group<'a> {
    Group::new(context).on_failure(OnFailure::Continue)
}

/// Waits for a group with the tasks it has; the handle stays, to look at it.
fn closed<'a>(
    group: &Group<'a>,
) -> impl Future<Output = Result<GroupReport, Failure<GroupReport>>> + Send + Unpin + use<'a> {
    group.close();
    group.clone().wait()
}

async fn never() -> Result<(), BoxError> {
    std::future::pending().await
}

/// The names of the tasks whose errors these are.
fn tasks(errors: &[Error]) -> Vec<&str> {
    errors.iter().map(|error| error.metadata("task").unwrap_or("?")).collect()
}

/// An executor that a test runs by hand.
#[derive(Clone, Default)]
struct ByHand(Arc<Mutex<Vec<FutureObj<'static, ()>>>>);

impl ByHand {
    /// Polls every task once and keeps those that are pending.
    fn turn(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().expect("no panic"));
        let mut cx = Context::from_waker(Waker::noop());
        for mut task in tasks {
            if Pin::new(&mut task).poll(&mut cx).is_pending() {
                self.0.lock().expect("no panic").push(task);
            }
        }
    }

    fn drop_all(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().expect("no panic"));
        drop(tasks);
    }
}

impl Spawn for ByHand {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        self.0.lock().expect("no panic").push(future);
        Ok(())
    }
}

/// An executor that answers in its own way.
struct Answers<A>(A);

impl<A: Fn(FutureObj<'static, ()>) -> Result<(), SpawnError>> Spawn for Answers<A> {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        (self.0)(future)
    }
}

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
    assert!(spawner.0.lock().expect("no panic").is_empty());
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

// Rule 2.6
#[test]
fn a_group_without_tasks_succeeds_at_once() {
    let context = context(&ManualClock::new());
    let report = block_on(err_group(&context).wait()).expect("nothing fails");
    assert_eq!(report, watershed::group::GroupReport::default());
    let group = wait_group(&context).timeout(Duration::ZERO);
    let error = block_on(group.wait()).expect_err("zero is over before anything").into_error();
    assert_eq!(error.code(), ErrorCode::Timeout);
}

#[test]
fn tasks_can_be_added_while_the_group_is_awaited() {
    let order = Mutex::new(Vec::new());
    let group = wait_group(&context(&ManualClock::new()));
    let work = |number: u32| {
        let order = &order;
        move |_: StepContext| async move {
            yields(2).await;
            order.lock().expect("no panic").push(number);
            Ok::<_, BoxError>(())
        }
    };
    group.go(None, work(1)).expect("it is open");
    let both = async {
        futures::join!(group.clone().wait(), async move {
            yields(1).await;
            group.go(None, work(2)).expect("it is open");
            yields(1).await;
            group.go(None, work(3)).expect("it is open");
        })
    };
    let (result, ()) = block_on(both);
    assert_eq!(result.expect("all succeed").succeeded(), 3);
    assert_eq!(*order.lock().expect("no panic"), [1, 2, 3]);
}

// A wait that is pending hears of a task that is added later.
#[test]
fn an_addition_wakes_the_wait() {
    let group = wait_group(&context(&ManualClock::new()));
    let (gate, opened) = async_channel::bounded::<()>(1);
    let wait_for = |opened: async_channel::Receiver<()>| {
        move |_: StepContext| async move { opened.recv().await.map_err(BoxError::from) }
    };
    group.go(None, wait_for(opened)).expect("it is open");
    let adder = group.clone();
    let thread = std::thread::spawn(move || {
        adder.go(None, move |_| async move { gate.send(()).await }).expect("it is open");
    });
    assert_eq!(block_on(group.wait()).expect("all succeed").succeeded(), 2);
    thread.join().expect("the thread ends");
}

// A task may add tasks of the same group.
#[test]
fn a_task_can_add_tasks() {
    fn dig(group: &Group<'static>, depth: u32, reached: &Arc<AtomicU32>) {
        let (inner, deepest) = (group.clone(), Arc::clone(reached));
        let work = move |_| async move {
            deepest.fetch_max(depth, Ordering::Relaxed);
            if depth < 300 {
                dig(&inner, depth + 1, &deepest);
            }
            Ok::<_, BoxError>(())
        };
        group.go(None, work).expect("it is open");
    }
    let group = wait_group(&context(&ManualClock::new()));
    let reached = Arc::new(AtomicU32::new(0));
    dig(&group, 1, &reached);
    assert_eq!(block_on(group.wait()).expect("all succeed").succeeded(), 300);
    assert_eq!((reached.load(Ordering::Relaxed), Arc::strong_count(&reached)), (300, 1));
}

// Rule 3.3
#[test]
fn a_timeout_of_zero_begins_no_task() {
    let context = context(&ManualClock::new());
    let (errs, waits) = (err_group(&context), wait_group(&context));
    let (errs, waits) = (errs.timeout(Duration::ZERO), waits.timeout(Duration::ZERO));
    let work = |_| async { unreachable!("it must not begin") as Result<(), BoxError> };
    errs.go(None, work).expect("it is open");
    waits.go(None, work).expect("it is open");
    for wait in [errs.wait(), waits.wait()] {
        let (error, report) = block_on(wait).expect_err("it timed out").into_parts();
        assert_eq!((error.code(), error.metadata("duration")), (ErrorCode::Timeout, Some("0ns")));
        assert_eq!(report.dropped(), 1);
        assert_eq!(error.to_string(), "the group was not done within 0ns");
    }
}

// Rules 3.3, 3.6
#[test]
fn a_timeout_tells_the_tasks_and_waits_for_them_however_long() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let (gate, opened) = async_channel::bounded::<()>(1);
    let group = wait_group(&context).timeout(10 * SECOND);
    let work = |step: StepContext| async move {
        step.cancellation().cancelled().await;
        step.register_compensation(|| async {});
        opened.recv().await.map_err(|_| "closed")
    };
    group.go("a", work).expect("it is open");
    clock.advance(100 * SECOND);
    let mut wait = group.wait();
    assert!(poll_times(&mut wait, 3).is_none());
    clock.advance(9 * SECOND);
    assert!(poll_times(&mut wait, 3).is_none(), "it counts from the first poll");
    clock.advance(SECOND);
    assert!(poll_times(&mut wait, 3).is_none(), "the task is awaited");
    clock.advance(1_000_000 * SECOND);
    assert!(poll_times(&mut wait, 3).is_none());
    gate.close();
    let (error, report) =
        poll_times(&mut wait, 3).expect("it is over").expect_err("it timed out").into_parts();
    assert_eq!((error.code(), error.metadata("duration")), (ErrorCode::Timeout, Some("10s")));
    assert_eq!((report.dropped(), tasks(error.related())), (0, vec!["a"]));
    assert_eq!((clock.sleepers(), roll_back(context.scope())), (0, 1));
}

// Rule 3.3
#[test]
fn a_timeout_without_end_never_fires_and_a_result_in_time_counts() {
    let clock = ManualClock::new();
    let (gate, opened) = async_channel::bounded::<()>(1);
    let group = wait_group(&context(&clock)).timeout(Duration::MAX).grace(Duration::ZERO);
    group.go(None, |_| async move { opened.recv().await }).expect("it is open");
    let mut wait = group.wait();
    assert!(poll_times(&mut wait, 2).is_none());
    clock.set(Tick::MAX);
    assert!(poll_times(&mut wait, 2).is_none());
    gate.try_send(()).expect("there is room");
    assert!(poll_times(&mut wait, 2).expect("it is over").is_ok());

    let clock = ManualClock::new();
    let (group, spawner) = (wait_group(&context(&clock)).timeout(SECOND), ByHand::default());
    group.go_on(&spawner, None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    let mut wait = group.wait();
    assert!(poll_times(&mut wait, 1).is_none());
    spawner.turn();
    clock.advance(9 * SECOND);
    assert!(poll_times(&mut wait, 1).expect("it is over").is_ok(), "however late the poll");
}

// Rule 3.6
#[test]
fn tasks_in_flight_when_the_grace_ends_are_dropped_and_counted() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let ledger = Ledger::default();
    let group = err_group(&context).grace(3 * SECOND);
    for task in 0..4 {
        let ledger = ledger.clone();
        let work = move |step: StepContext| async move {
            ledger.apply(&step, task);
            yields(1).await;
            match task {
                0 => Err("no".into()),
                1 => Ok(()),
                _ => never().await,
            }
        };
        group.go(None, work).expect("it is open");
    }
    let mut wait = group.wait();
    assert!(poll_times(&mut wait, 5).is_none());
    clock.advance(2 * SECOND);
    assert!(poll_times(&mut wait, 5).is_none());
    clock.advance(SECOND);
    let (error, report) =
        poll_times(&mut wait, 1).expect("it is over").expect_err("one failed").into_parts();
    assert_eq!((error.code(), report.succeeded()), (ErrorCode::Handler, 1));
    assert_eq!((report.failed(), report.dropped()), (1, 2));
    assert_eq!(report.outstanding(), 0);
    assert_eq!((clock.sleepers(), roll_back(context.scope())), (0, 4));
    ledger.assert_undone_in_reverse();
}

// Rule 3.6
#[test]
fn a_task_on_an_executor_is_dropped_there_after_the_grace() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let ledger = Ledger::default();
    let (group, spawner) = (wait_group(&context), ByHand::default());
    let group = group.timeout(SECOND).grace(SECOND);
    let inner = ledger.clone();
    let work = |step: StepContext| async move {
        inner.apply(&step, 1);
        never().await
    };
    group.go_on(&spawner, "deaf", work).expect("it is open");
    spawner.turn();
    let mut wait = closed(&group);
    for _ in 0..2 {
        assert!(poll_times(&mut wait, 2).is_none());
        clock.advance(SECOND);
    }
    let (error, report) =
        poll_times(&mut wait, 1).expect("it is over").expect_err("it timed out").into_parts();
    assert_eq!((error.code(), report.outstanding()), (ErrorCode::Timeout, 1));
    assert_eq!((report.dropped(), group.report().outstanding()), (0, 1));
    assert!(context.scope().is_empty(), "it still runs");
    spawner.turn();
    assert!(spawner.0.lock().expect("no panic").is_empty(), "it was dropped");
    assert_eq!((group.report().dropped(), roll_back(context.scope())), (1, 1));
    ledger.assert_undone_in_reverse();
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("bomb");
    }
}

async fn never_with_a_bomb() -> Result<(), BoxError> {
    let bomb = Bomb;
    let result = never().await;
    drop(bomb);
    result
}

// Rule 3.7
#[test]
fn a_dropped_task_whose_destructor_panics_is_attached() {
    let clock = ManualClock::new();
    let group = wait_group(&context(&clock)).timeout(SECOND).grace(Duration::ZERO);
    group.go("a", |_| never()).expect("it is open");
    group.go("b", |_| never_with_a_bomb()).expect("it is open");
    let mut wait = group.wait();
    assert!(poll_times(&mut wait, 1).is_none());
    clock.advance(SECOND);
    let (error, report) =
        poll_times(&mut wait, 1).expect("it is over").expect_err("it timed out").into_parts();
    assert_eq!((error.code(), report.dropped()), (ErrorCode::Timeout, 2));
    assert_eq!(tasks(error.related()), ["b"]);
    assert_eq!(error.related()[0].code(), ErrorCode::Panic);
}

// Rule 2.4: PARITY 3.8
#[test]
fn tasks_that_wake_themselves_for_ever_starve_nobody() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let group = err_group(&context).timeout(SECOND).grace(SECOND);
    for _ in 0..3 {
        let clock = clock.clone();
        let work = move |_| async move {
            loop {
                clock.advance(Duration::from_millis(1));
                yields(1).await;
            }
            #[allow(unreachable_code, reason = "it names the type")]
            Ok::<(), BoxError>(())
        };
        group.go(None, work).expect("it is open");
    }
    let (error, report) = block_on(group.wait()).expect_err("it timed out").into_parts();
    assert_eq!((error.code(), report.dropped()), (ErrorCode::Timeout, 3));
}

// Rule 2.4
#[test]
fn many_tasks_hand_the_thread_back() {
    let group = wait_group(&context(&ManualClock::new()));
    for _ in 0..1000 {
        group.go(None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    }
    let mut wait = closed(&group);
    let mut polls = 1;
    while poll_times(&mut wait, 1).is_none() {
        polls += 1;
        let ended = group.report().completions();
        assert!(ended <= 128 * polls, "{ended} after {polls} polls");
    }
    assert!(polls >= 8, "{polls} polls");
    assert_eq!(group.report().succeeded(), 1000);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicU32);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_wait_is_woken_by_what_concerns_it_and_by_nothing_else() {
    let group = wait_group(&context(&ManualClock::new()));
    let spawner = ByHand::default();
    group.go_on(&spawner, None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    group.go(None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    group.go(None, |_| never()).expect("it is open");
    let mut wait = group.clone().wait();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut poll = || Pin::new(&mut wait).poll(&mut Context::from_waker(&waker));
    // The first polls begin the tasks; merging them may ask for one more.
    assert!(poll().is_pending() && poll().is_pending());
    let before = count.0.load(Ordering::Relaxed);
    let woken = || count.0.load(Ordering::Relaxed) - before;
    assert!(poll().is_pending());
    assert_eq!(woken(), 0);
    spawner.turn();
    assert_eq!(woken(), 1, "by the end of a task on an executor");
    assert!(poll().is_pending());
    assert_eq!(woken(), 1);
    group.go(None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    assert_eq!(woken(), 2, "by an addition");
    assert!(poll().is_pending());
    assert_eq!(group.report().succeeded(), 3);
}

// Whoever is woken by the end of a task finds its compensations in place.
#[test]
fn a_task_hands_over_before_it_posts() {
    struct Look(StepContext, Mutex<Vec<usize>>);
    impl std::task::Wake for Look {
        fn wake(self: Arc<Self>) {
            self.1.lock().expect("no panic").push(self.0.scope().len());
        }
    }
    let context = context(&ManualClock::new());
    let (group, spawner) = (wait_group(&context), ByHand::default());
    for ends in [true, false] {
        let work = move |step: StepContext| async move {
            step.register_compensation(|| async {});
            if ends { Ok(()) } else { never().await }
        };
        group.go_on(&spawner, None, work).expect("it is open");
    }
    let mut wait = group.wait();
    let look = Arc::new(Look(context.clone(), Mutex::default()));
    let waker = Waker::from(Arc::clone(&look));
    assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
    spawner.turn();
    assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
    spawner.drop_all();
    assert_eq!(*look.1.lock().expect("no panic"), [1, 2]);
    block_on(wait).expect_err("one was dropped");
    assert_eq!(roll_back(context.scope()), 2);
}

// Spawn failures: the caller hears of it, the group does not.
#[test]
fn an_executor_that_takes_no_task_is_an_error_of_the_call() {
    let context = context(&ManualClock::new());
    let refuses = Answers(|_| Err(SpawnError::shutdown()));
    let panics = Answers(|_| panic!("no runtime"));
    let (errs, waits) = (err_group(&context), wait_group(&context));
    for error in [
        errs.go_on(&refuses, "a", |_| never()).expect_err("it is refused"),
        waits.go_on(&refuses, "a", |_| never_with_a_bomb()).expect_err("it is refused"),
    ] {
        assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Unspecified, Some("a")));
        assert!(error.downcast_ref::<SpawnError>().is_some_and(SpawnError::is_shutdown));
    }
    let error = errs.go_on(&panics, "a", |_| never()).expect_err("it panics");
    assert_eq!(error.code(), ErrorCode::Panic);
    assert!(error.to_string().contains("no runtime"));
    assert_eq!(errs.report().additions(), 0);
    block_on(errs.wait()).expect("nothing was added");
    block_on(waits.wait()).expect("nothing was added");
}

// A refusal ends a wait that was pending for the answer alone.
#[test]
fn a_refused_task_is_not_waited_for() {
    let group = wait_group(&context(&ManualClock::new()));
    let polled = Mutex::new(None);
    let refuses = Answers(|_| {
        let mut wait = pin!(group.clone().wait());
        *polled.lock().expect("no panic") = Some(poll_times(&mut wait, 3).is_some());
        Err(SpawnError::shutdown())
    });
    group.go_on(&refuses, "a", |_| never()).expect_err("it is refused");
    assert_eq!(*polled.lock().expect("no panic"), Some(false), "the answer is still to come");
    assert_eq!(group.report().outstanding(), 0);
}

#[test]
fn a_task_that_its_executor_drops_is_reported_and_its_compensations_are_kept() {
    for errs in [true, false] {
        let context = context(&ManualClock::new());
        let ledger = Ledger::default();
        let spawner = ByHand::default();
        let group = if errs { err_group(&context) } else { wait_group(&context) };
        let inner = ledger.clone();
        let work = |step: StepContext| async move {
            inner.apply(&step, 1);
            never_with_a_bomb().await
        };
        let went = group.go_on(&spawner, "lost", work);
        went.expect("it is open");
        let mut wait = group.wait();
        spawner.turn();
        assert!(poll_times(&mut wait, 1).is_none());
        spawner.drop_all();
        let (error, report) =
            poll_times(&mut wait, 1).expect("it is over").expect_err("it was dropped").into_parts();
        assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Canceled, Some("lost")));
        assert_eq!(error.to_string(), "the executor dropped the task");
        assert_eq!(error.related()[0].code(), ErrorCode::Panic, "its destructor did");
        assert_eq!((report.failed(), roll_back(context.scope())), (1, 1));
        ledger.assert_undone_in_reverse();
    }
}

// An executor may drop or run a task before it has answered.
#[test]
fn the_answer_of_an_executor_may_come_after_the_end_of_the_task() {
    let context = context(&ManualClock::new());
    let group = wait_group(&context);
    let drops = Answers(|task| {
        drop(task);
        Ok(())
    });
    let runs = Answers(|task| {
        futures::executor::block_on(task);
        Ok(())
    });
    let runs_and_refuses = Answers(|task| {
        futures::executor::block_on(task);
        Err(SpawnError::shutdown())
    });
    group.go_on(&drops, "dropped", |_| never()).expect("it was taken");
    let work = |step: StepContext| async move {
        step.register_compensation(|| async {});
        Ok::<_, BoxError>(())
    };
    group.go_on(&runs, "ran", work).expect("it was taken");
    group.go_on(&runs_and_refuses, "ran all the same", work).expect_err("it was refused");
    let (error, report) = block_on(closed(&group)).expect_err("one was dropped").into_parts();
    assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Canceled, Some("dropped")));
    assert_eq!(report.succeeded(), 2);
    assert_eq!((group.report().additions(), group.report().completions()), (3, 3));
    assert_eq!(roll_back(context.scope()), 2);
}

// Rules 4.4, 4.6
#[test]
fn a_rollback_of_a_group_attaches_what_failed_and_leaves_it_staged() {
    let context = context(&ManualClock::new());
    let ledger = Ledger::default();
    ledger.apply(&context, 0);
    let group = err_group(&context).roll_back(CompensationPolicy::sequential_reverse());
    let inner = ledger.clone();
    let work = |step: StepContext| async move {
        inner.apply(&step, 1);
        step.register_compensation(labelled("refund", || async { Err("closed") }));
        inner.apply(&step, 2);
        Err::<(), BoxError>("no".into())
    };
    group.go("a", work).expect("it is open");
    let error = block_on(group.wait()).expect_err("it fails").into_error();
    assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Handler, Some("a")));
    assert_eq!(error.related()[0].code(), ErrorCode::Compensation);
    assert_eq!(error.related()[0].related()[0].metadata("label"), Some("refund"));
    assert_eq!(ledger.undone(), [2, 1], "what was staged before is the caller's");
    assert_eq!(context.scope().clear(), 2);
}

// P51: success is not rolled back
#[test]
fn a_group_that_succeeds_rolls_nothing_back() {
    let context = context(&ManualClock::new());
    let ledger = Ledger::default();
    let group = err_group(&context).roll_back(CompensationPolicy::parallel());
    let inner = ledger.clone();
    let work = |step: StepContext| async move {
        inner.apply(&step, 1);
        Ok::<_, BoxError>(())
    };
    group.go(None, work).expect("it is open");
    block_on(group.wait()).expect("it succeeds");
    assert_eq!((ledger.undone(), roll_back(context.scope())), (vec![], 1));
}

// Rules 3.3, 3.5: however the group fails
#[test]
fn a_timeout_and_a_cancellation_are_rolled_back_as_well() {
    for cancels in [true, false] {
        let (clock, stop) = (ManualClock::new(), CancellationSource::new());
        let context = context(&clock).with_cancellation(stop.token());
        let ledger = Ledger::default();
        let group = err_group(&context).timeout(SECOND).grace(Duration::ZERO);
        let group = group.roll_back(CompensationPolicy::sequential_reverse());
        let inner = ledger.clone();
        let work = |step: StepContext| async move {
            inner.apply(&step, 1);
            never().await
        };
        group.go(None, work).expect("it is open");
        let mut wait = group.wait();
        assert!(poll_times(&mut wait, 1).is_none());
        if cancels {
            stop.cancel();
        } else {
            clock.advance(SECOND);
        }
        let error =
            poll_times(&mut wait, 3).expect("it is over").expect_err("it ends").into_error();
        let expected = if cancels { ErrorCode::Canceled } else { ErrorCode::Timeout };
        assert_eq!(error.code(), expected);
        ledger.assert_undone_in_reverse();
        assert!(context.scope().is_empty());
    }
}

// Rule 5.4
#[test]
fn a_rollback_of_a_group_is_retried_by_the_clock_of_the_context() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let twice = RetryPolicy::fixed(2, SECOND);
    let policy = CompensationPolicy::sequential_reverse().retry(twice);
    let group = err_group(&context).roll_back(policy);
    let work = |step: StepContext| async move {
        step.register_compensation(|| async { Err("closed") });
        Err::<(), BoxError>("no".into())
    };
    group.go("a", work).expect("it is open");
    let mut wait = group.wait();
    assert!(poll_times(&mut wait, 3).is_none());
    assert!(clock.advance_to_next(), "somebody waits");
    assert!(poll_times(&mut wait, 1).expect("it is over").is_err());
    assert_eq!((clock.now(), context.scope().clear()), (Tick::ZERO + SECOND, 1));
}

// Rule 3.5
#[test]
fn a_group_whose_last_running_task_cancels_it_is_cancelled() {
    let stop = CancellationSource::new();
    let context = context(&ManualClock::new()).with_cancellation(stop.token());
    let group = wait_group(&context);
    let work = |_| async {
        stop.cancel();
        Ok::<_, BoxError>(())
    };
    group.go(None, work).expect("it is open");
    group.go(None, work).expect("it is open");
    let (error, report) = block_on(group.wait()).expect_err("one has not begun").into_parts();
    assert_eq!((error.code(), report.succeeded()), (ErrorCode::Canceled, 1));
    assert_eq!(report.dropped(), 1);
}

// Rule 3.5: the wait never sees the token between the two, as when another thread cancels it.
#[test]
fn a_cancellation_while_the_last_task_ends_is_not_overlooked() {
    for errs in [true, false] {
        for fails in [true, false] {
            let stop = CancellationSource::new();
            let context = context(&ManualClock::new()).with_cancellation(stop.token());
            let group = if errs { err_group(&context) } else { wait_group(&context) };
            let work = |_| async {
                stop.cancel();
                if fails { Err("was told") } else { Ok(()) }
            };
            group.go("a", work).expect("it is open");
            let wait = group.wait();
            let error = block_on(wait)
                .expect_err("it was cancelled before its task had ended")
                .into_error();
            assert_eq!(error.code(), ErrorCode::Canceled);
            assert_eq!(tasks(error.related()), if fails { vec!["a"] } else { vec![] });
        }
    }
}

// A task on an executor may end at any moment of the wait's poll.
#[test]
fn an_end_between_the_look_and_the_wait_is_not_lost() {
    /// Runs the tasks while its sleep is polled, which comes after the look at the board.
    #[derive(Clone)]
    struct Runs(ByHand);
    impl std::fmt::Debug for Runs {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Runs")
        }
    }
    impl Clock for Runs {
        fn now(&self) -> Tick {
            Tick::ZERO
        }
        fn sleep_until(&self, _: Tick) -> Sleep {
            let spawner = self.0.clone();
            Box::pin(std::future::poll_fn(move |_| {
                spawner.turn();
                std::task::Poll::Pending
            }))
        }
    }
    let spawner = ByHand::default();
    let context = StepContext::new("t").with_clock(Arc::new(Runs(spawner.clone())));
    let group = wait_group(&context).timeout(SECOND);
    group.go_on(&spawner, None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    assert_eq!(block_on(group.wait()).expect("it succeeds").succeeded(), 1);
}

// The innermost task is named, and a nested group's counts stay there.
#[test]
fn groups_can_be_nested() {
    let clock = ManualClock::new();
    let context = context(&clock);
    let outer = wait_group(&context);
    let work = |step: StepContext| async move {
        let inner = err_group(&step).grace(Duration::ZERO);
        let fails = |step: StepContext| async move {
            step.register_compensation(|| async {});
            yields(1).await;
            Err::<(), BoxError>("no".into())
        };
        inner.go("deaf", |_| never()).expect("it is open");
        inner.go("inner", fails).expect("it is open");
        inner.wait().await.map(drop)
    };
    outer.go("outer", work).expect("it is open");
    let (error, report) = block_on(outer.wait()).expect_err("it fails").into_parts();
    assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Handler, Some("inner")));
    assert_eq!((report.failed(), report.dropped()), (1, 0));
    assert_eq!(roll_back(context.scope()), 1);
}

// A step that outlives its task stages on the context's scope.
#[test]
fn a_step_that_was_kept_stages_on_the_context() {
    for errs in [true, false] {
        let context = context(&ManualClock::new());
        let kept = Mutex::new(None);
        let group = if errs { err_group(&context) } else { wait_group(&context) };
        let work = |step: StepContext| async {
            *kept.lock().expect("no panic") = Some(step);
            Ok::<_, BoxError>(())
        };
        group.go(None, work).expect("it is open");
        block_on(group.wait()).expect("it succeeds");
        let step = kept.lock().expect("no panic").take().expect("the task ran");
        assert!(!step.cancellation().is_cancelled());
        step.register_compensation(|| async {});
        assert_eq!(roll_back(context.scope()), 1);
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
            Box::pin(std::future::pending())
        }
    }
    for readings in 0..5 {
        let clock = Arc::new(Broken(AtomicU32::new(readings)));
        let context = StepContext::new("t").with_clock(clock);
        let staged = AtomicU32::new(0);
        let group = err_group(&context).timeout(SECOND);
        let work = |step: StepContext| {
            staged.fetch_add(1, Ordering::Relaxed);
            step.register_compensation(|| async {});
            never()
        };
        group.go(None, work).expect("it is open");
        let mut wait = group.wait();
        let error =
            poll_times(&mut wait, 9).expect("it is over").expect_err("it ends").into_error();
        assert_eq!(error.code(), ErrorCode::Panic);
        let staged = staged.load(Ordering::Relaxed) as usize;
        assert_eq!((roll_back(context.scope()), staged), (staged, usize::from(readings > 1)));
    }
}

// Rules 3.7, 4.5
#[test]
fn a_clock_that_panics_hides_no_error() {
    /// It breaks when it is told to.
    #[derive(Debug, Default)]
    struct Breaks(ManualClock, AtomicBool);
    impl Clock for Breaks {
        fn now(&self) -> Tick {
            assert!(!self.1.load(Ordering::Relaxed), "the clock is broken");
            self.0.now()
        }
        fn sleep_until(&self, deadline: Tick) -> Sleep {
            self.0.sleep_until(deadline)
        }
    }
    for rolls_back in [true, false] {
        let clock = Arc::new(Breaks::default());
        let context = StepContext::new("t").with_clock(clock.clone());
        let twice = RetryPolicy::fixed(2, SECOND);
        let policy = CompensationPolicy::default().retry(twice);
        let group = err_group(&context).grace(SECOND);
        let group = if rolls_back { group.roll_back(policy) } else { group };
        let breaks = Arc::clone(&clock);
        let work = move |step: StepContext| async move {
            step.register_compensation(move || {
                breaks.1.store(true, Ordering::Relaxed);
                async { Err("closed") }
            });
            yields(1).await;
            Err::<(), BoxError>("no".into())
        };
        group.go("fails", work).expect("it is open");
        let breaks = Arc::clone(&clock);
        let work = move |_| async move {
            if !rolls_back {
                yields(1).await;
                breaks.1.store(true, Ordering::Relaxed);
                return never().await;
            }
            Ok(())
        };
        group.go("breaks", work).expect("it is open");
        let error = block_on(group.wait()).expect_err("it fails").into_error();
        assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Handler, Some("fails")));
        let mut panicked = error.related()[0].clone();
        if rolls_back {
            // The action has failed by its own error, which the clock's is attached to.
            assert_eq!(panicked.code(), ErrorCode::Compensation);
            panicked = panicked.related()[0].related()[0].clone();
        }
        assert_eq!(panicked.code(), ErrorCode::Panic);
        assert_eq!(context.scope().clear(), 1, "nothing is lost");
    }
}

// Rules 4.1, 4.5: in place and on an executor, failing or not, rolled back or not
#[test]
fn a_wait_may_be_dropped_after_any_poll() {
    let mut drops = 0;
    for (errs, fails) in [(true, true), (true, false), (false, true), (false, false)] {
        for k in 0.. {
            let context = context(&ManualClock::new());
            let ledger = Ledger::default();
            let spawner = ByHand::default();
            let undo = CompensationPolicy::sequential_reverse();
            let group =
                if errs { err_group(&context).roll_back(undo) } else { wait_group(&context) };
            for task in 0..4 {
                let ledger = ledger.clone();
                let work = move |step: StepContext| async move {
                    for effect in 0..3 {
                        ledger.apply_slowly(&step, 10 * task + effect);
                        yields(task as usize % 3).await;
                    }
                    if fails && task == 2 { Err("no") } else { Ok(()) }
                };
                match task {
                    3 => group.go_on(&spawner, None, work),
                    _ => group.go(None, work),
                }
                .expect("it is open");
            }
            let mut wait = group.wait();
            let mut ended = None;
            for _ in 0..k {
                spawner.turn();
                ended = poll_times(&mut wait, 1);
                if ended.is_some() {
                    break;
                }
            }
            drop(wait);
            let in_place_left = ledger.done().iter().filter(|effect| **effect < 30).count();
            let undone_before = ledger.undone().len();
            assert!(context.scope().len() + undone_before >= in_place_left, "poll {k}");
            // The task on the executor ends later, and hands over what it has staged by then.
            for _ in 0..9 {
                spawner.turn();
            }
            roll_back(context.scope());
            let (mut done, mut undone) = (ledger.done(), ledger.undone());
            done.sort_unstable();
            undone.sort_unstable();
            assert_eq!(done, undone, "errs {errs}, fails {fails}, poll {k}");
            drops += 1;
            if let Some(result) = ended {
                assert_eq!(result.is_err(), fails);
                break;
            }
        }
    }
    assert!(drops > 30, "{drops} drops");
}

// Rule 4.1
#[test]
fn a_group_that_is_dropped_tells_its_tasks_and_keeps_what_they_staged() {
    let context = context(&ManualClock::new());
    let (group, spawner) = (err_group(&context), ByHand::default());
    let work = |step: StepContext| async move {
        step.register_compensation(|| async {});
        step.cancellation().cancelled().await;
        step.register_compensation(|| async {});
        Ok::<_, BoxError>(())
    };
    group.go_on(&spawner, None, work).expect("it is open");
    group.go(None, work).expect("it is open");
    spawner.turn();
    drop(group);
    spawner.turn();
    assert!(spawner.0.lock().expect("no panic").is_empty(), "it has ended");
    assert_eq!(roll_back(context.scope()), 2, "the task in place had not begun");
}

// Rule 5.2
async fn all_tasks_are_awaited() {
    let context = StepContext::new("suite");
    let pool = ThreadPool::new().expect("threads start");
    let ledger = Ledger::default();
    let group = wait_group(&context);
    for effect in 0..20 {
        let ledger = ledger.clone();
        let work = move |step: StepContext| async move {
            ledger.apply(&step, effect);
            yields(effect as usize % 4).await;
            Ok::<_, BoxError>(())
        };
        if effect % 2 == 0 {
            group.go(None, work).expect("it is open");
        } else {
            group.go_on(&pool, None, work).expect("it is open");
        }
    }
    assert_eq!(group.wait().await.expect("all succeed").succeeded(), 20);
    assert_eq!((context.scope().clear(), ledger.done().len()), (20, 20));
}

// P51, rule 5.2
async fn the_first_failure_stops_the_others_and_is_rolled_back() {
    let context = StepContext::new("suite");
    let pool = ThreadPool::new().expect("threads start");
    let ledger = Ledger::default();
    let group = err_group(&context).roll_back(CompensationPolicy::sequential_reverse());
    for spawned in [true, false] {
        let ledger = ledger.clone();
        let work = move |step: StepContext| async move {
            ledger.apply(&step, 1);
            step.cancellation().cancelled().await;
            Ok::<_, BoxError>(())
        };
        if spawned { group.go_on(&pool, None, work) } else { group.go(None, work) }
            .expect("it is open");
    }
    let fails = |_| async {
        yields(2).await;
        Err::<(), BoxError>("no".into())
    };
    group.go("fails", fails).expect("it is open");
    let error = group.wait().await.expect_err("one fails").into_error();
    assert_eq!(error.metadata("task"), Some("fails"));
    ledger.assert_undone_in_reverse();
    assert!(context.scope().is_empty());
}

// Rules 3.3, 3.6, 5.2
async fn a_timeout_ends_tasks_that_never_do() {
    let context = StepContext::new("suite");
    let group = wait_group(&context).timeout(Duration::from_millis(2)).grace(Duration::ZERO);
    group.go(None, |_| never()).expect("it is open");
    let (error, report) = group.wait().await.expect_err("it timed out").into_parts();
    assert_eq!((error.code(), report.dropped()), (ErrorCode::Timeout, 1));
}

// Rules 3.5, 5.2
async fn cancellation_from_another_thread_ends_the_group() {
    let stop = CancellationSource::new();
    let context = StepContext::new("suite").with_cancellation(stop.token());
    let group = err_group(&context);
    let work = |step: StepContext| async move {
        step.cancellation().cancelled().await;
        Ok::<_, BoxError>(())
    };
    group.go(None, work).expect("it is open");
    let canceller = std::thread::spawn(move || stop.cancel());
    let error = group.wait().await.expect_err("cancelled").into_error();
    assert_eq!(error.code(), ErrorCode::Canceled);
    canceller.join().expect("the thread ends");
}

on_every_executor! {
    all_tasks_are_awaited,
    the_first_failure_stops_the_others_and_is_rolled_back,
    a_timeout_ends_tasks_that_never_do,
    cancellation_from_another_thread_ends_the_group,
}
