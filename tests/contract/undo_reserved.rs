//! Reservations whose actions are moved, or in the hands of rollbacks, meanwhile. Rule 4.9.

use std::future::pending;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures::FutureExt;
use watershed::{
    BoxError, Commit, CompensationPolicy, CompensationScope, Reservation, Rollback, StepContext,
    fan_in,
};

use crate::support::{block_on, filled, within};

/// A rollback that has the action that was staged last in its hands.
fn holding(scope: &CompensationScope) -> Rollback {
    let mut rollback = scope.roll_back(&CompensationPolicy::default());
    assert!((&mut rollback).now_or_never().is_none());
    rollback
}

fn staged(scopes: &[&CompensationScope]) -> usize {
    scopes.iter().map(|scope| scope.len()).sum()
}

/// What rollbacks of these say that they have run.
fn undone(scopes: &[&CompensationScope]) -> usize {
    let undone =
        scopes.iter().map(|scope| block_on(scope.roll_back(&CompensationPolicy::default())));
    undone.map(|report| report.expect("nothing fails").succeeded()).sum()
}

// Rules 4.9, 6.3
#[test]
fn an_action_that_comes_back_from_a_rollback_beside_an_absorb_is_withdrawn() {
    // How many were in hand; how often the scope was absorbed before the rollback went away, and
    // after that.
    for (before, after) in [(1, 0), (3, 0), (1, 1), (2, 3), (0, 2)] {
        let (scope, others) =
            (CompensationScope::new(), [(); 4].map(|()| CompensationScope::new()));
        let moved = scope.reserve(async || {});
        let in_hand = scope.reserve(pending::<()>);
        let rollback = holding(&scope);
        others.iter().take(before).for_each(|other| other.absorb(&scope));
        let later = scope.reserve(async || {});
        drop(rollback);
        others.iter().rev().take(after).for_each(|other| other.absorb(&scope));
        let all: Vec<_> = others.iter().chain([&scope]).collect();
        assert_eq!(staged(&all), 3, "{before} {after}");
        for (reservation, left) in [in_hand, moved, later].into_iter().zip([2, 1, 0]) {
            assert!(reservation.disarm(), "{before} {after}, {left} are left");
            assert_eq!(staged(&all), left);
        }
        assert_eq!(undone(&all), 0, "nothing runs");
    }
}

// Rules 4.9, 4.1
#[test]
fn an_action_that_comes_back_after_its_message_is_withdrawn() {
    for commit in [Commit::Never, Commit::Message, Commit::Pipeline] {
        let (context, kept) = (StepContext::new("t"), Mutex::new(None));
        let drain = fan_in(&context, [filled([1, 2, 3])], async |message, step: StepContext| {
            if message == 1 {
                let reservation = step.reserve(pending::<()>);
                *kept.lock().unwrap() = Some((reservation, holding(step.scope())));
            }
            Ok::<_, BoxError>(())
        });
        block_on(drain.commit(commit)).expect("no failure");
        let (reservation, rollback) = kept.lock().unwrap().take().expect("it was kept");
        drop(rollback);
        assert_eq!(context.scope().len(), 1, "{commit:?}: it came back");
        assert!(reservation.disarm(), "{commit:?}");
        assert!(context.scope().is_empty(), "{commit:?}");
    }
}

// Rules 4.9, 4.1
#[test]
fn a_reservation_is_withdrawn_by_another_thread_while_its_messages_end() {
    const ROUNDS: usize = 2_000;
    const MESSAGES: usize = 50;
    let withdrawn = within(Duration::from_secs(120), || {
        let (sender, reservations) = mpsc::channel::<Reservation>();
        let other = std::thread::spawn(move || {
            reservations
                .into_iter()
                .filter(|_| true)
                .map(Reservation::disarm)
                .filter(|was| *was)
                .count()
        });
        let mut left = 0;
        for _ in 0..ROUNDS {
            let (context, sender) = (StepContext::new("t"), &sender);
            let drain = fan_in(&context, [filled(0..MESSAGES)], async |_, step: StepContext| {
                sender.send(step.reserve(async || {})).expect("the other thread is there");
                Ok::<_, BoxError>(())
            });
            block_on(drain.commit(Commit::Never)).expect("no failure");
            let scope = Arc::new(context);
            left += scope.scope().clear();
        }
        drop(sender);
        (other.join().expect("it ends"), left)
    });
    let (withdrawn, left) = withdrawn.expect("a reservation is withdrawn at once");
    assert_eq!(withdrawn + left, ROUNDS * MESSAGES, "each was withdrawn or cleared");
}
