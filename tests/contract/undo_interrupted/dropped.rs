//! Rollbacks that are dropped or cancelled in the middle.

use super::*;

// Rule 4.5
#[test]
fn dropping_after_any_poll_leaves_what_has_not_succeeded_and_a_second_rollback_finishes() {
    for policy in policies() {
        let (scope, _) = staged(9);
        let total = polls_to_the_end(start(&scope, &policy));
        assert!(total > 1, "{policy:?}");
        for polls in 0..total {
            let (scope, tally) = staged(9);
            let mut rollback = start(&scope, &policy);
            for _ in 0..polls {
                assert!(poll(&mut rollback).is_pending());
                assert_eq!(scope.len() + tally.successes(), 9, "while it runs");
            }
            drop(rollback);
            let done = tally.successes();
            assert_eq!(scope.len(), 9 - done, "after {polls} polls of {policy:?}");
            let report = block_on(start(&scope, &policy)).unwrap();
            assert_eq!(report.succeeded(), 9 - done);
            tally.assert_each_succeeded_once();
            assert!(scope.is_empty());
        }
    }
}

// Rule 4.5
#[test]
fn at_most_the_interrupted_action_of_a_sequential_rollback_starts_twice() {
    let policy = CompensationPolicy::sequential_reverse();
    let (scope, _) = staged(9);
    let total = polls_to_the_end(start(&scope, &policy));
    for polls in 0..total {
        let (scope, tally) = staged(9);
        let mut rollback = start(&scope, &policy);
        (0..polls).for_each(|_| assert!(poll(&mut rollback).is_pending()));
        drop(rollback);
        block_on(start(&scope, &policy)).unwrap();
        assert_eq!(tally.restarted(), usize::from(polls > 0), "after {polls} polls");
    }
}

// Rule 4.5
#[test]
fn a_rollback_dropped_after_every_single_poll_loses_nothing() {
    let (scope, tally) = staged(12);
    let policy = CompensationPolicy::parallel();
    for _ in 0..5 {
        assert!(poll(&mut start(&scope, &policy)).is_pending());
        assert_eq!(tally.successes() + scope.len(), 12);
    }
    block_on(start(&scope, &CompensationPolicy::sequential_reverse())).unwrap();
    tally.assert_each_succeeded_once();
}

// Rule 4.2, Rule 4.5
#[test]
fn what_an_interrupted_rollback_puts_back_keeps_its_place() {
    for policy in policies() {
        let (scope, log) = (CompensationScope::new(), Arc::new(Mutex::new(Vec::new())));
        let calls = Arc::new(AtomicUsize::new(0));
        for number in 0..6 {
            let (log, calls) = (Arc::clone(&log), Arc::clone(&calls));
            scope.register_compensation(move || {
                let log = Arc::clone(&log);
                let stuck = calls.fetch_add(1, Ordering::SeqCst) < 6;
                async move {
                    if stuck {
                        std::future::pending::<()>().await;
                    }
                    log.lock().unwrap().push(number);
                }
            });
        }
        let mut rollback = start(&scope, &policy);
        assert!(poll(&mut rollback).is_pending());
        let late = Arc::clone(&log);
        scope.register_compensation(move || {
            let late = Arc::clone(&late);
            async move { late.lock().unwrap().push(6) }
        });
        drop(rollback);
        calls.store(6, Ordering::SeqCst);
        block_on(start(&scope, &CompensationPolicy::sequential_reverse())).unwrap();
        assert_eq!(*log.lock().unwrap(), [6, 5, 4, 3, 2, 1, 0], "{policy:?}");
    }
}

// Rule 4.5
#[test]
fn cancelling_after_any_poll_leaves_what_has_not_succeeded() {
    for policy in policies() {
        let (scope, _) = staged(9);
        let total = polls_to_the_end(start(&scope, &policy));
        for polls in 0..total {
            let (scope, tally) = staged(9);
            let source = CancellationSource::new();
            let mut rollback = scope.roll_back(&policy).cancellation(source.token());
            (0..polls).for_each(|_| assert!(poll(&mut rollback).is_pending()));
            source.cancel();
            let Poll::Ready(result) = poll(&mut rollback) else {
                panic!("not ready although it is cancelled after {polls} polls of {policy:?}")
            };
            assert_eq!(scope.len(), 9 - tally.successes());
            match result {
                Ok(report) => assert_eq!((report.succeeded(), scope.len()), (9, 0)),
                Err(error) => {
                    assert_eq!(error.error().code(), ErrorCode::Canceled);
                    let succeeded = tally.successes().to_string();
                    assert_eq!(error.error().metadata("succeeded"), Some(&*succeeded));
                    assert!(scope.has_actions());
                }
            }
            drop(rollback);
            block_on(start(&scope, &policy)).unwrap();
            tally.assert_each_succeeded_once();
        }
    }
}

// Rule 4.5
#[test]
fn a_cancellation_wakes_a_rollback_whose_action_never_ends() {
    for policy in policies() {
        let scope = CompensationScope::new();
        scope.register_compensation(std::future::pending::<()>);
        let (source, flag) = (CancellationSource::new(), Arc::new(Flag::default()));
        let waker = Waker::from(Arc::clone(&flag));
        let mut rollback = scope.roll_back(&policy).cancellation(source.token());
        let mut cx = Context::from_waker(&waker);
        // Polled until it really waits: a poll may ask for another one.
        let mut polls = 0;
        while polls == 0 || flag.0.swap(false, Ordering::SeqCst) {
            assert!(Pin::new(&mut rollback).poll(&mut cx).is_pending());
            polls += 1;
            assert!(polls < 10, "it spins: {policy:?}");
        }
        source.cancel();
        assert!(flag.0.load(Ordering::SeqCst));
        assert!(Pin::new(&mut rollback).poll(&mut cx).is_ready());
        assert_eq!(scope.clear(), 1);
    }
}

// Rule 4.5
#[test]
fn a_token_cancelled_before_the_first_poll_runs_nothing() {
    for policy in policies() {
        let (scope, tally) = staged(3);
        let source = CancellationSource::new();
        source.cancel();
        let error = block_on(scope.roll_back(&policy).cancellation(source.token())).unwrap_err();
        assert_eq!(error.error().code(), ErrorCode::Canceled);
        assert_eq!((scope.clear(), tally.successes(), tally.restarted()), (3, 0, 0));
    }
}

// Rule 4.5
#[test]
fn a_cancelled_rollback_names_the_actions_that_failed_before() {
    let scope = CompensationScope::new();
    let source = CancellationSource::new();
    scope.register_compensation(|| async {});
    let inner = source.clone();
    scope.register_compensation(move || {
        let inner = inner.clone();
        async move { inner.cancel() }
    });
    scope.register_compensation(labelled("the seat", || async { Err("no connection") }));
    let policy = CompensationPolicy::sequential_reverse();
    let error = block_on(scope.roll_back(&policy).cancellation(source.token())).unwrap_err();
    assert_eq!(error.error().code(), ErrorCode::Canceled);
    assert_eq!(error.error().metadata("succeeded"), Some("1"));
    let failures = error.report();
    assert_eq!(failures.failures()[0].label(), Some("the seat"));
    assert_eq!(scope.clear(), 2);
}

// Rule 4.10
#[test]
fn two_rollbacks_polled_in_turn_run_each_action_once_and_answer_at_the_end() {
    for left in policies() {
        for right in policies() {
            let (scope, tally) = staged(9);
            let mut rollbacks = [start(&scope, &left), start(&scope, &right)];
            let mut open = vec![0, 1];
            while !open.is_empty() {
                open.retain(|index| match poll(&mut rollbacks[*index]) {
                    Poll::Ready(result) => {
                        assert_eq!(tally.successes(), 9, "answered early: {left:?}, {right:?}");
                        assert_eq!(result.unwrap().succeeded(), 9);
                        false
                    }
                    Poll::Pending => true,
                });
            }
            tally.assert_each_succeeded_once();
            tally.assert_each_started_once();
            assert!(scope.is_empty());
        }
    }
}

// Rule 4.10: found by the model of random programs.
#[test]
fn a_rollback_that_comes_later_does_not_count_what_had_succeeded_before() {
    let policy = CompensationPolicy::sequential_reverse();
    let stop = CancellationSource::new();
    let scope = CompensationScope::new();
    let open = Arc::new(AtomicBool::new(false));
    scope.register_compensation_with(Arc::clone(&open), |open| async move {
        while !open.load(Ordering::SeqCst) {
            futures::pending!();
        }
    });
    for _ in 0..3 {
        scope.register_compensation(|| async {});
    }
    let mut first = start(&scope, &policy);
    assert!(poll(&mut first).is_pending(), "three have succeeded, the last one runs");
    assert_eq!(scope.len(), 1);
    let mut second = start(&scope, &policy);
    assert!(poll(&mut second).is_pending());
    assert_eq!(scope.len(), 1, "a look at the session takes nothing from its count");
    let mut cancelled = scope.roll_back(&policy).cancellation(stop.token());
    assert!(poll(&mut cancelled).is_pending());
    stop.cancel();
    let Poll::Ready(Err(error)) = poll(&mut cancelled) else { panic!("cancelled") };
    assert_eq!(error.error().metadata("succeeded"), Some("0"));
    open.store(true, Ordering::SeqCst);
    let Poll::Ready(Ok(report)) = poll(&mut first) else { panic!("the last one has ended") };
    assert_eq!(report.succeeded(), 4);
    let Poll::Ready(Ok(report)) = poll(&mut second) else { panic!("nothing is left") };
    assert_eq!(report.succeeded(), 1);
}

// Rule 4.10
#[test]
fn rollbacks_that_are_polled_only_when_woken_all_get_their_answer() {
    for left in policies() {
        for right in policies() {
            let (scope, tally) = staged(9);
            let all = [start(&scope, &left), start(&scope, &right), start(&scope, &left)];
            let results: Vec<_> = block_on(FuturesUnordered::from_iter(all).collect());
            assert_eq!(results.len(), 3);
            assert!(results.iter().all(Result::is_ok));
            tally.assert_each_succeeded_once();
            tally.assert_each_started_once();
        }
    }
}

// Rule 4.10
#[test]
fn rollbacks_on_two_threads_run_each_action_once() {
    for left in policies() {
        for right in policies() {
            let (scope, tally) = staged(300);
            std::thread::scope(|threads| {
                for policy in [&left, &right] {
                    let (scope, tally) = (&scope, &tally);
                    threads.spawn(move || {
                        block_on(start(scope, policy)).unwrap();
                        assert_eq!(tally.successes(), 300);
                    });
                }
            });
            tally.assert_each_succeeded_once();
            tally.assert_each_started_once();
            assert!(scope.is_empty());
        }
    }
}

// Rule 4.10
#[test]
fn sequential_rollbacks_keep_the_reverse_order_together() {
    let (scope, log) = (CompensationScope::new(), Arc::new(Mutex::new(Vec::new())));
    for number in 0..20_usize {
        let log = Arc::clone(&log);
        scope.register_compensation(move || {
            let log = Arc::clone(&log);
            async move {
                for _ in 0..number % 3 {
                    yield_now().await;
                }
                log.lock().unwrap().push(number);
            }
        });
    }
    let policy = CompensationPolicy::sequential_reverse();
    let all = [start(&scope, &policy), start(&scope, &policy), start(&scope, &policy)];
    let results: Vec<_> = block_on(FuturesUnordered::from_iter(all).collect());
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(*log.lock().unwrap(), (0..20).rev().collect::<Vec<_>>());
}

// Rule 4.5, Rule 4.10
#[test]
fn when_the_runner_is_dropped_after_any_poll_the_other_takes_over() {
    for left in policies() {
        for right in policies() {
            let (scope, _) = staged(9);
            let total = polls_to_the_end(start(&scope, &left));
            for polls in 1..total {
                let (scope, tally) = staged(9);
                let flag = Arc::new(Flag::default());
                let waker = Waker::from(Arc::clone(&flag));
                let mut runner = start(&scope, &left);
                let mut other = start(&scope, &right);
                assert!(poll(&mut runner).is_pending());
                let mut cx = Context::from_waker(&waker);
                let mut answer = Pin::new(&mut other).poll(&mut cx);
                for _ in 1..polls {
                    if poll(&mut runner).is_ready() {
                        break;
                    }
                }
                drop(runner);
                while answer.is_pending() {
                    let woken = flag.0.swap(false, Ordering::SeqCst);
                    assert!(woken, "nobody woke it: {left:?}, {right:?}, {polls} polls");
                    answer = Pin::new(&mut other).poll(&mut cx);
                }
                let Poll::Ready(Ok(_)) = answer else { panic!("{answer:?}") };
                tally.assert_each_succeeded_once();
                assert!(scope.is_empty());
            }
        }
    }
}

// Rule 4.10
#[test]
fn a_waiting_rollback_that_is_dropped_disturbs_nobody() {
    let (scope, tally) = staged(9);
    let policy = CompensationPolicy::sequential_reverse();
    let (mut runner, mut waiting) = (start(&scope, &policy), start(&scope, &policy));
    assert!(poll(&mut runner).is_pending());
    assert!(poll(&mut waiting).is_pending());
    drop(waiting);
    assert_eq!(block_on(runner).unwrap().succeeded(), 9);
    tally.assert_each_started_once();
}
