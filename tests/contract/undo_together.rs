//! Two rollbacks of one scope at once. Rule 4.10.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use watershed::{
    CancellationSource, Clock, CompensationPolicy, CompensationScope, ErrorCode, ManualClock,
    RetryPolicy, StepContext, with_step,
};

use crate::support::{Gate, Hand, block_on, policies, roll_back, within, yields};

const SECOND: Duration = Duration::from_secs(1);

/// So many actions that wait for a gate, and count how often each begins and ends.
fn gated(actions: usize) -> (CompensationScope, Gate, Arc<[AtomicUsize; 2]>) {
    let (scope, gate) = (CompensationScope::new(), Gate::default());
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    for _ in 0..actions {
        let (gate, counts) = (gate.clone(), Arc::clone(&counts));
        scope.register_compensation(move || {
            let (gate, counts) = (gate.clone(), Arc::clone(&counts));
            async move {
                counts[0].fetch_add(1, Ordering::SeqCst);
                gate.wait().await;
                counts[1].fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    (scope, gate, counts)
}

fn count(counts: &[AtomicUsize; 2]) -> [usize; 2] {
    [counts[0].load(Ordering::SeqCst), counts[1].load(Ordering::SeqCst)]
}

#[test]
fn one_that_is_held_and_not_polled_holds_up_nobody() {
    for held in policies() {
        for polled in policies() {
            let (scope, gate, counts) = gated(5);
            let mut first = Hand::new(scope.roll_back(&held));
            let mut second = Hand::new(scope.roll_back(&polled));
            assert!(first.run().is_pending());
            assert!(second.run().is_pending());
            gate.open();
            let Poll::Ready(Ok(report)) = second.run() else { panic!("{held:?}, {polled:?}") };
            assert_eq!(report.succeeded(), 5);
            assert_eq!(count(&counts), [5, 5], "each action ran once: {held:?}, {polled:?}");
            assert!(matches!(first.run(), Poll::Ready(Ok(report)) if report.succeeded() == 5));
        }
    }
}

#[test]
fn one_that_yielded_and_is_held_then_holds_up_nobody() {
    for held in policies() {
        let scope = CompensationScope::new();
        (0..1_000).for_each(|_| scope.register_compensation(|| async {}));
        let mut first = Hand::new(scope.roll_back(&held));
        assert!(first.poll().is_pending(), "it gives the thread back");
        let mut second = Hand::new(scope.roll_back(&CompensationPolicy::default()));
        assert!(matches!(second.run(), Poll::Ready(Ok(_))), "{held:?}");
        assert!(matches!(first.run(), Poll::Ready(Ok(report)) if report.succeeded() == 1_000));
    }
}

#[test]
fn each_is_woken_when_the_other_has_finished_the_work() {
    for left in policies() {
        for right in policies() {
            let (scope, gate, counts) = gated(5);
            let mut first = Hand::new(scope.roll_back(&left));
            let mut second = Hand::new(scope.roll_back(&right));
            assert!(first.run().is_pending());
            assert!(second.run().is_pending());
            let wakes = first.wakes();
            gate.open();
            assert!(second.run().is_ready());
            assert!(first.wakes() > wakes, "{left:?}, {right:?}");
            assert!(first.poll().is_ready());
            assert_eq!(count(&counts), [5, 5]);
        }
    }
}

#[test]
fn the_attempt_of_one_that_goes_away_is_dropped_and_begun_anew_by_the_other() {
    for gone in policies() {
        for cancelled in [false, true] {
            let (scope, gate, counts) = gated(4);
            let stop = CancellationSource::new();
            let rollback = scope.roll_back(&gone).cancellation(stop.token());
            let mut first = Hand::new(rollback);
            let mut second = Hand::new(scope.roll_back(&CompensationPolicy::default()));
            assert!(first.run().is_pending());
            assert!(second.run().is_pending());
            let [begun, _] = count(&counts);
            let wakes = second.wakes();
            if cancelled {
                stop.cancel();
                let Poll::Ready(Err(failure)) = first.poll() else { panic!("it is cancelled") };
                assert_eq!(failure.error().code(), ErrorCode::Canceled);
            } else {
                drop(first);
            }
            assert!(second.wakes() > wakes, "it hears that there is work");
            assert!(second.run().is_pending());
            assert_eq!(count(&counts), [begun + 1, 0], "begun anew");
            gate.open();
            assert!(matches!(second.run(), Poll::Ready(Ok(report)) if report.succeeded() == 4));
            assert_eq!(count(&counts)[1], 4);
        }
    }
}

#[test]
fn a_token_that_is_cancelled_while_its_rollback_is_held_ends_its_attempt() {
    let (scope, gate, counts) = gated(3);
    let stop = CancellationSource::new();
    let policy = CompensationPolicy::default();
    let mut first = Hand::new(scope.roll_back(&policy).cancellation(stop.token()));
    let mut second = Hand::new(scope.roll_back(&policy));
    assert!(first.run().is_pending());
    assert!(second.run().is_pending());
    let wakes = second.wakes();
    stop.cancel();
    assert!(second.wakes() > wakes);
    assert!(second.run().is_pending());
    assert_eq!(count(&counts), [2, 0], "the second one has begun its own attempt");
    gate.open();
    assert!(matches!(second.run(), Poll::Ready(Ok(report)) if report.succeeded() == 3));
    assert!(first.poll().is_ready());
}

#[test]
fn an_attempt_runs_under_the_terms_of_the_rollback_that_started_it() {
    let (slow, fast) = (ManualClock::new(), ManualClock::new());
    let clocks: [Arc<dyn Clock>; 2] = [Arc::new(slow.clone()), Arc::new(fast.clone())];
    let scope = CompensationScope::new();
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&tokens);
    scope.register_compensation(with_step(move |step: StepContext| {
        list.lock().unwrap().push(step.cancellation().clone());
        async { Err::<(), _>("no") }
    }));
    let (one, two) = (CancellationSource::new(), CancellationSource::new());
    let policy = |wait| CompensationPolicy::default().retry(RetryPolicy::fixed(2, wait));
    let first = scope.roll_back(&policy(SECOND)).clock(&clocks[0]).cancellation(one.token());
    let second = scope.roll_back(&policy(3 * SECOND)).clock(&clocks[1]).cancellation(two.token());
    let (mut first, mut second) = (Hand::new(first), Hand::new(second));
    assert!(first.run().is_pending());
    assert!(second.run().is_pending());
    fast.advance(10 * SECOND);
    assert!(second.run().is_pending(), "the wait is by the clock of the first");
    assert_eq!(tokens.lock().unwrap().len(), 1);
    slow.advance(SECOND);
    let Poll::Ready(Err(failure)) = second.run() else { panic!("both attempts have failed") };
    assert_eq!(failure.report().failures()[0].attempts(), 2);
    two.cancel();
    assert!(tokens.lock().unwrap().iter().all(|token| !token.is_cancelled()));
    one.cancel();
    assert!(tokens.lock().unwrap().iter().all(|token| token.is_cancelled()));
    drop(first);
    assert_eq!(scope.clear(), 1);
}

#[test]
fn an_action_that_failed_runs_once_and_is_told_to_all_who_waited_for_it() {
    for left in policies() {
        for right in policies() {
            let (scope, attempts) = (CompensationScope::new(), Arc::new(AtomicUsize::new(0)));
            let counted = Arc::clone(&attempts);
            scope.register_compensation(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                async {
                    yields(1).await;
                    Err::<(), _>("no")
                }
            });
            let mut both = [&left, &right].map(|policy| Hand::new(scope.roll_back(policy)));
            assert!(both[0].poll().is_pending());
            for index in [1, 0] {
                let Poll::Ready(Err(failure)) = both[index].run() else { panic!("it has failed") };
                assert_eq!(failure.report().failures().len(), 1);
            }
            assert_eq!((attempts.load(Ordering::SeqCst), scope.clear()), (1, 1));
        }
    }
}

#[test]
fn what_had_failed_before_a_rollback_came_is_run_by_it() {
    let (scope, gate, _) = gated(1);
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    scope.register_compensation(move || {
        let attempt = counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready(if attempt == 0 { Err("no") } else { Ok(()) })
    });
    let mut first = Hand::new(scope.roll_back(&CompensationPolicy::default()));
    assert!(first.run().is_pending(), "one has failed, the other waits");
    let mut second = Hand::new(scope.roll_back(&CompensationPolicy::default()));
    assert!(second.run().is_pending());
    assert_eq!((attempts.load(Ordering::SeqCst), scope.len()), (1, 2));
    gate.open();
    let Poll::Ready(Err(failure)) = first.run() else { panic!("one of its actions has failed") };
    assert_eq!((failure.report().succeeded(), failure.report().failures().len()), (1, 1));
    let Poll::Ready(Ok(report)) = second.run() else { panic!("it ran what had failed") };
    assert_eq!((report.succeeded(), attempts.load(Ordering::SeqCst)), (2, 2));
    assert!(scope.is_empty());
}

#[test]
fn an_action_that_awaits_the_rollback_of_its_own_scope_gets_an_error() {
    for policy in policies() {
        let other = policy.clone();
        let ended = within(10 * SECOND, move || {
            let context = StepContext::new("orders");
            let seen = Arc::new(Mutex::new(Vec::new()));
            let (inner, list) = (context.scope().clone(), Arc::clone(&seen));
            let own = other.clone();
            context.register_compensation(move || {
                let (inner, list, own) = (inner.clone(), Arc::clone(&list), own.clone());
                async move {
                    yields(1).await;
                    // Directly, through a clone, through a step, and behind another scope's rollback.
                    let result = inner.roll_back(&own).await;
                    list.lock().unwrap().push(result);
                    let step = StepContext::new("inside").with_scope(inner.clone());
                    let result = step.roll_back(&own).await;
                    list.lock().unwrap().push(result);
                    let (outer, deep, late) =
                        (CompensationScope::new(), inner.clone(), own.clone());
                    let found = Arc::clone(&list);
                    outer.register_compensation(move || {
                        let (deep, late) = (deep.clone(), late.clone());
                        let found = Arc::clone(&found);
                        async move {
                            let result = deep.roll_back(&late).await;
                            found.lock().unwrap().push(result);
                        }
                    });
                    outer.roll_back(&own).await.map(drop)
                }
            });
            let report = block_on(context.roll_back(&other)).unwrap();
            assert_eq!(report.succeeded(), 1);
            let seen = std::mem::take(&mut *seen.lock().unwrap());
            assert_eq!(seen.len(), 3);
            for result in seen {
                assert_eq!(result.unwrap_err().error().code(), ErrorCode::Validation);
            }
        });
        assert!(ended.is_some(), "deadlock: {policy:?}");
    }
}

#[test]
fn rollbacks_on_threads_run_each_action_once_also_where_some_are_dropped() {
    let done = Arc::new(AtomicUsize::new(0));
    let scope = CompensationScope::new();
    for number in 0..4_000 {
        scope.register_compensation_with(Arc::clone(&done), move |done| async move {
            yields(number % 3).await;
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    std::thread::scope(|threads| {
        for index in 0..4 {
            let scope = &scope;
            threads.spawn(move || {
                let policy = &policies()[index % 3];
                for polls in 0..50 {
                    let mut dropped = Hand::new(scope.roll_back(policy));
                    (0..polls % 7).for_each(|_| drop(dropped.poll()));
                }
                block_on(scope.roll_back(policy)).unwrap();
            });
        }
    });
    assert_eq!((done.load(Ordering::SeqCst), scope.len()), (4_000, 0));
}

#[test]
fn a_scope_is_as_good_as_new_when_its_rollbacks_have_gone() {
    for policy in policies() {
        let (scope, gate, counts) = gated(2);
        for _ in 0..100 {
            let mut both = [(); 2].map(|()| Hand::new(scope.roll_back(&policy)));
            assert!(both.iter_mut().all(|rollback| rollback.run().is_pending()));
            assert_eq!(scope.len(), 2);
        }
        gate.open();
        assert_eq!(roll_back(&scope), 2);
        assert_eq!(count(&counts)[1], 2);
    }
}
