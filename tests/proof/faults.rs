//! An error and a panic at every point that can fail.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::effort::effort;
use crate::scenario::{Case, Scenario, quiet};
use watershed::testing::{Fault, for_every_fault};

/// Fails at every point of a scenario in every case, and prints how many faults of each kind fired.
fn at_every_point(what: &str, seeds: u64, mut scenario: impl FnMut(&Scenario)) {
    quiet();
    let fired = RefCell::new(BTreeMap::<String, u64>::new());
    let (mut cases, mut runs, mut most) = (0, 0, 0);
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
    }
    let fired = fired.into_inner();
    println!("{what}: {cases} cases, {runs} runs, up to {most} points in one; faults that fired:");
    for (kind, count) in &fired {
        println!("  {count:>8} {kind}");
    }
    let kinds =
        ["handler called", "handler with", "poll of source", "action called", "action polled"];
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
}

// Rules 2.1, 3.2, 3.7, 3.8, 4.1, 4.2, 4.4, 4.6, 4.12
#[test]
fn a_drain_and_its_rollback_fail_at_every_point() {
    at_every_point("faults", effort(2, 16, 160), |scenario| {
        let ended = scenario.simulation.run(scenario.drain()).expect("it ends");
        scenario.settle(Some(&ended));
    });
}
