//! How many tasks run at once.

use super::*;
use crate::support::neighbours::ByHand;

// Go: errgroup.SetLimit
#[test]
fn at_most_so_many_tasks_run_at_once_in_place_and_on_executors_together() {
    let pool = ThreadPool::new().expect("threads start");
    for limit in [1, 2, 5, 1_000] {
        for (on_failure, threads) in [OnFailure::Abort, OnFailure::Continue]
            .into_iter()
            .flat_map(|on_failure| [(on_failure, false), (on_failure, true)])
        {
            let gauge = Gauge::default();
            let group = Group::new(&context()).on_failure(on_failure).concurrency(limit);
            for task in 0..60 {
                let gauge = gauge.clone();
                let work = move |_: StepContext| gauge.pass(task % 4);
                if task % 2 == 0 || !threads {
                    group.go(None, work).expect("it is open");
                } else {
                    group.go_on(&pool, None, work).expect("it is open");
                }
            }
            assert_eq!(block_on(group.wait()).expect("all succeed").succeeded(), 60);
            assert!(gauge.most() <= limit, "{} of {limit}", gauge.most());
            // How many threads there are, and how fast, is not ours to say.
            if limit <= 5 && !threads {
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
