//! A drain and a rollback, dropped after each of their polls, and cancelled after each.

use std::num::NonZeroUsize;

use watershed::testing::{DropPoint, for_every_poll};
use watershed::{
    CancellationToken, CompensationPolicy, ErrorCode, OnFailure, Rollback, run_compensation,
};

use crate::effort::effort;
use crate::scenario::{Case, Scenario};

/// Goes through all polls of a scenario in every case, and prints how many runs that were.
fn in_every_case(
    what: &str,
    cases: impl Iterator<Item = Case>,
    mut scenario: impl FnMut(Case, &DropPoint),
) {
    let (mut count, mut runs, mut longest) = (0, 0, 0);
    for case in cases {
        let polls = for_every_poll(|point| scenario(case, point));
        count += 1;
        runs += polls;
        longest = longest.max(polls);
    }
    println!("{what}: {count} cases, {runs} runs, the longest of {longest} polls");
    assert!(runs > 5 * count && longest > 10, "too few polls prove nothing");
}

/// How a rollback may go about its work, and whether that keeps an order.
fn policies() -> [(&'static str, CompensationPolicy, bool); 3] {
    let limited = CompensationPolicy::parallel_limited(NonZeroUsize::MIN.saturating_add(2));
    let sequential = CompensationPolicy::sequential_reverse();
    let parallel = CompensationPolicy::parallel();
    [("sequential", sequential, true), ("parallel", parallel, false), ("limited", limited, false)]
}

/// A rollback of everything that a drain has left, its stop being that of the scenario.
fn rollback(scenario: &Scenario, policy: &CompensationPolicy) -> Rollback {
    run_compensation(policy, scenario.context.scope(), scenario.stop.token())
}

// Rules 2.1, 3.8, 4.1, 4.2, 4.3, 4.9
#[test]
fn a_drain_is_dropped_after_every_poll() {
    in_every_case("drain dropped", Case::all(effort(4, 40, 400)), |case, point| {
        let scenario = Scenario::new(case, None);
        let ended = scenario.simulation.run(point.cut(scenario.drain())).expect("it ends");
        scenario.settle(ended.as_ref());
    });
}

// Rules 2.1, 3.2, 3.5, 3.6, 4.1
#[test]
fn a_drain_is_cancelled_after_every_poll() {
    in_every_case("drain cancelled", Case::all(effort(4, 40, 400)), |case, point| {
        let scenario = Scenario::new(case, None);
        let drain = point.cancel(&scenario.stop, scenario.drain());
        let ended = scenario.simulation.run(drain).expect("it ends");
        if scenario.stop.is_cancelled() {
            let code = ended.as_ref().expect_err("it was cancelled").code();
            let declined = case.declines && case.on_failure == OnFailure::Abort;
            assert!(code == ErrorCode::Canceled || code == ErrorCode::Handler && declined);
        }
        scenario.settle(Some(&ended));
    });
}

// Rules 4.2, 4.5, 4.6
#[test]
fn a_rollback_is_dropped_after_every_poll() {
    for (name, policy, in_order) in policies() {
        let what = format!("{name} rollback dropped");
        in_every_case(&what, Case::all(effort(2, 16, 160)), |case, point| {
            let scenario = Scenario::new(case, None);
            let ended = scenario.simulation.run(scenario.drain()).expect("it ends");
            let before = scenario.shop.book().undone.len();
            let rollback = point.cut(rollback(&scenario, &policy));
            if let Some(ended) = scenario.simulation.run(rollback).expect("it ends") {
                let undone = ended.expect("every action succeeds").succeeded();
                // A reservation that was withdrawn is no longer staged.
                assert_eq!(undone, scenario.shop.book().undone.len() - before);
                assert!(scenario.context.scope().is_empty());
            }
            scenario.settle_after(Some(&ended), before, in_order);
        });
    }
}

// Rules 4.2, 4.5, 4.6
#[test]
fn a_rollback_is_cancelled_after_every_poll() {
    for (name, policy, in_order) in policies() {
        let what = format!("{name} rollback cancelled");
        in_every_case(&what, Case::all(effort(2, 16, 160)), |case, point| {
            let scenario = Scenario::new(case, None);
            let ended = scenario.simulation.run(scenario.drain()).expect("it ends");
            let before = scenario.shop.book().undone.len();
            let rollback = point.cancel(&scenario.stop, rollback(&scenario, &policy));
            let outcome = scenario.simulation.run(rollback).expect("it ends");
            let undone = scenario.shop.book().undone.len() - before;
            match outcome {
                Ok(report) => {
                    assert_eq!(report.succeeded(), undone);
                    assert!(scenario.context.scope().is_empty());
                }
                Err(error) => {
                    assert_eq!(error.code(), ErrorCode::Canceled);
                    assert_eq!(error.metadata("succeeded"), Some(&*undone.to_string()));
                    assert!(scenario.context.scope().has_actions());
                }
            }
            scenario.settle_after(Some(&ended), before, in_order);
        });
    }
}

// Rules 4.5, 4.10
#[test]
fn one_of_two_rollbacks_is_dropped_after_every_poll() {
    for (name, policy, in_order) in policies() {
        let what = format!("one of two {name} rollbacks dropped");
        in_every_case(&what, Case::all(effort(2, 16, 160)), |case, point| {
            let scenario = Scenario::new(case, None);
            let ended = scenario.simulation.run(scenario.drain()).expect("it ends");
            let before = scenario.shop.book().undone.len();
            let staged = scenario.context.scope().len();
            let other =
                run_compensation(&policy, scenario.context.scope(), CancellationToken::never());
            let other = scenario.simulation.spawn("other", other);
            let cut = point.cut(rollback(&scenario, &policy));
            let dropped = scenario.simulation.run(cut).expect("it ends").is_none();
            let report = scenario.simulation.run(other).expect("it ends").expect("all succeed");
            assert!(scenario.context.scope().is_empty());
            assert!(report.succeeded() <= staged);
            assert_eq!(scenario.shop.book().undone.len() - before, staged, "all was done once");
            // An action that was dropped while it ran is run again, out of the order.
            scenario.settle_after(Some(&ended), before, in_order && !dropped);
        });
    }
}

// Rules 2.1, 4.1, 4.5
#[test]
fn a_drain_and_then_its_rollback_are_dropped_after_every_poll() {
    let cases = Case::all(effort(1, 4, 40)).filter(|case| case.handlers == 2);
    let mut pairs = 0;
    in_every_case("drain and rollback dropped", cases, |case, first| {
        pairs += for_every_poll(|second| {
            let scenario = Scenario::new(case, None);
            let ended = scenario.simulation.run(first.cut(scenario.drain())).expect("it ends");
            let before = scenario.shop.book().undone.len();
            let policy = CompensationPolicy::sequential_reverse();
            let rollback = second.cut(rollback(&scenario, &policy));
            scenario.simulation.run(rollback).expect("it ends");
            scenario.settle_after(ended.as_ref(), before, true);
        });
    });
    println!("drain and rollback dropped: {pairs} pairs of polls");
}
