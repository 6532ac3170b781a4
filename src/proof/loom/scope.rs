//! Registering, moving, withdrawing and clearing actions on several threads.

use super::super::effects::Effects;
use super::super::executor::block_on;
use super::every_schedule;
use crate::sync::thread;
use crate::{CancellationToken, CompensationPolicy, CompensationScope};

fn roll_back(scope: &CompensationScope) -> usize {
    let policy = CompensationPolicy::sequential_reverse();
    block_on(scope.run_compensation(&policy, CancellationToken::never())).unwrap().succeeded()
}

// Rules 4.4 and 4.7
#[test]
fn actions_registered_beside_a_rollback_run_once() {
    every_schedule("two threads register beside a rollback", Some(3), || {
        let (scope, effects) = (CompensationScope::new(), Effects::new(2));
        let registering = [0, 1].map(|index| {
            let (scope, effects) = (scope.clone(), effects.clone());
            thread::spawn(move || effects.stage(&scope, index))
        });
        let undone = roll_back(&scope);
        assert_eq!(undone, effects.undone_in_all());
        for thread in registering {
            thread.join().unwrap();
        }
        assert_eq!(scope.len(), 2 - undone);
        assert_eq!(roll_back(&scope), 2 - undone);
        effects.assert_undone();
    });
}

// Rule 4.1
#[test]
fn what_is_staged_while_a_message_ends_reaches_the_drain() {
    every_schedule("a kept context registers while its message ends", None, || {
        let (drain, message, effects) =
            (CompensationScope::new(), CompensationScope::new(), Effects::new(2));
        effects.stage(&message, 0);
        let kept = message.clone();
        let late = effects.clone();
        let keeper = thread::spawn(move || late.stage(&kept, 1));
        // As a lane ends a message.
        let home = message.is_sole();
        if message.is_touched() {
            message.hand_over(&drain, 1);
        }
        if home {
            assert!(!message.is_touched());
        } else {
            message.forward_to(&drain, 1);
        }
        drop(message);
        keeper.join().unwrap();
        assert_eq!(drain.commit_owned(1).0, 2);
        effects.assert_gone();
    });
}

// Rule 4.8
#[test]
fn drains_that_share_a_scope_clear_their_own_only() {
    every_schedule("two drains and a registration on one scope", Some(3), || {
        let (scope, effects) = (CompensationScope::new(), Effects::new(3));
        let drains = [1, 2].map(|owner| {
            let (scope, effects) = (scope.clone(), effects.clone());
            thread::spawn(move || {
                let message = CompensationScope::new();
                effects.stage(&message, usize::try_from(owner).unwrap());
                message.hand_over(&scope, owner);
                // The second one fails.
                if owner == 1 { scope.commit_owned(owner).0 } else { 0 }
            })
        });
        effects.stage(&scope, 0);
        assert_eq!(drains.map(|drain| drain.join().unwrap()), [1, 0]);
        assert_eq!(scope.len(), 2);
        roll_back(&scope);
        assert_eq!([0, 1, 2].map(|index| effects.undone(index)), [1, 0, 1]);
        effects.assert_gone();
    });
}

// Rule 4.2
#[test]
fn what_was_registered_later_runs_first_over_scopes_and_threads() {
    every_schedule("the order over scopes and threads", None, || {
        let (left, right, effects) =
            (CompensationScope::new(), CompensationScope::new(), Effects::new(3));
        effects.stage(&left, 0);
        let beside = CompensationScope::new();
        let stranger = thread::spawn(move || {
            beside.register_compensation(|| async {});
            beside.clear();
        });
        let (later, seen) = (right.clone(), effects.clone());
        let next = thread::spawn(move || {
            let before = seen.clone();
            seen.stage(&later, 1);
            later.register_compensation(move || {
                // Registered after 1, which must not have run yet; 2 must.
                assert_eq!((before.undone(0), before.undone(1), before.undone(2)), (0, 0, 1));
                async {}
            });
        });
        next.join().unwrap();
        let before = effects.clone();
        left.register_compensation(move || {
            assert_eq!((before.undone(0), before.undone(1)), (0, 0));
            let before = before.clone();
            async move { drop(before) }
        });
        effects.stage(&left, 2);
        left.absorb(&right);
        assert_eq!(roll_back(&left), 5);
        stranger.join().unwrap();
        effects.assert_undone();
    });
}

// Rule 4.1
#[test]
fn scopes_that_absorb_each_other_lose_nothing() {
    every_schedule("two scopes absorb each other", None, || {
        let (left, right, effects) =
            (CompensationScope::new(), CompensationScope::new(), Effects::new(2));
        effects.stage(&left, 0);
        effects.stage(&right, 1);
        let (from, into) = (left.clone(), right.clone());
        let other = thread::spawn(move || into.absorb(&from));
        left.absorb(&right);
        other.join().unwrap();
        assert_eq!(left.len() + right.len(), 2);
        assert_eq!(left.clear() + right.clear(), 2);
        effects.assert_gone();
    });
}

// Rule 4.9
#[test]
fn a_reservation_is_withdrawn_or_run() {
    every_schedule("a reservation is withdrawn beside a rollback", None, || {
        let (scope, effects) = (CompensationScope::new(), Effects::new(1));
        let reservation = scope.reserve(effects.undo(0, 0));
        let withdrawing = thread::spawn(move || reservation.disarm());
        let taken = roll_back(&scope);
        let withdrawn = withdrawing.join().unwrap();
        assert_eq!(taken, usize::from(!withdrawn));
        assert!(effects.undone(0) <= taken);
        assert!(scope.is_empty());
        effects.assert_gone();
    });
}

// Rule 4.9
#[test]
fn a_reservation_that_moves_is_withdrawn_or_does_nothing() {
    every_schedule("a reservation is withdrawn while it moves", None, || {
        let (drain, message, effects) =
            (CompensationScope::new(), CompensationScope::new(), Effects::new(1));
        let reservation = message.reserve(effects.undo(0, 0));
        let withdrawing = thread::spawn(move || reservation.disarm());
        message.hand_over(&drain, 1);
        message.forward_to(&drain, 1);
        drop(message);
        let withdrawn = withdrawing.join().unwrap();
        assert_eq!(roll_back(&drain), usize::from(!withdrawn));
        assert_eq!(effects.undone(0), 0);
        effects.assert_gone();
    });
}

// Rule 4.11
#[test]
fn the_last_handle_takes_what_another_thread_registered() {
    every_schedule("the last handle goes beside a registration", None, || {
        let lost = crate::diagnostics::snapshot().compensations_lost;
        let (scope, effects) = (CompensationScope::new(), Effects::new(1));
        let (other, late) = (scope.clone(), effects.clone());
        let registering = thread::spawn(move || late.stage(&other, 0));
        drop(scope);
        registering.join().unwrap();
        assert_eq!(crate::diagnostics::snapshot().compensations_lost, lost + 1);
        effects.assert_gone();
        assert_eq!(effects.begun(0), 0);
    });
}
