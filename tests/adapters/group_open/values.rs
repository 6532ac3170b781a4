//! What tasks return.

use super::*;
use crate::support::neighbours::ByHand;

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
