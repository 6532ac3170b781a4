//! Rollbacks of one scope that run at the same time, are dropped or cancelled, and actions that are
//! registered or cleared meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::super::effects::Effects;
use super::super::executor::{block_on, poll_once};
use super::every_schedule;
use crate::sync::atomic as sync;
use crate::sync::thread::{self, JoinHandle};
use crate::{CancellationSource, CompensationPolicy, CompensationScope, Rollback};

fn start(scope: &CompensationScope, policy: &CompensationPolicy) -> Rollback {
    scope.roll_back(policy)
}

/// A scope with an action an effect, which gives way so many times.
fn staged(gives_way: &[usize]) -> (CompensationScope, Effects) {
    let (scope, effects) = (CompensationScope::new(), Effects::new(gives_way.len()));
    for (index, times) in gives_way.iter().enumerate() {
        scope.register_compensation(effects.undo(index, *times));
    }
    (scope, effects)
}

/// Two rollbacks at once; whoever has an answer finds every action at its end.
fn two_at_once(
    name: &'static str,
    interruptions: usize,
    gives_way: &'static [usize],
    policies: [CompensationPolicy; 2],
) {
    every_schedule(name, Some(interruptions), move || {
        let (scope, effects) = staged(gives_way);
        let [here, there] = policies.each_ref().map(|policy| start(&scope, policy));
        let seen = effects.clone();
        let other = thread::spawn(move || {
            let report = block_on(there).unwrap();
            seen.assert_undone();
            report.succeeded()
        });
        let succeeded = block_on(here).unwrap().succeeded();
        effects.assert_undone();
        let other = other.join().unwrap();
        assert!(succeeded.max(other) == gives_way.len() && scope.is_empty());
    });
}

// Rule 4.10
#[test]
fn two_sequential_rollbacks_run_each_action_once() {
    let policies = [const { CompensationPolicy::sequential_reverse() }; 2];
    two_at_once("two sequential rollbacks", 3, &[0, 1, 0], policies);
}

// Rules 4.1 and 4.10
#[test]
fn a_rollback_waits_for_that_of_a_scope_which_has_ended_in_its_own() {
    for policy in [CompensationPolicy::sequential_reverse(), CompensationPolicy::parallel()] {
        every_schedule("a scope ends beside its rollback", Some(3), move || {
            let (inner, effects) = staged(&[1]);
            let outer = CompensationScope::new();
            let (held, ended) = (start(&inner, &policy), effects.clone());
            let other = thread::spawn(move || drop(block_on(held)));
            inner.forward_to(&outer);
            block_on(start(&outer, &policy)).unwrap();
            ended.assert_undone();
            assert!(inner.is_empty() && outer.is_empty());
            other.join().unwrap();
        });
    }
}

// Rule 4.10
#[test]
fn two_parallel_rollbacks_run_each_action_once() {
    let policies = [const { CompensationPolicy::parallel() }; 2];
    two_at_once("two parallel rollbacks", 3, &[0, 1], policies);
}

// Rule 4.10
#[test]
fn a_sequential_and_a_parallel_rollback_run_each_action_once() {
    let policies = [CompensationPolicy::sequential_reverse(), CompensationPolicy::parallel()];
    two_at_once("a sequential and a parallel rollback", 3, &[0, 1, 0], policies);
}

// Rules 4.5 and 4.10
#[test]
fn a_rollback_that_is_dropped_leaves_its_action_to_the_other() {
    every_schedule("a rollback is dropped beside another", Some(3), || {
        let (scope, effects) = staged(&[1, 1]);
        let policy = CompensationPolicy::sequential_reverse();
        let (here, mut there) = (start(&scope, &policy), start(&scope, &policy));
        let fickle = thread::spawn(move || {
            let _ = poll_once(&mut there);
            drop(there);
        });
        block_on(here).unwrap();
        for index in 0..2 {
            assert_eq!(effects.undone(index), 1);
            assert!(effects.begun(index) <= 2);
        }
        effects.assert_gone();
        fickle.join().unwrap();
        assert!(scope.is_empty());
    });
}

// Rules 4.5 and 4.10
#[test]
fn a_rollback_that_is_cancelled_leaves_its_action_to_the_other() {
    every_schedule("a rollback is cancelled beside another", Some(2), || {
        let (scope, effects) = staged(&[1]);
        let policy = CompensationPolicy::sequential_reverse();
        let stop = CancellationSource::new();
        let here = start(&scope, &policy);
        let there = scope.roll_back(&policy).cancellation(stop.token());
        let stopped = thread::spawn(move || block_on(there).is_ok());
        let stopping = thread::spawn(move || stop.cancel());
        block_on(here).unwrap();
        assert_eq!(effects.undone(0), 1);
        effects.assert_gone();
        stopped.join().unwrap();
        stopping.join().unwrap();
        assert!(scope.is_empty());
    });
}

/// A late action, and how many older ones found it registered and ran before it. What it is known
/// by is part of the model: whoever sees it sees what led there.
#[derive(Default)]
struct Late {
    registered: sync::AtomicBool,
    undone: AtomicBool,
    overtaken_by: AtomicUsize,
}

/// So many actions, and a thread that registers a late one.
fn with_a_late_one(actions: usize) -> (CompensationScope, Arc<Late>, JoinHandle<()>) {
    let (scope, late) = (CompensationScope::new(), Arc::<Late>::default());
    for _ in 0..actions {
        let late = Arc::clone(&late);
        scope.register_compensation(move || {
            let waits = late.registered.load(Acquire) && !late.undone.load(SeqCst);
            late.overtaken_by.fetch_add(usize::from(waits), SeqCst);
            async {}
        });
    }
    let (other, later) = (scope.clone(), Arc::clone(&late));
    let registering = thread::spawn(move || {
        let undo = Arc::clone(&later);
        other.register_compensation(move || {
            undo.undone.store(true, Release);
            async {}
        });
        later.registered.store(true, Release);
    });
    (scope, late, registering)
}

impl Late {
    /// Whoever found it registered was on its way already, and the rollback went on with it.
    fn assert_in_order(&self) {
        let overtaken_by = self.overtaken_by.load(SeqCst);
        assert!(overtaken_by <= 1, "{overtaken_by} actions overtook a later one");
        assert!(overtaken_by == 0 || self.undone.load(SeqCst), "it was not run");
    }
}

// Rules 4.2 and 4.7
#[test]
fn what_is_registered_during_a_rollback_runs_in_it_and_before_what_is_older() {
    every_schedule("a registration beside a rollback", Some(3), || {
        let (scope, late, registering) = with_a_late_one(4);
        let policy = CompensationPolicy::sequential_reverse();
        block_on(start(&scope, &policy)).unwrap();
        late.assert_in_order();
        registering.join().unwrap();
        block_on(start(&scope, &policy)).unwrap();
        assert!(late.undone.load(SeqCst) && scope.is_empty());
    });
}

// Rules 4.2, 4.7 and 4.10
#[test]
fn what_is_registered_during_two_rollbacks_runs_before_what_is_older() {
    every_schedule("a registration beside two rollbacks", Some(2), || {
        let (scope, late, registering) = with_a_late_one(7);
        let policy = CompensationPolicy::sequential_reverse();
        let (here, there) = (start(&scope, &policy), start(&scope, &policy));
        let other = thread::spawn(move || block_on(there).is_ok());
        block_on(here).unwrap();
        other.join().unwrap();
        late.assert_in_order();
        registering.join().unwrap();
        block_on(start(&scope, &policy)).unwrap();
        assert!(late.undone.load(SeqCst) && scope.is_empty());
    });
}

// Rules 4.4 and 4.10
#[test]
fn a_scope_cleared_during_two_rollbacks_runs_only_what_was_running() {
    every_schedule("a scope is cleared beside two rollbacks", Some(2), || {
        let scope = CompensationScope::new();
        let (cleared, run) =
            (Arc::new(sync::AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for _ in 0..7 {
            let (cleared, run) = (Arc::clone(&cleared), Arc::clone(&run));
            scope.register_compensation(move || {
                run.fetch_add(usize::from(cleared.load(Acquire)), SeqCst);
                async {}
            });
        }
        let policy = CompensationPolicy::sequential_reverse();
        let (here, there) = (start(&scope, &policy), start(&scope, &policy));
        let other = thread::spawn(move || block_on(there).is_ok());
        let (clearing, done) = (scope.clone(), Arc::clone(&cleared));
        let clearing = thread::spawn(move || {
            clearing.clear();
            done.store(true, Release);
        });
        block_on(here).unwrap();
        other.join().unwrap();
        clearing.join().unwrap();
        let run = run.load(SeqCst);
        assert!(run <= 1, "{run} actions were begun after the scope was cleared");
        assert!(scope.is_empty());
    });
}

// Rules 4.4 and 4.10
#[test]
fn a_cleared_scope_runs_only_what_was_running() {
    every_schedule("a scope is cleared beside a rollback", Some(4), || {
        let (scope, effects) = staged(&[0, 0, 0, 0]);
        let other = scope.clone();
        let clearing = thread::spawn(move || other.clear());
        let rollback = start(&scope, &CompensationPolicy::sequential_reverse());
        let undone = block_on(rollback).unwrap().succeeded();
        clearing.join().unwrap();
        assert_eq!(undone, effects.undone_in_all());
        assert!(scope.is_empty());
        effects.assert_gone();
    });
}

// Rule 4.10
#[test]
fn the_number_of_actions_is_what_is_staged_or_running() {
    every_schedule("the actions are counted beside a rollback", Some(3), || {
        let scope = CompensationScope::new();
        // Part of the model: whoever sees an effect undone sees what led there.
        let undone = Arc::new(sync::AtomicUsize::new(0));
        for _ in 0..4 {
            let undone = Arc::clone(&undone);
            scope.register_compensation(move || {
                undone.fetch_add(1, Release);
                async {}
            });
        }
        let other = scope.clone();
        let counting = thread::spawn(move || {
            let begun = undone.load(Acquire);
            let len = other.len();
            // The last one may still be running.
            assert!(len <= 4 - begun.saturating_sub(1), "{len} with {begun} begun");
            assert!(len >= 4 - undone.load(Acquire));
        });
        block_on(start(&scope, &CompensationPolicy::sequential_reverse())).unwrap();
        counting.join().unwrap();
        assert!(scope.is_empty());
    });
}

// Rules 4.6 and 4.7
#[test]
fn a_parallel_rollback_runs_what_is_registered_while_its_actions_wait() {
    for (name, others) in [
        ("an action waits for one that is registered beside a rollback", 0),
        ("an action waits for one that is registered beside two rollbacks", 1),
    ] {
        every_schedule(name, Some(3 - others), move || {
            let (scope, late) = (CompensationScope::new(), CancellationSource::new());
            let done = late.token();
            scope.register_compensation(move || done.cancelled());
            let policy = CompensationPolicy::parallel();
            let other = (others > 0).then(|| {
                let rollback = start(&scope, &policy);
                thread::spawn(move || block_on(rollback).is_ok())
            });
            let registering = scope.clone();
            let registering = thread::spawn(move || {
                registering.register_compensation(move || {
                    late.cancel();
                    async {}
                });
            });
            block_on(start(&scope, &CompensationPolicy::parallel())).unwrap();
            registering.join().unwrap();
            if let Some(other) = other {
                other.join().unwrap();
            }
            assert!(scope.is_empty());
        });
    }
}

// Rules 4.4 and 4.5
#[test]
fn an_action_that_was_running_when_its_scope_was_cleared_stays() {
    every_schedule("a scope is cleared beside a rollback that is dropped", Some(4), || {
        let (scope, effects) = staged(&[1]);
        let other = scope.clone();
        let clearing = thread::spawn(move || other.clear());
        let mut rollback = start(&scope, &CompensationPolicy::sequential_reverse());
        let _ = poll_once(&mut rollback);
        drop(rollback);
        let cleared = clearing.join().unwrap();
        assert_eq!(cleared + scope.len(), 1);
        assert!(cleared == 0 || effects.gone(0) == 1);
        scope.clear();
        effects.assert_gone();
    });
}

// Rules 4.4 and 4.10
#[test]
fn an_action_that_failed_is_tried_once_and_stays() {
    every_schedule("an action fails in two rollbacks", Some(3), || {
        let (scope, effects) = staged(&[0]);
        let tried = Arc::new(AtomicUsize::new(0));
        let trying = Arc::clone(&tried);
        scope.register_compensation(move || {
            trying.fetch_add(1, SeqCst);
            async { Err("failed") }
        });
        let policy = CompensationPolicy::sequential_reverse();
        let (here, there) = (start(&scope, &policy), start(&scope, &policy));
        let other = thread::spawn(move || block_on(there).is_err());
        let here = block_on(here).is_err();
        let there = other.join().unwrap();
        // Whoever came when all was over tried it once more.
        let tried = tried.load(SeqCst);
        assert!(here && there && (1..=2).contains(&tried), "{tried}");
        effects.assert_undone();
        assert_eq!(scope.clear(), 1);
    });
}

// Rules 4.5 and 4.10
#[test]
fn what_a_rollback_gives_back_is_run_by_another_one_that_waits() {
    every_schedule("an action waits for an older one of its batch", Some(3), || {
        let (scope, older) = (CompensationScope::new(), CancellationSource::new());
        let done = older.token();
        scope.register_compensation(move || {
            older.cancel();
            async {}
        });
        scope.register_compensation(move || done.cancelled());
        scope.register_compensation(|| async {});
        let here = start(&scope, &CompensationPolicy::parallel());
        let there = start(&scope, &CompensationPolicy::parallel());
        let other = thread::spawn(move || block_on(there).unwrap());
        block_on(here).unwrap();
        other.join().unwrap();
        assert!(scope.is_empty());
    });
}
