//! Groups that stay open.

use super::*;
use crate::support::neighbours::{Bomb, ByHand};

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
    assert!(spawner.is_idle());
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
    assert!(spawner.is_idle(), "it was told");
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
