//! Rollbacks of one scope at once, beside whoever registers, counts and clears.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use super::super::effects::Effects;
use super::super::executor::{block_on, give_way, polls};
use super::{draw, one_in, pct_schedules, random_schedules};
use crate::sync::thread;
use crate::{
    BoxError, CancellationSource, CancellationToken, CompensationPolicy, CompensationScope,
    RetryPolicy,
};

/// Actions at the beginning, and those that are registered by the way.
const FIRST: usize = 4;
const LATE: usize = 2;

/// How one rollback is run.
struct Plan {
    policy: CompensationPolicy,
    /// It is dropped after so many polls.
    patience: usize,
    /// Its token is cancelled by the main thread.
    stop: Option<CancellationSource>,
}

impl Plan {
    fn draw() -> Self {
        let policy = match draw(5) {
            0 => CompensationPolicy::parallel(),
            1 => CompensationPolicy::parallel_limited(2),
            _ => CompensationPolicy::sequential_reverse(),
        };
        let twice = RetryPolicy::fixed(2, Default::default());
        let policy = if one_in(3) { policy.retry(twice) } else { policy };
        let patience = if one_in(3) { 1 + draw(4) } else { usize::MAX };
        Self { policy, patience, stop: one_in(4).then(CancellationSource::new) }
    }

    fn is_patient(&self) -> bool {
        self.patience == usize::MAX && self.stop.is_none()
    }
}

/// Stages the undoing of an effect, whose first attempt fails now and then.
fn stage(scope: &CompensationScope, effects: &Effects, index: usize) {
    let (ways, fails) = (draw(3), one_in(5));
    if fails {
        let (held, failed) = (effects.held(index), Arc::new(AtomicBool::new(false)));
        scope.register_compensation(move || {
            let (effects, failed) = (held.effects().clone(), Arc::clone(&failed));
            async move {
                give_way().await;
                if failed.swap(true, SeqCst) {
                    effects.run(index, ways).await;
                    return Ok(());
                }
                Err(BoxError::from("the first attempt fails"))
            }
        });
    } else {
        scope.register_compensation(effects.undo(index, ways));
    }
}

fn rollbacks() -> (usize, usize) {
    let (scope, effects) = (CompensationScope::new(), Effects::new(FIRST + LATE));
    for index in 0..FIRST {
        stage(&scope, &effects, index);
    }
    let clears = one_in(4);
    let (staged, answers) = (Arc::new(AtomicUsize::new(FIRST)), Arc::new(AtomicUsize::new(0)));
    let plans = [0, 1, 2].map(|_| Plan::draw());
    let plans: Vec<_> = plans.into_iter().take(2 + draw(2)).collect();
    let stops: Vec<_> = plans.iter().filter_map(|plan| plan.stop.clone()).collect();
    let mut threads = Vec::new();
    for plan in plans {
        let (scope, effects, answers) = (scope.clone(), effects.clone(), Arc::clone(&answers));
        threads.push(thread::spawn(move || {
            let patient = plan.is_patient();
            let token = plan.stop.map_or_else(CancellationToken::never, |stop| stop.token());
            let rollback = scope.roll_back(&plan.policy).cancellation(token);
            let Some(result) = block_on(polls(rollback, plan.patience)) else { return };
            if patient && !clears {
                // What was there at the beginning has been tried, and has ended.
                for index in 0..FIRST {
                    let failed = result.is_err() && effects.undone(index) == 0;
                    assert!(failed || effects.undone(index) == 1, "effect {index}");
                }
                answers.fetch_add(1, SeqCst);
            }
        }));
    }
    let late = {
        let (scope, effects, staged) = (scope.clone(), effects.clone(), Arc::clone(&staged));
        thread::spawn(move || {
            for index in FIRST..FIRST + LATE {
                stage(&scope, &effects, index);
                staged.fetch_add(1, SeqCst);
                let len = scope.len();
                assert!(len <= FIRST + LATE, "{len} actions");
            }
        })
    };
    if clears {
        assert!(scope.clear() <= FIRST + LATE);
    }
    for stop in stops {
        stop.cancel();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    late.join().unwrap();
    // What is left is run to its end: a first attempt that fails does so once.
    for _ in 0..2 {
        let rollback = CompensationPolicy::sequential_reverse();
        let _ = block_on(scope.roll_back(&rollback));
    }
    assert!(scope.is_empty());
    if clears {
        assert!(effects.undone_in_all() <= FIRST + LATE);
    } else {
        assert_eq!(effects.undone_in_all(), FIRST + LATE);
    }
    effects.assert_gone();
    effects.undone_and_kept()
}

// Rules 4.4, 4.5, 4.7 and 4.10
#[test]
fn random_rollbacks_undo_every_effect_once() {
    random_schedules("rollbacks of one scope", "undone", 100_000, rollbacks);
}

// Rules 4.4, 4.5, 4.7 and 4.10
#[test]
fn pct_rollbacks_undo_every_effect_once() {
    pct_schedules("rollbacks of one scope", "undone", 100_000, rollbacks);
}
