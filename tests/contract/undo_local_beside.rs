//! Actions that are not `Send`, in rollbacks at once of which some were not given them. Rules 4.4,
//! 4.10, 4.15.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use watershed::{
    Clock, CompensationPolicy, CompensationScope, LocalUndos, ManualClock, RetryPolicy, labelled,
};

use crate::support::{Gate, Hand, policies, timed};

const SECOND: Duration = Duration::from_secs(1);

/// One action that is not `Send`, and behind it one that waits for the gate.
struct Stage {
    scope: CompensationScope,
    undos: LocalUndos,
    gate: Gate,
    ran: Rc<Cell<usize>>,
}

impl Stage {
    /// The action fails so often before it succeeds.
    fn new(fails: usize) -> Self {
        let (scope, undos, gate) = (CompensationScope::new(), LocalUndos::new(), Gate::default());
        let ran: Rc<Cell<usize>> = Rc::default();
        let runs = Rc::clone(&ran);
        let action = move || {
            runs.set(runs.get() + 1);
            let result = if runs.get() > fails { Ok(()) } else { Err("not yet") };
            async move { result }
        };
        undos.register(&scope, labelled("local", action));
        let stage = Self { scope, undos, gate, ran };
        stage.wait_behind();
        stage
    }

    fn wait_behind(&self) {
        let gate = self.gate.clone();
        self.scope.register_compensation(move || {
            let gate = gate.clone();
            async move { gate.wait().await }
        });
    }
}

#[test]
fn what_one_was_not_given_the_other_one_runs_and_nobody_says_that_it_failed() {
    for given in policies() {
        for other in policies() {
            let stage = Stage::new(0);
            let mut given = Hand::new(stage.scope.roll_back(&given).local(&stage.undos));
            let mut other = Hand::new(stage.scope.roll_back(&other));
            // A rollback that runs one action at a time has not come to it.
            assert!(other.run().is_pending());
            assert!(given.run().is_pending());
            stage.gate.open();
            let other = other.run();
            let Poll::Ready(Ok(report)) = given.run() else { panic!("it has all it needs") };
            assert_eq!((report.succeeded(), report.failures().len(), stage.ran.get()), (2, 0, 1));
            let Poll::Ready(other) = other else { panic!("nobody holds it up") };
            if let Err(failure) = other {
                let failures = failure.report().failures();
                assert_eq!(failures.len(), 1);
                assert!(failures[0].error().to_string().contains("not given"));
            }
            assert_eq!((stage.scope.len(), stage.undos.len()), (0, 0));
        }
    }
}

#[test]
fn one_that_can_run_it_is_woken_while_the_other_one_still_waits() {
    for given in [CompensationPolicy::parallel(), CompensationPolicy::parallel_limited(2)] {
        let stage = Stage::new(0);
        stage.wait_behind();
        let mut given = Hand::new(stage.scope.roll_back(&given).local(&stage.undos));
        let at_once = CompensationPolicy::parallel();
        let mut other = Hand::new(stage.scope.roll_back(&at_once));
        assert!(other.run().is_pending(), "it has started two and could not start the third");
        assert!(given.run().is_pending());
        let before = given.wakes();
        let mut late = Hand::new(stage.scope.roll_back(&at_once));
        assert!(late.run().is_pending());
        drop(other);
        assert!(given.wakes() > before);
        stage.gate.open();
        assert!(matches!(given.run(), Poll::Ready(Ok(_))));
        assert!(matches!(late.run(), Poll::Ready(Ok(_))), "it was run meanwhile");
        assert_eq!(stage.ran.get(), 1);
    }
}

#[test]
fn one_that_was_given_it_and_failed_with_it_does_not_run_it_once_more_for_others_that_cannot() {
    for policy in policies() {
        let stage = Stage::new(usize::MAX);
        stage.wait_behind();
        let terms = CompensationPolicy::parallel();
        let mut given = Hand::new(stage.scope.roll_back(&terms).local(&stage.undos));
        assert!(given.run().is_pending());
        assert_eq!(stage.ran.get(), 1);
        let mut others: Vec<_> =
            (0..3).map(|_| Hand::new(stage.scope.roll_back(&policy))).collect();
        for other in &mut others {
            assert!(other.run().is_pending());
        }
        assert!(given.run().is_pending());
        stage.gate.open();
        for other in &mut others {
            let Poll::Ready(Err(failure)) = other.run() else { panic!("it cannot run it") };
            assert_eq!(failure.report().failures().len(), 1);
        }
        let Poll::Ready(Err(failure)) = given.run() else { panic!("it could not undo it") };
        let failures = failure.report().failures();
        assert_eq!((failures.len(), stage.ran.get(), stage.scope.len()), (1, 1, 1), "{policy:?}");
        stage.scope.clear();
    }
}

#[test]
fn each_runs_what_it_was_given_whoever_comes_upon_it_first() {
    for policy in policies() {
        let (scope, gate) = (CompensationScope::new(), Gate::default());
        let log: Rc<RefCell<Vec<usize>>> = Rc::default();
        let values: Vec<LocalUndos> = (0..3).map(|_| LocalUndos::new()).collect();
        for (n, undos) in values.iter().enumerate() {
            let log = Rc::clone(&log);
            undos.register(&scope, move || {
                log.borrow_mut().push(n);
                async {}
            });
        }
        let closed = gate.clone();
        scope.register_compensation(move || {
            let gate = closed.clone();
            async move { gate.wait().await }
        });
        let rollback = |undos: &LocalUndos| Hand::new(scope.roll_back(&policy).local(undos));
        let mut rollbacks: Vec<_> = values.iter().map(rollback).collect();
        assert!(rollbacks.iter_mut().all(|rollback| rollback.run().is_pending()));
        gate.open();
        for rollback in &mut rollbacks {
            let ended = rollback.run();
            let Poll::Ready(ended) = ended else { panic!("nobody waits for another one") };
            let left = ended.map_or_else(|failure| failure.report().failures().len(), |_| 0);
            assert!(left <= 2);
        }
        let mut ran = log.take();
        ran.sort_unstable();
        assert_eq!((ran, scope.len()), (vec![0, 1, 2], 0), "{policy:?}");
    }
}

#[test]
fn one_that_goes_away_in_the_middle_of_it_leaves_it_to_another_that_was_given_it() {
    let (scope, undos) = (CompensationScope::new(), LocalUndos::new());
    let ran: Rc<Cell<usize>> = Rc::default();
    let (runs, gate) = (Rc::clone(&ran), Gate::default());
    let closed = gate.clone();
    undos.register(&scope, move || {
        runs.set(runs.get() + 1);
        let gate = closed.clone();
        async move { gate.wait().await }
    });
    let held = Gate::default();
    let waits = held.clone();
    scope.register_compensation(move || {
        let gate = waits.clone();
        async move { gate.wait().await }
    });
    let policy = CompensationPolicy::sequential_reverse();
    let given = || Hand::new(scope.roll_back(&policy).local(&undos));
    let (mut first, mut second) = (given(), given());
    assert!(first.run().is_pending());
    assert!(second.run().is_pending());
    let at_once = CompensationPolicy::parallel();
    let mut other = Hand::new(scope.roll_back(&at_once));
    assert!(other.run().is_pending(), "it could not run it");
    held.open();
    assert!(matches!(other.run(), Poll::Ready(Err(_))));
    assert!(first.run().is_pending());
    assert_eq!(ran.get(), 1);
    drop(first);
    assert!(second.run().is_pending());
    assert_eq!(ran.get(), 2);
    gate.open();
    assert!(matches!(second.run(), Poll::Ready(Ok(_))));
    assert_eq!((scope.len(), undos.len()), (0, 0));
}

#[test]
fn what_could_not_be_run_is_withdrawn_cleared_and_counted_like_any_other() {
    for how in 0..3 {
        let stage = Stage::new(0);
        let runs = Rc::clone(&stage.ran);
        let reservation = stage.undos.reserve(&stage.scope, move || {
            runs.set(runs.get() + 1);
            async {}
        });
        let one_by_one = CompensationPolicy::sequential_reverse();
        let mut given = Hand::new(stage.scope.roll_back(&one_by_one).local(&stage.undos));
        let mut other = Hand::new(stage.scope.roll_back(&CompensationPolicy::parallel()));
        assert!(other.run().is_pending());
        assert_eq!((stage.scope.len(), stage.undos.len()), (3, 2));
        match how {
            0 => assert!(reservation.disarm()),
            1 => assert_eq!(stage.scope.clear(), 2, "one is on its way"),
            _ => drop(reservation),
        }
        stage.gate.open();
        assert!(matches!(given.run(), Poll::Ready(Ok(_))), "{how}");
        // What it had given up before it was withdrawn, it tells.
        let Poll::Ready(other) = other.run() else { panic!("nothing is left: {how}") };
        let told = other.map_or_else(|failure| failure.report().failures().len(), |_| 0);
        assert_eq!(told, [1, 0, 0][how]);
        assert_eq!(stage.ran.get(), [1, 0, 2][how]);
        assert_eq!((stage.scope.len(), stage.undos.len()), (0, 0));
    }
}

#[test]
fn one_that_cannot_run_it_does_not_try_again() {
    for policy in policies() {
        let stage = Stage::new(0);
        let clock = ManualClock::new();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let terms = policy.clone().retry(RetryPolicy::fixed(u32::MAX, SECOND));
        let mut other = Hand::new(stage.scope.roll_back(&terms).clock(&shared));
        let mut given = Hand::new(stage.scope.roll_back(&policy).local(&stage.undos));
        assert!(other.run().is_pending());
        assert!(given.run().is_pending());
        stage.gate.open();
        let Poll::Ready(other) = other.run() else { panic!("it has nothing to wait for") };
        if let Err(failure) = other {
            assert_eq!(failure.report().failures()[0].attempts(), 1);
        }
        assert!(matches!(given.run(), Poll::Ready(Ok(_))), "{policy:?}");
        assert_eq!(clock.sleepers(), 0);
    }
}

#[test]
fn what_each_of_them_is_to_run_still_goes_from_the_last_to_the_first() {
    let (scope, undos, gate) = (CompensationScope::new(), LocalUndos::new(), Gate::default());
    let log: Rc<RefCell<Vec<usize>>> = Rc::default();
    let note = |number: usize| {
        let log = Rc::clone(&log);
        undos.register(&scope, move || {
            log.borrow_mut().push(number);
            async {}
        });
    };
    note(1);
    let closed = gate.clone();
    scope.register_compensation(move || {
        let gate = closed.clone();
        async move { gate.wait().await }
    });
    note(2);
    let policy = CompensationPolicy::sequential_reverse();
    let mut other = Hand::new(scope.roll_back(&policy));
    assert!(other.run().is_pending(), "it could not run the last one, and waits with the next");
    let mut given = Hand::new(scope.roll_back(&policy).local(&undos));
    assert!(given.run().is_pending());
    let mut late = Hand::new(scope.roll_back(&policy));
    assert!(late.run().is_pending());
    gate.open();
    assert!(late.run().is_ready() | other.run().is_ready());
    assert!(matches!(given.run(), Poll::Ready(Ok(_))));
    assert_eq!(*log.borrow(), [2, 1]);
}

#[test]
fn a_hundred_thousand_that_one_could_not_run_take_linear_time() {
    let crowd = |actions: usize| {
        let stage = Stage::new(0);
        for _ in 0..actions {
            let runs = Rc::clone(&stage.ran);
            stage.undos.register(&stage.scope, move || {
                runs.set(runs.get() + 1);
                async {}
            });
        }
        let one_by_one = CompensationPolicy::sequential_reverse();
        let at_once = CompensationPolicy::parallel_limited(64);
        let mut given = Hand::new(stage.scope.roll_back(&one_by_one).local(&stage.undos));
        let mut other = Hand::new(stage.scope.roll_back(&at_once));
        assert!(other.run().is_pending());
        stage.gate.open();
        assert!(matches!(given.run(), Poll::Ready(Ok(_))));
        assert_eq!(stage.ran.get(), actions + 1);
    };
    let ((), few) = timed(|| crowd(10_000));
    let ((), many) = timed(|| crowd(100_000));
    assert!(many < 40 * few + SECOND, "{few:?} and {many:?}");
}
