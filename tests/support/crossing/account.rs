//! What must be so for every drain, whatever its options and however it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use watershed::{Commit, CompensationPolicy};

use super::world::{Batch, Call, World};
use crate::support::Hand;
use crate::support::ending::{Ended, assert_settled, report};

/// In no span of `per` did more than `most` begin.
fn assert_rate(calls: &[&Call], (most, per): (usize, Duration)) {
    for (first, last) in calls.iter().zip(calls.iter().skip(most)) {
        let between = last.at.since(first.at);
        assert!(between >= per, "{} attempts within {between:?}", most + 1);
    }
}

/// Undoes what is staged on the context, all of it in reverse.
fn roll_back(world: &World) {
    let policy = CompensationPolicy::sequential_reverse();
    // Some actions fail at their first try.
    for _ in 0..2 {
        let before = world.undone.lock().expect("no panic").begun.len();
        let rollback = world.context.roll_back(&policy).local(&world.undos);
        let ended = Hand::new(rollback).finish_by(&world.clock);
        let begun = &world.undone.lock().expect("no panic").begun[before..];
        assert!(begun.is_sorted_by(|later, earlier| later > earlier), "no reverse: {begun:?}");
        if ended.is_ok() {
            break;
        }
    }
    assert!(!world.context.scope().has_actions(), "something cannot be undone");
    assert!(world.undos.is_empty(), "a local action has no place any more");
}

pub(crate) fn check(world: &World, ended: Option<Ended>) {
    let (case, calls) = (&world.case, world.calls.borrow());
    let succeeded = matches!(ended, Some(Ok(_)));
    if case.must_succeed() {
        assert!(succeeded, "nothing has ended it: {ended:?}");
    }
    roll_back(world);

    // Each effect was undone once, or is final; those of one call in reverse.
    assert_eq!(Arc::strong_count(&world.undone), 1, "an action is kept");
    let undone = world.undone.lock().expect("no panic");
    let mut order = BTreeMap::new();
    for effect in &undone.begun {
        let next = order.len();
        order.entry(*effect).or_insert(next);
    }
    for call in calls.iter() {
        let fixed = match case.commit {
            Commit::Message => call.ok,
            Commit::Pipeline => call.ok && succeeded,
            Commit::Never => false,
        };
        for effect in &call.effects {
            let times = undone.times.get(effect).copied().unwrap_or(0);
            assert_eq!(times, usize::from(!fixed), "{effect} of {call:?} after {ended:?}");
        }
        // Actions that run at once are begun in reverse; local ones among them, by whoever drives
        // the rollback, behind the others.
        if !(case.compensation && case.shape.undos) {
            let begun = call.effects.iter().filter_map(|effect| order.get(effect));
            assert!(begun.is_sorted_by(|later, earlier| later > earlier), "no reverse: {call:?}");
        }
    }
    let made: BTreeSet<_> = calls.iter().flat_map(|call| &call.effects).collect();
    assert!(undone.times.keys().all(|effect| made.contains(effect)), "undone and never done");

    // Each message was handled, or put back, or is in its source; or counted.
    let called: BTreeSet<u32> = calls.iter().flat_map(|call| call.batch.iter().copied()).collect();
    let put_back = world.back.borrow();
    let back: BTreeSet<u32> = put_back.iter().flat_map(|(_, batch)| batch).copied().collect();
    let times: usize = put_back.iter().map(|(_, batch)| batch.len()).sum();
    assert_eq!(back.len(), times, "put back twice");
    let mut places: BTreeMap<u32, u32> = called.union(&back).map(|message| (*message, 1)).collect();
    let mut all = 0;
    for fed in world.fed.borrow().iter() {
        all += fed.taken();
        assert_eq!(fed.polls_after_end(), 0);
        for message in fed.left() {
            *places.entry(message).or_default() += 1;
            all += 1;
        }
    }
    assert!(places.values().all(|places| *places == 1), "in two places: {places:?}");
    let missing = all - places.len();

    if let Some(each) = case.rate {
        assert_rate(&calls.iter().collect::<Vec<_>>(), each);
    }
    if let Some(each) = case.source_rate {
        for source in 0..world.fed.borrow().len() {
            let own: Vec<_> = calls.iter().filter(|call| call.source == source).collect();
            assert_rate(&own, each);
        }
    }

    let Some(ended) = ended else { return };
    let report = report(&ended);
    assert_settled(report);
    assert!(!case.shape.put_back || missing == 0, "{missing} messages were not put back");
    assert_eq!(report.attempts(), calls.len() as u64, "{report:?}");
    let ok = calls.iter().filter(|call| call.ok).count();
    assert_eq!(report.handled(), ok as u64, "{report:?}");
    assert_eq!(report.put_back(), put_back.len() as u64, "{report:?}");
    assert!(world.letters.get() <= report.failed(), "{} letters: {report:?}", world.letters.get());
    // What an open window held went back one by one, and counts so.
    let known: BTreeSet<&Batch> = calls
        .iter()
        .map(|call| &call.batch)
        .chain(put_back.iter().map(|(_, batch)| batch))
        .collect();
    let others = report.taken() as usize - known.len();
    assert_eq!(others == 0, missing == 0, "{missing} are missing: {report:?}");
    assert!(
        others == missing || case.windows && others < missing,
        "{missing} are missing: {report:?}"
    );
    if case.progress {
        let shown = world.look();
        assert_settled(&shown);
        let counts = |report: &watershed::FanInReport| {
            [
                report.handled(),
                report.failed(),
                report.put_back(),
                report.unfinished(),
                report.attempts(),
            ]
        };
        assert_eq!(counts(&shown), counts(report));
    }
}
