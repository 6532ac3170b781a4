//! Every subset of the compensations fails.

use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use watershed::testing::Simulation;
use watershed::{
    BoxError, Clock, CompensationPolicy, CompensationScope, Error, ErrorCode, Failure as Failed,
    RetryPolicy, RollbackReport, labelled,
};

use crate::effort::effort;
use crate::scenario::quiet;

/// How a compensation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Error,
    PanicInCall,
    PanicInPoll,
}

/// The compensations of one run, and the order in which they were tried.
struct Staged {
    simulation: Simulation,
    scope: CompensationScope,
    places: Vec<&'static Location<'static>>,
    tried: Arc<Mutex<Vec<usize>>>,
    broken: Arc<AtomicBool>,
}

impl Staged {
    /// So many of them, from three places; those in `failing` fail as long as `broken` is set, or
    /// only when they are tried for the first time.
    fn new(count: usize, failing: u64, failure: Failure, once: bool) -> Self {
        let (tried, broken) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        let (simulation, scope) = (Simulation::new(failing), CompensationScope::new());
        let mut staged = Self { simulation, scope, places: Vec::new(), tried, broken };
        for number in 0..count {
            let fails = failing >> number & 1 == 1;
            #[expect(clippy::match_same_arms, reason = "each is a place of its own")]
            let place = match number % 3 {
                0 => staged.stage(number, fails, failure, once),
                1 => staged.stage(number, fails, failure, once),
                _ => staged.stage(number, fails, failure, once),
            };
            staged.places.push(place);
        }
        staged
    }

    #[track_caller]
    fn stage(
        &self,
        number: usize,
        fails: bool,
        failure: Failure,
        once: bool,
    ) -> &'static Location<'static> {
        let (tried, broken) = (Arc::clone(&self.tried), Arc::clone(&self.broken));
        let (world, mut first) = (self.simulation.world().clone(), true);
        let action = move || {
            tried.lock().expect("no panic under the lock").push(number);
            let fails = fails && broken.load(Ordering::SeqCst) && (first || !once);
            first = false;
            if fails && failure == Failure::PanicInCall {
                std::panic::panic_any(format!("injected at: {number}"));
            }
            let pause = world.pause();
            async move {
                pause.await;
                match failure {
                    Failure::PanicInPoll if fails => {
                        std::panic::panic_any(format!("injected at: {number}"))
                    }
                    _ if fails => Err(BoxError::from(format!("{number} is broken"))),
                    _ => Ok(()),
                }
            }
        };
        self.scope.register_compensation(labelled(format!("action {number}"), action));
        Location::caller()
    }

    fn roll_back(
        &self,
        policy: &CompensationPolicy,
    ) -> Result<RollbackReport, Failed<RollbackReport>> {
        let clock: Arc<dyn Clock> = Arc::new(self.simulation.world().clock().clone());
        let rollback = self.scope.roll_back(policy).clock(&clock);
        self.simulation.run(rollback).expect("the rollback ends")
    }

    /// What was tried since the last call.
    fn tried(&self) -> Vec<usize> {
        std::mem::take(&mut *self.tried.lock().expect("no panic under the lock"))
    }
}

/// The numbers in a subset, in the order in which they are undone.
fn in_reverse(count: usize, subset: u64) -> Vec<usize> {
    (0..count).rev().filter(|number| subset >> number & 1 == 1).collect()
}

fn policies() -> [(CompensationPolicy, bool); 3] {
    let limited = CompensationPolicy::parallel_limited(3);
    let sequential = CompensationPolicy::sequential_reverse();
    [(sequential, true), (CompensationPolicy::parallel(), false), (limited, false)]
}

/// The same numbers, those of an order that nobody promises sorted.
fn ordered(mut numbers: Vec<usize>, in_order: bool) -> Vec<usize> {
    if !in_order {
        numbers.sort_unstable_by(|a, b| b.cmp(a));
    }
    numbers
}

/// What a rollback told of those that failed: nothing left out, nothing twice.
fn check_report(
    staged: &Staged,
    result: Result<RollbackReport, Failed<RollbackReport>>,
    failed: &[usize],
    failure: Failure,
    in_order: bool,
) {
    let error = match result {
        Ok(report) => {
            assert!(failed.is_empty() && report.failures().is_empty());
            assert_eq!(report.succeeded(), staged.places.len());
            return;
        }
        Err(failure) => failure,
    };
    let (error, report) = error.into_parts();
    assert_eq!(error.code(), ErrorCode::Compensation);
    assert_eq!(report.succeeded(), staged.places.len() - failed.len());
    assert_eq!(report.failures().len(), failed.len());
    let number = |error: &Error| -> usize {
        let label = error.metadata("label").and_then(|label| label.strip_prefix("action "));
        label.and_then(|label| label.parse().ok()).expect("its label")
    };
    let told = error.related().iter().map(number).collect();
    assert_eq!(ordered(told, in_order), failed);
    let code = match failure {
        Failure::Error => ErrorCode::Compensation,
        Failure::PanicInCall | Failure::PanicInPoll => ErrorCode::Panic,
    };
    for (error, action) in error.related().iter().zip(report.failures()) {
        let number = number(error);
        assert_eq!(action.registered_at(), staged.places[number]);
        assert_eq!(error.metadata("registered_at"), Some(&*staged.places[number].to_string()));
        assert_eq!((error.code(), action.error().code()), (code, code));
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let cause = cause.unwrap_or_else(|| error.to_string());
        assert!(cause.contains(&number.to_string()), "{cause}");
    }
}

// Rules 4.2, 4.4, 4.6
#[test]
fn every_subset_of_the_compensations_fails_and_is_undone_by_the_next_rollback() {
    quiet();
    let (mut runs, mut failures) = (0_u64, 0);
    let most = effort(6, 10, 14);
    for count in 0..=most {
        for subset in 0..1_u64 << count {
            for failure in [Failure::Error, Failure::PanicInCall, Failure::PanicInPoll] {
                for (policy, in_order) in policies() {
                    let staged = Staged::new(count, subset, failure, false);
                    let all: Vec<_> = (0..count).rev().collect();
                    let failed = in_reverse(count, subset);
                    for _ in 0..2 {
                        // The second time only those run that failed the first time.
                        let before = staged.scope.len();
                        let result = staged.roll_back(&policy);
                        let tried = if before == count { &all } else { &failed };
                        assert_eq!(staged.tried(), *tried, "{policy:?}, {subset:b} of {count}");
                        assert_eq!(staged.scope.len(), failed.len(), "what failed is staged");
                        if before == count {
                            check_report(&staged, result, &failed, failure, in_order);
                        } else {
                            assert_eq!(result.is_err(), !failed.is_empty());
                        }
                    }
                    staged.broken.store(false, Ordering::SeqCst);
                    let last = staged.roll_back(&policy).expect("all are mended");
                    assert_eq!((last.succeeded(), staged.tried()), (failed.len(), failed));
                    assert!(staged.scope.is_empty());
                    runs += 1;
                    failures += u64::from(subset.count_ones());
                }
            }
        }
    }
    assert_eq!(runs, 9 * ((2 << most) - 1), "every subset, three kinds of failure, three policies");
    println!("subsets of up to {most}: {runs} runs, {failures} failures, each told and run again");
}

// Rules 4.2, 4.4, 4.6
#[test]
fn every_subset_of_the_compensations_succeeds_at_the_second_attempt() {
    quiet();
    let (mut runs, mut retries) = (0_u64, 0);
    let most = effort(6, 10, 14);
    for count in 0..=most {
        for subset in 0..1_u64 << count {
            for failure in [Failure::Error, Failure::PanicInCall, Failure::PanicInPoll] {
                for (policy, in_order) in policies() {
                    for wait in [Duration::ZERO, Duration::from_millis(7)] {
                        let policy = policy.clone().retry(RetryPolicy::fixed(2, wait));
                        let staged = Staged::new(count, subset, failure, true);
                        let report = staged.roll_back(&policy).expect("all succeed in the end");
                        assert_eq!((report.succeeded(), staged.scope.len()), (count, 0));
                        let again = |number: usize| 1 + (subset >> number & 1) as usize;
                        let expected: Vec<_> = (0..count)
                            .rev()
                            .flat_map(|number| std::iter::repeat_n(number, again(number)))
                            .collect();
                        assert_eq!(ordered(staged.tried(), in_order), expected);
                        runs += 1;
                        retries += u64::from(subset.count_ones());
                    }
                }
            }
        }
    }
    assert_eq!(runs, 18 * ((2 << most) - 1), "as above, with and without a pause");
    println!("subsets of up to {most}, tried again: {runs} runs, {retries} second attempts");
}
