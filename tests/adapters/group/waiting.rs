//! Waiting for a group, and its time.

use super::*;
use crate::support::neighbours::{ByHand, Wakes};

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
    assert!(spawner.is_idle(), "it was dropped");
    assert_eq!((group.report().dropped(), roll_back(context.scope())), (1, 1));
    ledger.assert_undone_in_reverse();
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

#[test]
fn a_wait_is_woken_by_what_concerns_it_and_by_nothing_else() {
    let group = wait_group(&context(&ManualClock::new()));
    let spawner = ByHand::default();
    group.go_on(&spawner, None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    group.go(None, |_| async { Ok::<_, BoxError>(()) }).expect("it is open");
    group.go(None, |_| never()).expect("it is open");
    let mut wait = group.clone().wait();
    let count = Arc::new(Wakes::default());
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
