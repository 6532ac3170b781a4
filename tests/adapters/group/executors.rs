//! Tasks on executors, and undoing a group.

use super::*;
use crate::support::neighbours::ByHand;

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
