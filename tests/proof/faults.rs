//! An error and a panic at every point that can fail.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use watershed::testing::{Fault, for_every_fault};
use watershed::{CancellationToken, CompensationPolicy};

use crate::effort::effort;
use crate::mixture::{Faults, Feeding, Mixture, Run};
use crate::scenario::{Case, Scenario, quiet};

/// Fails at every point of a scenario in every case, and prints how many faults of each kind fired.
fn at_every_point(what: &str, seeds: u64, mut scenario: impl FnMut(&Scenario)) {
    quiet();
    let fired = RefCell::new(BTreeMap::<String, u64>::new());
    let (mut cases, mut runs, mut most) = (0, 0, 0);
    let mut reached = BTreeSet::new();
    for case in Case::all(seeds) {
        let points = for_every_fault(|faults| {
            let run = Scenario::new(case, Some(faults));
            scenario(&run);
            runs += 1;
            if let (Some(point), Some(fault)) = (faults.fired(), faults.fault()) {
                // The kind of a point is its name without numbers.
                let words =
                    point.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
                let kind = format!("{}: {fault:?}", words.collect::<Vec<_>>().join(" "));
                *fired.borrow_mut().entry(kind).or_default() += 1;
            }
        });
        cases += 1;
        most = most.max(points.len());
        reached.extend(points);
    }
    let fired = fired.into_inner();
    println!("{what}: {cases} cases, {runs} runs, up to {most} points in one; faults that fired:");
    for (kind, count) in &fired {
        println!("  {count:>8} {kind}");
    }
    assert_every_await(&reached);
    let kinds = [
        "handler called",
        "handler before",
        "handler behind",
        "handler with",
        "handler at",
        "poll of source",
        "action called",
        "action polled",
    ];
    for kind in kinds {
        for fault in [Fault::Error, Fault::Panic] {
            let suffix = format!("{fault:?}");
            let hit = fired.keys().any(|key| key.starts_with(kind) && key.ends_with(&suffix));
            assert!(hit, "no {fault:?} at {kind}");
        }
    }
    for dropped in ["handler", "message", "source", "state", "attempt"] {
        let kind = format!("drop of {dropped}");
        assert!(fired.keys().any(|key| key.starts_with(&kind)), "no panic in the {kind}");
    }
    assert!(fired.contains_key("dead letter: Panic"), "no panic in a dead letter");
}

/// Every await of every message of every source is among the points.
fn assert_every_await(reached: &BTreeSet<String>) {
    let mut messages = 0;
    while reached.contains(&format!("handler {messages} called")) {
        for place in ["before its effect", "behind its effect", "with a reservation", "at its end"]
        {
            let point = format!("handler {messages} {place}");
            assert!(reached.contains(&point), "no fault could happen at: {point}");
        }
        messages += 1;
    }
    let polled = |source: &usize| reached.contains(&format!("poll of source {source}"));
    let sources = (0..1_000).take_while(polled).count();
    println!("  every await of {messages} messages of {sources} sources");
    assert!(messages > 10 && sources > 2, "{messages} messages, {sources} sources");
}

// Rules 2.1, 3.2, 3.7, 3.8, 4.1, 4.2, 4.4, 4.6, 4.12
#[test]
fn a_drain_and_its_rollback_fail_at_every_point() {
    at_every_point("faults", effort(2, 16, 160), |scenario| {
        let ended = scenario.simulation.run(scenario.drain()).expect("it ends");
        scenario.settle(Some(&ended));
    });
}

/// What may happen at a point.
fn kinds(fallible: bool) -> &'static [Fault] {
    if fallible { &[Fault::Error, Fault::Panic] } else { &[Fault::Panic] }
}

/// Runs a calm mixture with faults at these points, and checks it. Returns the points it reached.
fn run_with(case: Mixture, targets: &[(usize, Fault)]) -> Vec<(String, bool)> {
    let faults = Faults::at(targets.iter().copied());
    let run = Run::new(case, &faults);
    let is_gone = run.canaries();
    let ended = run.simulation.run(run.drain()).expect("it ends");
    let before = run.undone();
    // The rollback of all may fail at the points that are left: what fails stays for the next one.
    let rollback =
        run.rollback(&CompensationPolicy::sequential_reverse(), CancellationToken::never());
    let first = run.simulation.run(rollback).expect("it ends");
    run.settle(Some(&ended), before, first.is_ok());
    drop((ended, first, run));
    assert!(is_gone(), "something is leaked: {case:?}, {targets:?}");
    let reached = faults.reached();
    let fired: Vec<_> = targets.iter().map(|(index, _)| reached[*index].0.clone()).collect();
    assert_eq!(faults.fired(), fired, "each fault fired at its point: {case:?}");
    reached
}

// Rules 2.1, 3.2, 3.7, 3.8, 4.1, 4.2, 4.4, 4.12
#[test]
fn a_drain_and_its_rollback_fail_at_every_pair_of_points() {
    quiet();
    let (mut cases, mut singles, mut pairs, mut most) = (0, 0_u64, 0_u64, 0);
    let calm = Mixture::all(effort(1, 3, 12))
        .filter(|case| case.handlers == 2 && case.feeding != Feeding::Live)
        .step_by(effort(5, 1, 1))
        .map(|case| Mixture { calm: true, ..case });
    for case in calm {
        let points = run_with(case, &[]);
        most = most.max(points.len());
        for (first, (_, fallible)) in points.iter().enumerate() {
            for &one in kinds(*fallible) {
                let left = run_with(case, &[(first, one)]);
                singles += 1;
                for (second, (_, fallible)) in left.iter().enumerate().skip(first + 1) {
                    for &other in kinds(*fallible) {
                        run_with(case, &[(first, one), (second, other)]);
                        pairs += 1;
                    }
                }
            }
        }
        cases += 1;
    }
    println!(
        "two faults: {cases} cases of up to {most} points, {singles} single faults, {pairs} pairs; \
         each fired, was told, and left every effect undone or committed"
    );
}
