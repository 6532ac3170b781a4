//! Registering, moving, withdrawing and clearing actions on several threads.

use super::super::effects::Effects;
use super::super::executor::block_on;
use super::every_schedule;
use crate::origin::{SourceName, SourceRef};
use crate::step::LentStep;
use crate::sync::thread;
use crate::undo::DrainScope;
use crate::{CancellationToken, CompensationPolicy, CompensationScope, SourceId, StepContext};

fn roll_back(scope: &CompensationScope) -> usize {
    let policy = CompensationPolicy::sequential_reverse();
    block_on(scope.roll_back(&policy)).unwrap().succeeded()
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

/// The step of a slot, and the drain that it belongs to.
fn lent(context: &StepContext) -> (LentStep, DrainScope) {
    let drain = DrainScope::open(context.scope());
    (LentStep::new(context, &CancellationToken::never(), &drain), drain)
}

/// A message whose handler does something with its step.
fn message(step: &mut LentStep, handler: impl FnOnce(StepContext)) {
    let source = SourceRef { id: SourceId::next(), name: SourceName::new(None, 0) };
    let lent = step.begin(&source, 1, 1);
    step.arm();
    handler(lent);
    step.disarm();
}

/// Ends a message as a slot does.
fn end(mut step: LentStep, committed: bool) {
    if !step.is_home() {
        return step.let_go(committed);
    }
    if committed {
        step.commit_later();
    } else {
        step.keep_later();
    }
    step.flush();
}

// Rule 4.1
#[test]
fn what_is_staged_while_a_message_ends_reaches_the_drain() {
    for committed in [false, true] {
        every_schedule("a kept step registers while its message ends", None, move || {
            let (context, effects) = (StepContext::new("model"), Effects::new(2));
            let (mut step, drain) = lent(&context);
            let mut keeper = None;
            message(&mut step, |step| {
                effects.stage(step.scope(), 0);
                let late = effects.clone();
                keeper = Some(thread::spawn(move || late.stage(step.scope(), 1)));
            });
            end(step, committed);
            let cleared = effects.dropped();
            keeper.unwrap().join().unwrap();
            let late = usize::try_from(drain.late()).unwrap();
            assert_eq!(cleared, if committed { 2 - late } else { 0 });
            assert_eq!(drain.scope().len(), 2 - cleared);
            drain.commit();
            assert!(context.scope().is_empty());
            effects.assert_gone();
        });
    }
}

// Rules 4.1 and 4.3
#[test]
fn whoever_looks_while_messages_end_sees_only_what_has_not() {
    for committed in [false, true] {
        every_schedule("a scope is looked at while its messages end", Some(3), move || {
            let (context, effects) = (StepContext::new("model"), Effects::new(3));
            let (mut step, drain) = lent(&context);
            message(&mut step, |step| effects.stage(step.scope(), 0));
            if committed {
                step.commit_later();
            } else {
                step.keep_later();
            }
            let mut looking = None;
            message(&mut step, |step| {
                effects.stage(step.scope(), 1);
                let effects = effects.clone();
                looking = Some(thread::spawn(move || {
                    assert_eq!(step.scope().len(), 1);
                    effects.stage(step.scope(), 2);
                }));
            });
            step.flush();
            looking.unwrap().join().unwrap();
            step.hand_over();
            let cleared = effects.dropped();
            assert_eq!(cleared, usize::from(committed));
            assert_eq!(drain.scope().len(), 3 - cleared);
            drop(step);
            drain.keep();
            assert_eq!(context.scope().clear(), 3 - cleared);
            effects.assert_gone();
        });
    }
}

// Rule 4.3
#[test]
fn a_nested_drain_that_succeeds_while_its_message_ends_is_as_final_as_that() {
    for committed in [false, true] {
        every_schedule("a nested drain succeeds while its message ends", None, move || {
            let (context, effects) = (StepContext::new("model"), Effects::new(1));
            let (mut step, outer) = lent(&context);
            let mut succeeding = None;
            message(&mut step, |step| {
                let inner = DrainScope::open(step.scope());
                effects.stage(inner.scope(), 0);
                succeeding = Some(thread::spawn(move || {
                    inner.commit();
                    drop(step);
                }));
            });
            end(step, committed);
            succeeding.unwrap().join().unwrap();
            assert_eq!(outer.scope().len(), usize::from(!committed));
            outer.commit();
            assert!(context.scope().is_empty());
            effects.assert_gone();
        });
    }
}

// Rule 4.1
#[test]
fn what_is_staged_while_a_step_ends_reaches_the_outer_one() {
    every_schedule("a kept context registers while its step ends", None, || {
        let (outer, effects) = (CompensationScope::new(), Effects::new(2));
        let inner = CompensationScope::child_of(&outer);
        effects.stage(&inner, 0);
        let kept = inner.clone();
        let late = effects.clone();
        let keeper = thread::spawn(move || late.stage(&kept, 1));
        // As a step that may be used again, and then is not.
        let home = inner.is_sole();
        inner.hand_over(&outer);
        assert!(!home || outer.len() == 2);
        inner.forward_to(&outer);
        drop(inner);
        keeper.join().unwrap();
        assert_eq!(outer.clear(), 2);
        effects.assert_gone();
    });
}

// Rule 4.1
#[test]
fn an_action_that_moves_is_always_somewhere() {
    type Move = fn(&CompensationScope, &CompensationScope);
    let ways: [(&str, Move); 3] = [
        ("a look at both while actions are absorbed", |inner, outer| outer.absorb(inner)),
        ("a look at both while they are handed over", |inner, outer| {
            inner.hand_over(outer);
        }),
        ("a look at both while a scope ends", |inner, outer| inner.forward_to(outer)),
    ];
    for (name, moves) in ways {
        every_schedule(name, None, move || {
            let (outer, effects) = (CompensationScope::new(), Effects::new(1));
            let inner = CompensationScope::child_of(&outer);
            effects.stage(&inner, 0);
            let scopes = [inner.clone(), outer.clone()];
            let looking = thread::spawn(move || scopes.each_ref().map(CompensationScope::len));
            moves(&inner, &outer);
            assert!(looking.join().unwrap().contains(&1));
            assert_eq!((inner.len(), outer.clear()), (0, 1));
            effects.assert_gone();
        });
    }
}

// Rule 4.8
#[test]
fn drains_that_share_a_scope_clear_their_own_only() {
    every_schedule("two drains and a registration on one scope", Some(3), || {
        let (scope, effects) = (CompensationScope::new(), Effects::new(3));
        let drains = [1, 2].map(|index| {
            let (drain, effects) = (DrainScope::open(&scope), effects.clone());
            thread::spawn(move || {
                effects.stage(drain.scope(), index);
                // The second one fails.
                if index == 1 {
                    drain.commit();
                }
            })
        });
        effects.stage(&scope, 0);
        drains.into_iter().for_each(|drain| drain.join().unwrap());
        assert_eq!([1, 2].map(|index| effects.gone(index)), [1, 0]);
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
    every_schedule("a reservation is withdrawn beside a rollback", Some(4), || {
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
    every_schedule("a reservation is withdrawn while it moves", Some(4), || {
        let (drain, message, effects) =
            (CompensationScope::new(), CompensationScope::new(), Effects::new(1));
        let reservation = message.reserve(effects.undo(0, 0));
        let withdrawing = thread::spawn(move || reservation.disarm());
        message.hand_over(&drain);
        message.forward_to(&drain);
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
        let lost = crate::diagnostics::Snapshot::now().compensations_lost;
        let (scope, effects) = (CompensationScope::new(), Effects::new(1));
        let (other, late) = (scope.clone(), effects.clone());
        let registering = thread::spawn(move || late.stage(&other, 0));
        drop(scope);
        registering.join().unwrap();
        assert_eq!(crate::diagnostics::Snapshot::now().compensations_lost, lost + 1);
        effects.assert_gone();
        assert_eq!(effects.begun(0), 0);
    });
}

// Rule 4.9
#[test]
fn a_reservation_is_withdrawn_while_its_action_moves_on() {
    every_schedule("an action is withdrawn while its scope is absorbed", None, || {
        let scopes = [(); 3].map(|()| CompensationScope::new());
        let reservation = scopes[0].reserve(|| async {});
        scopes[1].absorb(&scopes[0]);
        let (from, to) = (scopes[1].clone(), scopes[2].clone());
        let moving = thread::spawn(move || to.absorb(&from));
        assert!(reservation.disarm());
        moving.join().unwrap();
        assert!(scopes.iter().all(CompensationScope::is_empty));
    });
}
