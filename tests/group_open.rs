//! Groups: how many tasks run at once, what they return, and when a group is open.

mod support;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use futures::executor::ThreadPool;
use futures::task::{FutureObj, Spawn, SpawnError};
use support::{block_on, poll_times, roll_back, yields};
use watershed::group::Group;
use watershed::{
    BoxError, CancellationSource, Compensated, CompensationPolicy, ErrorCode, ManualClock,
    OnFailure, StepContext,
};

fn context() -> StepContext {
    StepContext::new("t")
}

/// Counts who is there, and who was at most.
#[derive(Clone, Default)]
struct Gauge(Arc<(AtomicUsize, AtomicUsize)>);

impl Gauge {
    async fn pass(self, polls: usize) -> Result<(), BoxError> {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        yields(polls).await;
        self.0.0.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// An executor that a test runs by hand.
#[derive(Clone, Default)]
struct ByHand(Arc<Mutex<Vec<FutureObj<'static, ()>>>>);

impl ByHand {
    fn turn(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().expect("no panic"));
        let mut cx = Context::from_waker(Waker::noop());
        for mut task in tasks {
            if Pin::new(&mut task).poll(&mut cx).is_pending() {
                self.0.lock().expect("no panic").push(task);
            }
        }
    }

    /// Drops the task that was given first.
    fn drop_first(&self) {
        let first = self.0.lock().expect("no panic").remove(0);
        drop(first);
    }
}

impl Spawn for ByHand {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        self.0.lock().expect("no panic").push(future);
        Ok(())
    }
}

// Go: errgroup.SetLimit
#[test]
fn at_most_so_many_tasks_run_at_once_in_place_and_on_executors_together() {
    let pool = ThreadPool::new().expect("threads start");
    for limit in [1, 2, 5, 1_000] {
        for on_failure in [OnFailure::Abort, OnFailure::Continue] {
            let gauge = Gauge::default();
            let group = Group::new(&context()).on_failure(on_failure).concurrency(limit);
            for task in 0..60 {
                let gauge = gauge.clone();
                let work = move |_: StepContext| gauge.pass(task % 4);
                if task % 2 == 0 {
                    group.go(None, work).expect("it is open");
                } else {
                    group.go_on(&pool, None, work).expect("it is open");
                }
            }
            assert_eq!(block_on(group.wait()).expect("all succeed").succeeded(), 60);
            assert!(gauge.most() <= limit, "{} of {limit}", gauge.most());
            if limit <= 5 {
                assert_eq!(gauge.most(), limit);
            }
        }
    }
}

#[test]
fn tasks_that_wait_for_room_begin_in_the_order_in_which_they_were_added() {
    let order = Mutex::new(Vec::new());
    let group = Group::new(&context()).concurrency(2);
    for task in 0..50_usize {
        let order = &order;
        let work = move |_| async move {
            order.lock().expect("no panic").push(task);
            yields((task * 7) % 5).await;
            Ok::<_, BoxError>(())
        };
        group.go(None, work).expect("it is open");
    }
    block_on(group.wait()).expect("all succeed");
    assert_eq!(*order.lock().expect("no panic"), (0..50).collect::<Vec<_>>());
}

// Rule 2.2 of tasks
#[test]
fn a_concurrency_of_nothing_is_refused_before_anything_runs() {
    let group = Group::new(&context()).concurrency(0);
    let work = |_| async { unreachable!("it must not begin") as Result<(), BoxError> };
    for refused in [
        group.go(None, work),
        group.try_go(None, work),
        group.go_on(&ByHand::default(), None, work),
        block_on(group.wait()).map(drop).map_err(watershed::Error::from),
    ] {
        let error = refused.expect_err("nothing can run");
        assert_eq!(
            (error.code(), error.to_string()),
            (ErrorCode::Validation, "`concurrency` must not be 0".to_owned())
        );
    }
}

// Go: errgroup.TryGo
#[test]
fn a_task_that_is_only_tried_is_refused_where_there_is_no_room() {
    let spawner = ByHand::default();
    let group = Group::new(&context()).concurrency(2);
    let work = |_| async { Ok::<_, BoxError>(()) };
    group.try_go_on(&spawner, "a", work).expect("there is room");
    group.try_go("b", work).expect("there is room");
    let never = |_| async { unreachable!("it must not begin") as Result<(), BoxError> };
    for refused in [group.try_go("c", never), group.try_go_on(&spawner, "c", never)] {
        assert_eq!(refused.expect_err("it is full").code(), ErrorCode::ChannelFull);
    }
    spawner.turn();
    group.try_go("d", work).expect("one has ended");
    group.go("e", work).expect("it waits for room");
    assert_eq!(group.report().additions(), 4);
    assert_eq!(block_on(group.wait()).expect("all succeed").succeeded(), 4);

    let unlimited = Group::new(&context());
    for _ in 0..1_000 {
        unlimited.try_go(None, work).expect("there is always room");
    }
    assert_eq!(block_on(unlimited.wait()).expect("all succeed").succeeded(), 1_000);
}

// A limit keeps nobody who waits for it from hearing that the group stops.
#[test]
fn tasks_that_wait_for_room_when_the_group_stops_do_not_begin() {
    let pool = ThreadPool::new().expect("threads start");
    for ending in ["failure", "cancel", "context", "timeout", "drop"] {
        let stop = CancellationSource::new();
        let clock = ManualClock::new();
        let context = context().with_cancellation(stop.token());
        let context = context.with_clock(Arc::new(clock.clone()));
        let group = Group::new(&context).concurrency(1).timeout(Duration::from_secs(1));
        let first = move |step: StepContext| async move {
            if ending != "failure" {
                step.cancellation().cancelled().await;
            }
            Err::<(), BoxError>("the first".into())
        };
        group.go("first", first).expect("it is open");
        let begun = Arc::new(AtomicUsize::new(0));
        let door = group.clone();
        let mut wait = group.wait();
        assert!(ending == "failure" || poll_times(&mut wait, 3).is_none());
        for task in 0..10_000 {
            let begun = Arc::clone(&begun);
            let work = move |_| async move {
                begun.fetch_add(1, Ordering::SeqCst);
                Ok::<_, BoxError>(())
            };
            let added = match task % 2 {
                0 => door.go(None, work),
                _ => door.go_on(&pool, None, work),
            };
            added.expect("it is open");
        }
        match ending {
            "cancel" => door.cancel(),
            "context" => stop.cancel_with("the context"),
            "timeout" => clock.advance(Duration::from_secs(1)),
            "drop" => {
                drop(wait);
                while door.report().outstanding() > 0 {
                    std::thread::yield_now();
                }
                assert_eq!(door.report().dropped(), 10_001);
                continue;
            }
            _ => {}
        }
        let failure = block_on(wait).expect_err("it stops");
        let expected = match ending {
            "failure" => ErrorCode::Handler,
            "timeout" => ErrorCode::Timeout,
            _ => ErrorCode::Canceled,
        };
        assert_eq!(failure.error().code(), expected, "{ending}");
        let report = failure.report();
        assert_eq!((report.failed(), report.outstanding()), (1, 0), "{ending}");
        // On the pool one may have begun before the task in place did, which takes its turn then.
        let begun = begun.load(Ordering::SeqCst) as u64;
        assert_eq!(report.dropped() + begun, 10_000, "{ending}");
        assert!(ending == "failure" || begun == 0, "{begun} began after {ending}");
    }
}

// A permit is not lost with whoever has it, or was just given it.
#[test]
fn a_task_that_its_executor_drops_gives_its_permit_on() {
    let spawner = ByHand::default();
    let group = Group::new(&context()).on_failure(OnFailure::Continue).concurrency(1);
    let log = Arc::new(Mutex::new(Vec::new()));
    for task in 0..4 {
        let log = Arc::clone(&log);
        let work = move |_| async move {
            log.lock().expect("no panic").push(task);
            yields(if task < 3 { 1_000 } else { 0 }).await;
            Ok::<_, BoxError>(())
        };
        group.go_on(&spawner, None, work).expect("it is open");
    }
    spawner.turn();
    assert_eq!(*log.lock().expect("no panic"), [0]);
    // The first holds a permit, the second is given it and does not know yet, the third begins.
    spawner.drop_first();
    spawner.drop_first();
    spawner.turn();
    assert_eq!(*log.lock().expect("no panic"), [0, 2]);
    spawner.drop_first();
    spawner.turn();
    assert_eq!(*log.lock().expect("no panic"), [0, 2, 3]);
    let failure = block_on(group.wait()).expect_err("three were dropped");
    assert_eq!((failure.report().failed(), failure.report().succeeded()), (3, 1));
}

// A task in place whose group nobody polls holds up nobody on an executor.
#[test]
fn a_task_that_nobody_polls_holds_no_permit() {
    let spawner = ByHand::default();
    let group = Group::new(&context()).concurrency(1);
    group.go(None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    group.go_on(&spawner, None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    spawner.turn();
    assert_eq!(group.report().succeeded(), 1, "it runs whether or not the group is awaited");
    assert_eq!(block_on(group.wait()).expect("both succeed").succeeded(), 2);
}

#[test]
fn a_limit_that_is_raised_lets_others_begin() {
    let spawner = ByHand::default();
    let gauge = Gauge::default();
    let mut group = Group::new(&context()).concurrency(1);
    for _ in 0..9 {
        let gauge = gauge.clone();
        group.go_on(&spawner, None, |_| gauge.pass(20)).expect("it is open");
    }
    for limit in [1, 4, 2, 6] {
        group = group.concurrency(limit);
        spawner.turn();
        spawner.turn();
    }
    assert_eq!(gauge.most(), 6);
}

// What tasks return, in the order in which they were added
#[test]
fn the_values_of_the_tasks_come_in_the_order_of_their_addition() {
    let pool = ThreadPool::new().expect("threads start");
    let context = context();
    let group = Group::<String>::collecting(&context);
    for task in 0..200_usize {
        let work = move |_| async move {
            yields((task * 31) % 17).await;
            let value = format!("task {task}");
            Ok::<_, BoxError>(Compensated::new(value).with_compensation(|| async {}))
        };
        if task % 3 == 0 {
            group.go_on(&pool, None, work).expect("it is open");
        } else {
            group.go(None, work).expect("it is open");
        }
    }
    let values = block_on(group.wait()).expect("all succeed").into_values();
    assert_eq!(values, (0..200).map(|task| format!("task {task}")).collect::<Vec<_>>());
    assert_eq!(roll_back(context.scope()), 200);
}

// A failure takes no value with it that another task gave
#[test]
fn a_group_that_fails_gives_the_values_of_those_that_succeeded() {
    for on_failure in [OnFailure::Abort, OnFailure::Continue] {
        let group = Group::collecting(&context()).on_failure(on_failure);
        for task in 0..6_u32 {
            let work = move |_| async move {
                yields(6 - task as usize).await;
                if task == 1 { Err("no") } else { Ok(task) }
            };
            group.go(None, work).expect("it is open");
        }
        let (error, report) = block_on(group.wait()).expect_err("one fails").into_parts();
        assert_eq!((error.code(), report.succeeded(), report.failed()), (ErrorCode::Handler, 5, 1));
        assert_eq!(report.into_values(), [0, 2, 3, 4, 5]);
    }
}

/// Counts how many are alive.
#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

// Rule 4.12: values are the user's, and go with their group
#[test]
fn values_that_nobody_takes_are_dropped_with_the_group_and_late_ones_at_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let spawner = ByHand::default();
    let group = Group::collecting(&context()).grace(Duration::ZERO);
    for _ in 0..3 {
        let count = Arc::clone(&count);
        let work = move |_| async move { Ok::<_, BoxError>(Alive::new(&count)) };
        group.go_on(&spawner, None, work).expect("it is open");
    }
    let late = Arc::clone(&count);
    let deaf = move |_| async move {
        yields(1).await;
        Ok::<_, BoxError>(Alive::new(&late))
    };
    group.go_on(&spawner, None, deaf).expect("it is open");
    spawner.turn();
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let door = group.clone();
    group.cancel();
    let failure = block_on(group.wait()).expect_err("it was cancelled");
    assert_eq!((failure.report().succeeded(), failure.report().outstanding()), (3, 1));
    drop(failure);
    assert_eq!(count.load(Ordering::SeqCst), 0);
    spawner.turn();
    assert_eq!((door.report().outstanding(), count.load(Ordering::SeqCst)), (0, 0));

    let dropped = Group::collecting(&context());
    let inner = Arc::clone(&count);
    let work = move |_| async move { Ok::<_, BoxError>(Alive::new(&inner)) };
    dropped.go_on(&spawner, None, work).expect("it is open");
    spawner.turn();
    assert_eq!(count.load(Ordering::SeqCst), 1);
    drop(dropped);
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

// A group that is empty stays open as long as somebody can add a task
#[test]
fn a_group_that_is_awaited_while_it_is_empty_stays_open_for_its_other_handles() {
    let group = Group::collecting(&context());
    let door = group.clone();
    let mut wait = group.wait();
    assert!(poll_times(&mut wait, 5).is_none(), "nobody has added anything yet");
    for task in 0..3 {
        door.go(None, move |_| async move { Ok::<_, BoxError>(task) }).expect("it is open");
        assert!(poll_times(&mut wait, 5).is_none(), "it is empty once more");
        assert_eq!(door.report().outstanding(), 0);
    }
    let other = door.clone();
    drop(door);
    assert!(poll_times(&mut wait, 5).is_none(), "one handle is left");
    drop(other);
    let report = poll_times(&mut wait, 1).expect("no handle is left").expect("all succeed");
    assert_eq!(report.into_values(), [0, 1, 2]);
}

#[test]
fn a_group_that_is_closed_ends_with_the_tasks_it_has() {
    let group = Group::new(&context());
    let (door, spawner) = (group.clone(), ByHand::default());
    let mut wait = group.wait();
    door.go(None, |_| async {
        yields(3).await;
        Ok::<_, BoxError>(())
    })
    .expect("it is open");
    assert!(poll_times(&mut wait, 2).is_none());
    door.close();
    door.close();
    let never = |_| async { unreachable!("it must not begin") as Result<(), BoxError> };
    for refused in [
        door.go(None, never),
        door.try_go(None, never),
        door.go_on(&spawner, None, never),
        door.try_go_on(&spawner, None, never),
    ] {
        let error = refused.expect_err("it is closed");
        assert_eq!(
            (error.code(), error.to_string()),
            (ErrorCode::Validation, "the group is closed".to_owned())
        );
    }
    assert!(spawner.0.lock().expect("no panic").is_empty());
    let report = poll_times(&mut wait, 5).expect("it ends").expect("all succeed");
    assert_eq!((report.additions(), report.succeeded()), (1, 1));
    assert_eq!(door.go(None, never).expect_err("it is over").to_string(), "the group has ended");
}

// A wait without tasks hears of the close, of the last handle, and of what ends it.
#[test]
fn an_empty_group_that_stays_open_is_woken_by_its_end() {
    for ending in ["close", "drop", "cancel", "context", "add"] {
        let stop = CancellationSource::new();
        let context = context().with_cancellation(stop.token());
        let group = Group::new(&context);
        let door = group.clone();
        let wait = group.wait();
        let result = std::thread::scope(|threads| {
            let waiting = threads.spawn(move || block_on(wait));
            std::thread::yield_now();
            let end = move || match ending {
                "close" => door.close(),
                "cancel" => door.cancel(),
                "context" => stop.cancel(),
                "drop" => {}
                _ => door.go(None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open"),
            };
            end();
            // Its handle goes here.
            drop(end);
            waiting.join().expect("no panic")
        });
        match ending {
            "cancel" | "context" => {
                let failure = result.expect_err("it was cancelled");
                assert_eq!(failure.error().code(), ErrorCode::Canceled);
            }
            _ => assert_eq!(result.expect("it ends").failed(), 0),
        }
    }
}

// Two ends at once, from other threads: the wait hears of one of them, and nothing is lost.
#[test]
fn additions_and_ends_from_many_threads_are_each_counted_or_refused() {
    for round in 0..50 {
        let group = Group::collecting(&context()).concurrency(3);
        let doors: Vec<_> = (0..4).map(|_| group.clone()).collect();
        let wait = group.wait();
        let (added, report) = std::thread::scope(|threads| {
            let adders: Vec<_> = doors
                .into_iter()
                .enumerate()
                .map(|(index, door)| {
                    threads.spawn(move || {
                        let mut added = 0;
                        for task in 0..50 {
                            let work = move |_| async move { Ok::<_, BoxError>(task) };
                            added += usize::from(door.go(None, work).is_ok());
                            if index == 0 && round % 2 == 0 && task == 25 {
                                door.close();
                            }
                        }
                        added
                    })
                })
                .collect();
            let report = block_on(wait).expect("all succeed");
            let added = adders.into_iter().map(|adder| adder.join().expect("no panic"));
            (added.sum::<usize>(), report)
        });
        assert_eq!((report.additions(), report.outstanding()), (added as u64, 0));
        assert_eq!(report.into_values().len(), added);
        assert!(round % 2 == 0 || added == 200, "{added}");
    }
}

#[test]
fn a_group_that_nobody_awaits_ends_with_its_last_handle() {
    let context = context();
    let spawner = ByHand::default();
    let group = Group::new(&context);
    let door = group.clone();
    let work = |step: StepContext| async move {
        step.register_compensation(|| async {});
        step.cancellation().cancelled().await;
        Ok::<_, BoxError>(())
    };
    group.go_on(&spawner, None, work).expect("it is open");
    spawner.turn();
    drop(group);
    spawner.turn();
    assert_eq!(door.report().outstanding(), 1, "a handle is left");
    door.go(None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    drop(door);
    spawner.turn();
    assert!(spawner.0.lock().expect("no panic").is_empty(), "it was told");
    assert_eq!(roll_back(context.scope()), 1);
}

// Rule 4.1: the wait may go before it was polled
#[test]
fn a_wait_that_is_dropped_ends_the_group_polled_or_not() {
    for polls in [0, 1] {
        let context = context();
        let spawner = ByHand::default();
        let group = Group::new(&context);
        let door = group.clone();
        let mut wait = group.wait();
        let work = |step: StepContext| async move {
            step.register_compensation(|| async {});
            step.cancellation().cancelled().await;
            Ok::<_, BoxError>(())
        };
        door.go_on(&spawner, None, work).expect("it is open");
        door.go(None, work).expect("it is open");
        spawner.turn();
        assert!(poll_times(&mut wait, polls).is_none());
        drop(wait);
        let error = door.go(None, work).expect_err("it has ended");
        assert_eq!(error.to_string(), "the group has ended");
        spawner.turn();
        assert_eq!(door.report().outstanding(), 0);
        assert_eq!(roll_back(context.scope()), 1 + polls);
    }
}

// Rule 16 of the house: an option that cannot have an effect is an error
#[test]
fn a_rollback_that_is_asked_for_behind_the_first_task_is_refused() {
    let context = context();
    let group = Group::new(&context);
    group.go(None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    let group = group.roll_back(CompensationPolicy::sequential_reverse());
    let failure = block_on(group.wait()).expect_err("it is too late");
    assert_eq!(failure.error().code(), ErrorCode::Validation);
}

// A failure that stops nobody is undone all the same, where that is asked for
#[test]
fn a_group_that_waits_for_all_can_undo_what_they_did() {
    let context = context();
    let group = Group::new(&context)
        .on_failure(OnFailure::Continue)
        .roll_back(CompensationPolicy::sequential_reverse());
    let undone = Arc::new(Mutex::new(Vec::new()));
    for task in 0..4 {
        let undone = Arc::clone(&undone);
        let work = move |step: StepContext| async move {
            step.register_compensation_with(undone, move |undone| async move {
                undone.lock().expect("no panic").push(task);
            });
            if task == 1 { Err("no") } else { Ok(()) }
        };
        group.go(None, work).expect("it is open");
    }
    let failure = block_on(group.wait()).expect_err("one fails");
    assert_eq!(failure.report().succeeded(), 3);
    assert_eq!(*undone.lock().expect("no panic"), [3, 2, 1, 0]);
    assert!(context.scope().is_empty());
}

// Rule 3.5: those that are told know what for
#[test]
fn the_token_of_a_task_says_why_the_group_stops() {
    let reason = Mutex::new(String::new());
    let group = Group::new(&context());
    group
        .go(None, |step: StepContext| {
            let reason = &reason;
            async move {
                step.cancellation().cancelled().await;
                let error = step.cancellation().reason().expect("it is cancelled");
                *reason.lock().expect("no panic") = format!("{error:#}");
                Ok::<_, BoxError>(())
            }
        })
        .expect("it is open");
    group.go(None, |_| async { Err::<(), _>("out of paper") }).expect("it is open");
    block_on(group.wait()).expect_err("one fails");
    let reason = reason.lock().expect("no panic");
    assert_eq!(*reason, "the operation was cancelled: the handler failed: out of paper");
}

// Rule 6.4: a group that lives for ever
#[test]
fn a_group_that_lives_long_keeps_nothing_of_tasks_without_a_value() {
    let group = Group::new(&context()).on_failure(OnFailure::Continue).concurrency(4);
    let door = group.clone();
    let mut wait = group.wait();
    let count = Arc::new(AtomicUsize::new(0));
    for task in 0..100_000_u64 {
        let alive = Alive::new(&count);
        let work = move |_| async move {
            let _alive = alive;
            if task % 7 == 0 { Err("no") } else { Ok(()) }
        };
        door.go(None, work).expect("it is open");
        if task % 100 == 99 {
            assert!(poll_times(&mut wait, 3).is_none());
            assert_eq!(count.load(Ordering::SeqCst), 0);
        }
    }
    drop(door);
    let (error, report) = block_on(wait).expect_err("some failed").into_parts();
    assert_eq!((report.completions(), report.failed()), (100_000, 14_286));
    assert_eq!((error.related().len(), error.related_total()), (31, 14_285));
}

/// Panics when it is dropped.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("bomb");
    }
}

// Rule 3.7
#[test]
fn values_that_nobody_takes_may_panic_in_their_destructors() {
    let context = context();
    let group = Group::collecting(&context);
    let spawner = ByHand::default();
    for _ in 0..3 {
        group.go_on(&spawner, None, |_| async { Ok::<_, BoxError>(Bomb) }).expect("it is open");
    }
    let late = group.clone();
    spawner.turn();
    drop((group, late));

    let group = Group::collecting(&context).timeout(Duration::ZERO);
    let never = |_| async {
        std::future::pending::<()>().await;
        Ok::<_, BoxError>(Bomb)
    };
    group.go(None, never).expect("it is open");
    let work = |_| async { Ok::<_, BoxError>(Bomb) };
    group.go_on(&spawner, None, work).expect("it is open");
    let mut wait = group.wait();
    assert!(poll_times(&mut wait, 1).is_none(), "one is with its executor");
    drop(wait);
    spawner.turn();
}
