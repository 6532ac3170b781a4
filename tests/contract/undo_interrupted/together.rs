//! Several rollbacks of one scope.

use super::*;

// Rule 4.5, Rule 4.10
#[test]
fn a_waiting_rollback_that_is_cancelled_answers_at_once_and_leaves_the_runner_alone() {
    let (scope, tally) = staged(9);
    let policy = CompensationPolicy::sequential_reverse();
    let source = CancellationSource::new();
    let mut runner = start(&scope, &policy);
    let mut waiting = scope.roll_back(&policy).cancellation(source.token());
    assert!(poll(&mut runner).is_pending());
    assert!(poll(&mut waiting).is_pending());
    source.cancel();
    let Poll::Ready(Err(error)) = poll(&mut waiting) else { panic!("not cancelled") };
    assert_eq!(error.error().code(), ErrorCode::Canceled);
    assert_eq!(block_on(runner).unwrap().succeeded(), 9);
    tally.assert_each_started_once();
}

// Rule 4.4, Rule 4.10
#[test]
fn an_action_that_failed_is_run_once_and_reported_to_both() {
    for left in policies() {
        for right in policies() {
            let (scope, tally) = staged(6);
            let attempts = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&attempts);
            scope.register_compensation(labelled("the seat", move || {
                counted.fetch_add(1, Ordering::SeqCst);
                async {
                    yield_now().await;
                    Err::<(), _>("no connection")
                }
            }));
            let mut rollbacks = [start(&scope, &left), start(&scope, &right)];
            let mut errors = Vec::new();
            let mut open = vec![0, 1];
            while !open.is_empty() {
                open.retain(|index| match poll(&mut rollbacks[*index]) {
                    Poll::Ready(result) => {
                        errors.push(result.unwrap_err());
                        false
                    }
                    Poll::Pending => true,
                });
            }
            for error in &errors {
                let report = error.report();
                assert_eq!(report.succeeded(), 6);
                assert_eq!(report.failures().len(), 1);
                assert_eq!(report.failures()[0].label(), Some("the seat"));
            }
            assert_eq!((errors.len(), attempts.load(Ordering::SeqCst)), (2, 1));
            tally.assert_each_succeeded_once();
            assert_eq!(scope.clear(), 1, "it is still staged");
        }
    }
}

// Rule 4.5: found by the fuzz target `scope`.
#[test]
fn a_clear_keeps_the_action_that_a_rollback_runs_when_it_is_dropped_later() {
    let scope = CompensationScope::new();
    for _ in 0..2 {
        scope.register_compensation(std::future::pending::<()>);
    }
    let mut rollback = start(&scope, &CompensationPolicy::sequential_reverse());
    assert!(poll(&mut rollback).is_pending());
    assert_eq!(scope.clear(), 1, "the other one");
    assert_eq!(scope.len(), 1);
    drop(rollback);
    assert_eq!(scope.len(), 1, "it has not succeeded");
    assert_eq!(scope.clear(), 1);
}

// Rule 4.4, Rule 4.10
#[test]
fn a_failed_action_can_be_cleared_while_the_rollback_goes_on() {
    let scope = CompensationScope::new();
    scope.register_compensation(|| async { yield_now().await });
    scope.register_compensation(|| async { Err("no connection") });
    let mut rollback = start(&scope, &CompensationPolicy::sequential_reverse());
    assert!(poll(&mut rollback).is_pending());
    assert_eq!(scope.len(), 2);
    assert_eq!(scope.clear(), 1, "what runs just now is not touched");
    block_on(rollback).unwrap();
    assert!(scope.is_empty());
}

// Rule 4.7, Rule 4.10
#[test]
fn what_is_registered_while_others_wait_is_run_before_anybody_answers() {
    let (scope, tally) = staged(3);
    let late = Tally::new(1);
    let policy = CompensationPolicy::sequential_reverse();
    let (mut runner, mut waiting) = (start(&scope, &policy), start(&scope, &policy));
    assert!(poll(&mut runner).is_pending());
    assert!(poll(&mut waiting).is_pending());
    scope.register_compensation(slow(&late, 0, 2));
    drop(runner);
    assert_eq!(block_on(waiting).unwrap().succeeded(), 4);
    tally.assert_each_succeeded_once();
    late.assert_each_succeeded_once();
}

/// An action that writes its number down and does something more.
fn noting(
    log: &Arc<Mutex<Vec<usize>>>,
    number: usize,
    more: impl Fn() + Send + Sync + 'static,
) -> impl Action {
    let (log, more) = (Arc::clone(log), Arc::new(more));
    move || {
        let (log, more) = (Arc::clone(&log), Arc::clone(&more));
        async move {
            log.lock().unwrap().push(number);
            more();
        }
    }
}

// Rule 4.2
#[test]
fn actions_of_many_types_from_several_scopes_run_in_exact_reverse() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let scopes = [(); 3].map(|()| CompensationScope::new());
    for number in 0..200_usize {
        let (scope, log) = (&scopes[number % 7 % 3], Arc::clone(&log));
        match number % 5 {
            0 => scope.register_compensation(noting(&log, number, || {})),
            1 => scope.register_compensation(labelled("x", noting(&log, number, || {}))),
            2 => scope.register_compensation_with(log, move |log| async move {
                log.lock().unwrap().push(number);
            }),
            3 => drop(scope.reserve(noting(&log, number, || {}))),
            _ => scope.register_compensation(noting(&log, number, move || assert!(number < 200))),
        }
    }
    scopes[1].absorb(&scopes[2]);
    scopes[0].absorb(&scopes[1]);
    let rollback = start(&scopes[0], &CompensationPolicy::sequential_reverse());
    assert_eq!(block_on(rollback).unwrap().succeeded(), 200);
    assert!(log.lock().unwrap().iter().copied().eq((0..200).rev()));
}

// Rule 4.7
#[test]
fn what_an_action_registers_runs_next_wherever_the_rollback_is() {
    let (scope, log) = (CompensationScope::new(), Arc::new(Mutex::new(Vec::new())));
    for number in 0..150 {
        let (inner, inner_log) = (scope.clone(), Arc::clone(&log));
        scope.register_compensation(noting(&log, number, move || {
            if number % 10 == 0 {
                inner.register_compensation(noting(&inner_log, 1000 + number, || {}));
            }
        }));
    }
    let rollback = start(&scope, &CompensationPolicy::sequential_reverse());
    assert_eq!(block_on(rollback).unwrap().succeeded(), 165);
    let mut expected = Vec::new();
    for number in (0..150).rev() {
        expected.push(number);
        expected.extend((number % 10 == 0).then_some(1000 + number));
    }
    assert_eq!(*log.lock().unwrap(), expected);
    assert!(scope.is_empty());
}

// Rules 4.4, 4.7
#[test]
fn an_action_sees_how_many_are_left_and_may_clear_them() {
    let (scope, log) = (CompensationScope::new(), Arc::new(Mutex::new(Vec::new())));
    let lens = Arc::new(Mutex::new(Vec::new()));
    for number in 0..100 {
        let (inner, lens) = (scope.clone(), Arc::clone(&lens));
        scope.register_compensation(noting(&log, number, move || {
            lens.lock().unwrap().push(inner.len());
            if number == 30 {
                assert_eq!(inner.clear(), 30, "all but the one that runs");
                inner.register_compensation(|| async {});
            }
        }));
    }
    let rollback = start(&scope, &CompensationPolicy::sequential_reverse());
    assert_eq!(block_on(rollback).unwrap().succeeded(), 71);
    assert!(lens.lock().unwrap().iter().copied().eq((31..=100).rev()), "the running one counts");
    assert_eq!((log.lock().unwrap().len(), scope.len()), (70, 0));
}

// Rule 4.5
#[test]
fn an_action_that_cancels_the_rollback_is_the_last_one_to_run() {
    let (scope, log) = (CompensationScope::new(), Arc::new(Mutex::new(Vec::new())));
    let stop = CancellationSource::new();
    for number in 0..100 {
        let stop = stop.clone();
        let cancel = move || {
            if number == 40 {
                stop.cancel();
            }
        };
        scope.register_compensation(noting(&log, number, cancel));
    }
    let policy = CompensationPolicy::sequential_reverse();
    let error = block_on(scope.roll_back(&policy).cancellation(stop.token())).unwrap_err();
    assert_eq!(
        (error.error().code(), error.error().metadata("succeeded")),
        (ErrorCode::Canceled, Some("60"))
    );
    assert_eq!(scope.len(), 40);
    assert_eq!(block_on(start(&scope, &policy)).unwrap().succeeded(), 40);
    assert!(log.lock().unwrap().iter().copied().eq((0..100).rev()));
}

// Rules 4.5, 4.10
#[test]
fn a_rollback_that_does_not_have_the_thread_keeps_nothing_it_has_not_started() {
    let (scope, tally) = (CompensationScope::new(), Tally::new(400));
    for number in 0..400 {
        scope.register_compensation(slow(&tally, number, usize::from(number == 300)));
    }
    let mut first = start(&scope, &CompensationPolicy::sequential_reverse());
    assert!(poll(&mut first).is_pending(), "in the middle, at action 300");
    assert_eq!((tally.successes(), scope.len()), (99, 301));
    let elsewhere = CompensationScope::new();
    elsewhere.absorb(&scope);
    assert_eq!((elsewhere.len(), scope.len()), (300, 1));
    scope.absorb(&elsewhere);
    assert_eq!(block_on(first).unwrap().succeeded(), 400);
    tally.assert_each_started_once();
}

// Rule 4.13
#[test]
fn a_rollback_whose_every_action_registers_another_stays_linear() {
    let (scope, log) = (CompensationScope::new(), Arc::new(Mutex::new(Vec::new())));
    for number in 0..100_000 {
        let (inner, inner_log) = (scope.clone(), Arc::clone(&log));
        scope.register_compensation(noting(&log, number, move || {
            inner.register_compensation(noting(&inner_log, number, || {}));
        }));
    }
    let rollback = start(&scope, &CompensationPolicy::sequential_reverse());
    assert_eq!(block_on(rollback).unwrap().succeeded(), 200_000);
    let expected = (0..100_000).rev().flat_map(|number| [number, number]);
    assert!(log.lock().unwrap().iter().copied().eq(expected));
}

// Rule 4.5
#[test]
fn an_action_that_was_running_when_its_scope_was_cleared_survives_the_drop_of_its_rollback() {
    for policy in policies() {
        for (actions, most_cleared) in [(1, 0), (3, 2)] {
            let (scope, tally) = (CompensationScope::new(), Tally::new(actions));
            for number in 0..actions {
                scope.register_compensation(slow(&tally, number, 1));
            }
            let mut rollback = start(&scope, &policy);
            assert!(poll(&mut rollback).is_pending());
            let cleared = scope.clear();
            assert!(cleared <= most_cleared);
            drop(rollback);
            assert_eq!(scope.len(), actions - cleared, "{policy:?}");
            assert_eq!(block_on(start(&scope, &policy)).unwrap().succeeded(), actions - cleared);
        }
    }
}

/// Polls a rollback on another thread while an action runs on this one.
fn poll_elsewhere(
    rollback: &mut Rollback,
) -> Poll<Result<RollbackReport, Failure<RollbackReport>>> {
    std::thread::scope(|threads| threads.spawn(|| poll(rollback)).join().unwrap())
}

/// Runs 100 actions, of which the one numbered 60 does `more` with the scope and then starts another
/// rollback, which joins. Returns what ran.
fn joined_at_60(
    joining: &CompensationPolicy,
    more: impl Fn(&CompensationScope, &Arc<Mutex<Vec<usize>>>) + Clone + Send + Sync + 'static,
) -> Vec<usize> {
    let (scope, log) = (CompensationScope::new(), Arc::new(Mutex::new(Vec::new())));
    let joined = Arc::new(Mutex::new(None));
    for number in 0..100 {
        let (inner, inner_log, more) = (scope.clone(), Arc::clone(&log), more.clone());
        let (joining, joined) = (joining.clone(), Arc::clone(&joined));
        scope.register_compensation(noting(&log, number, move || {
            if number == 60 {
                more(&inner, &inner_log);
                let len = inner.len();
                let mut other = start(&inner, &joining);
                assert!(poll_elsewhere(&mut other).is_pending());
                assert_eq!(inner.len(), len);
                *joined.lock().unwrap() = Some(other);
            }
        }));
    }
    block_on(start(&scope, &CompensationPolicy::sequential_reverse())).unwrap();
    assert!(scope.is_empty());
    let other = joined.lock().unwrap().take().unwrap();
    block_on(other).unwrap();
    let log = log.lock().unwrap();
    log.clone()
}

// Rules 4.2, 4.7 and 4.10
#[test]
fn a_rollback_that_joins_does_not_keep_the_runner_from_what_was_registered() {
    let joining = CompensationPolicy::sequential_reverse();
    let ran = joined_at_60(&joining, |scope, log| {
        scope.register_compensation(noting(log, 1060, || {}));
    });
    assert!(ran.iter().copied().eq((60..100).rev().chain([1060]).chain((0..60).rev())));
}

// Rules 4.4 and 4.10
#[test]
fn a_rollback_that_joins_does_not_keep_the_runner_from_hearing_of_a_clear() {
    for joining in policies() {
        let ran = joined_at_60(&joining, |scope, _| assert_eq!(scope.clear(), 60));
        assert!(ran.iter().copied().eq((60..100).rev()), "{joining:?}: {ran:?}");
    }
}

// Rules 4.4 and 4.10
#[test]
fn a_clear_after_another_rollback_has_joined_finds_what_the_runner_has_not_started() {
    for joining in policies() {
        let cleared = Arc::new(Mutex::new(None));
        let (scope, log) = (CompensationScope::new(), Arc::new(Mutex::new(Vec::new())));
        for number in 0..3 {
            let (inner, cleared, joining) = (scope.clone(), Arc::clone(&cleared), joining.clone());
            scope.register_compensation(noting(&log, number, move || {
                // The last batch: nothing is left for the other one to take.
                if number == 1 {
                    let mut other = start(&inner, &joining);
                    assert!(poll_elsewhere(&mut other).is_pending());
                    *cleared.lock().unwrap() = Some((inner.clear(), other));
                }
            }));
        }
        block_on(start(&scope, &CompensationPolicy::sequential_reverse())).unwrap();
        assert_eq!(*log.lock().unwrap(), [2, 1], "{joining:?}");
        let (cleared, other) = cleared.lock().unwrap().take().unwrap();
        assert_eq!(cleared, 1, "{joining:?}");
        block_on(other).unwrap();
    }
}
