//! How it ends.

use super::*;
use crate::support::neighbours::{Breaks, ByHand};

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
    assert!(spawner.is_idle(), "it has ended");
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
