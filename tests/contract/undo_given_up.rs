//! What becomes of an action that a rollback has given up, while others are there. Rules 4.4, 4.10.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use watershed::{
    CancellationSource, Clock, CompensationPolicy, CompensationScope, Failure, ManualClock,
    Rollback, RollbackReport, labelled,
};

use crate::support::{Gate, Hand, block_on};

const SECOND: Duration = Duration::from_secs(1);

/// What the attempts at the action come to, the first one first; those after it hang.
#[derive(Clone, Copy, PartialEq)]
enum Attempt {
    Fails,
    Hangs,
    Succeeds,
}

/// A scope with an action that does as it is told at each attempt, above one that waits for a gate.
struct Scene {
    scope: CompensationScope,
    gate: Gate,
    attempts: Arc<AtomicUsize>,
}

fn scene(reserved: bool, script: &'static [Attempt]) -> Scene {
    let (scope, gate) = (CompensationScope::new(), Gate::default());
    let (waits, attempts) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    scope.register_compensation(move || {
        let gate = waits.clone();
        async move { gate.wait().await }
    });
    let counted = Arc::clone(&attempts);
    let action = labelled("refund", move || {
        let attempt = counted.fetch_add(1, Ordering::SeqCst);
        let attempt = script.get(attempt).copied().unwrap_or(Attempt::Hangs);
        async move {
            match attempt {
                Attempt::Fails => Err("no"),
                Attempt::Hangs => std::future::pending().await,
                Attempt::Succeeds => Ok(()),
            }
        }
    });
    if reserved {
        drop(scope.reserve(action));
    } else {
        scope.register_compensation(action);
    }
    Scene { scope, gate, attempts }
}

impl Scene {
    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }
}

fn policies() -> [CompensationPolicy; 3] {
    [
        CompensationPolicy::sequential_reverse(),
        CompensationPolicy::parallel(),
        CompensationPolicy::parallel_limited(3),
    ]
}

fn labels(result: Poll<Result<RollbackReport, Failure<RollbackReport>>>) -> (usize, Vec<String>) {
    let report = match result {
        Poll::Ready(Ok(report)) => report,
        Poll::Ready(Err(failure)) => failure.report().clone(),
        Poll::Pending => panic!("it has an answer"),
    };
    let labels = report.failures().iter().filter_map(|failed| failed.label());
    (report.succeeded(), labels.map(ToOwned::to_owned).collect())
}

fn hand(scope: &CompensationScope, policy: &CompensationPolicy) -> Hand<Rollback> {
    Hand::new(scope.roll_back(policy))
}

#[test]
fn a_rollback_that_gave_an_action_up_does_not_begin_it_again_when_a_later_one_goes_away() {
    for policy in policies() {
        for (reserved, cancels) in [(false, false), (false, true), (true, false), (true, true)] {
            let scene = scene(reserved, &[Attempt::Fails]);
            let mut first = hand(&scene.scope, &policy);
            assert!(first.run().is_pending(), "one has failed, the other waits");
            let stop = CancellationSource::new();
            let later = scene.scope.roll_back(&CompensationPolicy::parallel());
            let mut later = Hand::new(later.cancellation(stop.token()));
            assert!(later.run().is_pending());
            assert_eq!(scene.attempts(), 2, "the later one has begun it");
            if cancels {
                stop.cancel();
                assert!(matches!(later.run(), Poll::Ready(Err(_))));
            }
            drop(later);
            assert!(first.run().is_pending());
            assert_eq!(scene.attempts(), 2, "{policy:?}");
            assert_eq!(scene.scope.len(), 2);
            scene.gate.open();
            assert_eq!(labels(first.run()), (1, vec!["refund".to_owned()]));
            assert_eq!((scene.attempts(), scene.scope.clear()), (2, 1));
        }
    }
}

#[test]
fn a_token_that_stops_a_later_one_which_is_held_gives_the_action_to_nobody_who_gave_it_up() {
    let scene = scene(false, &[Attempt::Fails]);
    let mut first = hand(&scene.scope, &CompensationPolicy::default());
    assert!(first.run().is_pending());
    let stop = CancellationSource::new();
    let later = scene.scope.roll_back(&CompensationPolicy::parallel());
    let mut later = Hand::new(later.cancellation(stop.token()));
    assert!(later.run().is_pending());
    stop.cancel();
    assert!(first.run().is_pending());
    assert_eq!((scene.attempts(), scene.scope.len()), (2, 2));
    assert!(matches!(later.run(), Poll::Ready(Err(_))));
    scene.gate.open();
    assert_eq!(labels(first.run()), (1, vec!["refund".to_owned()]));
    assert_eq!((scene.attempts(), scene.scope.clear()), (2, 1));
}

#[test]
fn an_action_whose_later_rollback_goes_away_is_still_to_be_run_by_those_who_have_not_run_it() {
    let scene = scene(false, &[Attempt::Fails, Attempt::Hangs, Attempt::Succeeds]);
    let mut first = hand(&scene.scope, &CompensationPolicy::default());
    assert!(first.run().is_pending());
    let mut second = hand(&scene.scope, &CompensationPolicy::default());
    assert!(second.run().is_pending(), "it waits for the one that runs");
    let mut third = hand(&scene.scope, &CompensationPolicy::parallel());
    assert!(third.run().is_pending());
    assert_eq!(scene.attempts(), 2, "the third has begun it");
    drop(third);
    scene.gate.open();
    assert_eq!(labels(second.run()), (2, vec![]));
    assert_eq!((scene.attempts(), scene.scope.len()), (3, 0));
    assert!(first.run().is_ready());
}

#[test]
fn an_action_that_fails_under_one_rollback_after_the_other_is_named_once() {
    for policy in policies() {
        let (scene, clock) = (scene(false, &[Attempt::Fails]), ManualClock::new());
        let mut first = hand(&scene.scope, &policy);
        assert!(first.run().is_pending());
        let later = CompensationPolicy::parallel().attempt_timeout(SECOND);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let mut later = Hand::new(scene.scope.roll_back(&later).clock(&shared));
        assert!(later.run().is_pending());
        clock.advance(SECOND);
        assert!(later.run().is_pending());
        assert!(first.run().is_pending());
        assert_eq!(scene.attempts(), 2);
        scene.gate.open();
        assert_eq!(labels(first.run()), (1, vec!["refund".to_owned()]));
        assert_eq!(labels(later.run()), (1, vec!["refund".to_owned()]));
        assert_eq!((scene.attempts(), scene.scope.clear()), (2, 1));
    }
}

#[test]
fn an_action_that_succeeds_under_a_later_rollback_has_not_failed() {
    for policy in policies() {
        let scene = scene(false, &[Attempt::Fails, Attempt::Succeeds]);
        let mut first = hand(&scene.scope, &policy);
        assert!(first.run().is_pending());
        let mut later = hand(&scene.scope, &CompensationPolicy::parallel());
        assert!(later.run().is_pending());
        assert_eq!((scene.attempts(), scene.scope.len()), (2, 1));
        scene.gate.open();
        assert_eq!(labels(first.run()), (2, vec![]));
        assert_eq!(labels(later.run()), (2, vec![]));
        assert!(scene.scope.is_empty());
    }
}

#[test]
fn two_rollbacks_on_threads_run_what_had_failed_at_most_once_each() {
    for _ in 0..200 {
        let scene = scene(false, &[Attempt::Fails]);
        let mut first = hand(&scene.scope, &CompensationPolicy::parallel());
        assert!(first.run().is_pending());
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    let mut later = hand(&scene.scope, &CompensationPolicy::parallel());
                    assert!(later.poll().is_pending());
                });
            }
            for _ in 0..5 {
                assert!(first.run().is_pending());
            }
        });
        assert!(first.run().is_pending());
        assert!(scene.attempts() <= 3, "{}", scene.attempts());
        scene.gate.open();
        assert_eq!(labels(first.run()), (1, vec!["refund".to_owned()]));
        assert_eq!(scene.scope.clear(), 1);
    }
}

#[test]
fn an_action_that_is_absorbed_and_comes_back_is_named_once() {
    let scene = scene(false, &[Attempt::Fails, Attempt::Fails]);
    let mut rollback = hand(&scene.scope, &CompensationPolicy::default());
    assert!(rollback.run().is_pending());
    let other = CompensationScope::new();
    other.absorb(&scene.scope);
    scene.scope.absorb(&other);
    scene.gate.open();
    assert_eq!(labels(rollback.run()), (1, vec!["refund".to_owned()]));
    assert_eq!(scene.scope.clear(), 1);
}

#[test]
fn a_rollback_names_what_failed_in_it_also_after_its_scope_was_cleared() {
    let (scene, seen) = (scene(false, &[Attempt::Fails]), Arc::new(Mutex::new(0)));
    let mut first = hand(&scene.scope, &CompensationPolicy::default());
    assert!(first.run().is_pending());
    let mut later = hand(&scene.scope, &CompensationPolicy::default());
    assert!(later.run().is_pending());
    assert_eq!(scene.scope.clear(), 1, "the one that had failed; the other is running");
    let noted = Arc::clone(&seen);
    scene.scope.register_compensation(labelled("late", move || {
        *noted.lock().unwrap() += 1;
        async { Err("no") }
    }));
    scene.gate.open();
    assert_eq!(labels(first.run()), (1, vec!["late".to_owned()]));
    assert_eq!(labels(later.run()), (1, vec!["late".to_owned()]));
    assert_eq!((*seen.lock().unwrap(), scene.scope.clear()), (1, 1));
    assert!(block_on(scene.scope.roll_back(&CompensationPolicy::default())).is_ok());
}

// Rule 4.4
#[test]
fn a_clear_does_not_forget_the_failure_of_an_action_that_is_run_again() {
    for policy in policies() {
        let scene = scene(false, &[Attempt::Fails]);
        let mut first = hand(&scene.scope, &policy);
        assert!(first.run().is_pending());
        let mut later = hand(&scene.scope, &CompensationPolicy::parallel());
        assert!(later.run().is_pending());
        assert_eq!(scene.attempts(), 2, "the action that had failed is on its way again");
        assert_eq!(scene.scope.clear(), 0, "both are running");
        drop(later);
        assert_eq!(scene.scope.len(), 2, "neither has succeeded");
        scene.gate.open();
        assert_eq!(labels(first.run()), (1, vec!["refund".to_owned()]), "{policy:?}");
        assert_eq!(scene.scope.clear(), 1);
    }
}

// Rule 4.4
#[test]
fn a_clear_forgets_the_failures_of_what_it_clears_and_each_rollback_names_its_own_of_the_others() {
    for policy in policies() {
        let scene = scene(false, &[Attempt::Fails, Attempt::Hangs, Attempt::Fails]);
        scene.scope.register_compensation(labelled("cleared", async || Err("no")));
        let mut first = hand(&scene.scope, &policy);
        assert!(first.run().is_pending());
        let mut later = hand(&scene.scope, &CompensationPolicy::parallel());
        assert!(later.run().is_pending());
        assert_eq!(scene.attempts(), 2, "the action that had failed is on its way again");
        let mut last = hand(&scene.scope, &CompensationPolicy::parallel());
        assert_eq!(scene.scope.clear(), 1);
        assert!(last.run().is_pending());
        drop(later);
        assert!(last.run().is_pending());
        assert_eq!(scene.attempts(), 3, "{policy:?}");
        scene.gate.open();
        let one = (1, vec!["refund".to_owned()]);
        assert_eq!((labels(first.run()), labels(last.run())), (one.clone(), one), "{policy:?}");
        assert_eq!(scene.scope.clear(), 1);
    }
}

#[test]
fn what_was_cleared_stays_cleared_when_the_rollback_that_had_it_in_hand_is_stopped() {
    let (scope, stop) = (CompensationScope::new(), CancellationSource::new());
    let cleared = Arc::new(Mutex::new(None));
    for number in 0..10 {
        let (own, stop, cleared) = (scope.clone(), stop.clone(), Arc::clone(&cleared));
        scope.register_compensation(move || {
            let (own, stop, cleared) = (own.clone(), stop.clone(), Arc::clone(&cleared));
            async move {
                if number == 5 {
                    *cleared.lock().unwrap() = Some(own.clear());
                    stop.cancel();
                    std::future::pending::<()>().await;
                }
            }
        });
    }
    let rollback = scope.roll_back(&CompensationPolicy::default());
    let failure = block_on(rollback.cancellation(stop.token())).unwrap_err();
    assert_eq!((failure.report().succeeded(), *cleared.lock().unwrap()), (4, Some(5)));
    assert_eq!(scope.clear(), 1, "the one that was running");
}
