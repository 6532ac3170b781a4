//! What must be so for every drain, whatever its options and however it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use watershed::{Commit, CompensationPolicy};

use super::drain::WINDOW;
use super::world::{Call, World};
use crate::support::Hand;
use crate::support::ending::{Ended, assert_settled, report};

/// In no span of `per` did more than `most` begin.
fn assert_rate(calls: &[&Call], (most, per): (usize, Duration)) {
    for (first, last) in calls.iter().zip(calls.iter().skip(most)) {
        let between = last.at.since(first.at);
        assert!(between >= per, "{} attempts within {between:?}", most + 1);
    }
}

/// Undoes what is staged on the context, and says which effects were undone how often.
fn roll_back(world: &World) {
    let policy = CompensationPolicy::sequential_reverse();
    // Some actions fail at their first try.
    for _ in 0..2 {
        let rollback = world.context.roll_back(&policy).local(&world.undos);
        if Hand::new(rollback).finish_by(&world.clock).is_ok() {
            break;
        }
    }
    assert!(!world.context.scope().has_actions(), "something cannot be undone");
    assert!(world.undos.is_empty(), "a local action has no place any more");
}

pub(super) fn check(world: &World, ended: Option<Ended>) {
    let (case, calls) = (&world.case, world.calls.borrow());
    let succeeded = matches!(ended, Some(Ok(_)));
    if case.must_succeed() {
        assert!(succeeded, "nothing has ended it: {ended:?}");
    }
    roll_back(world);

    // Each effect was undone once, or is final.
    let undone = world.undone.lock().expect("no panic");
    for call in calls.iter() {
        let fixed = match case.commit {
            Commit::Message => call.ok,
            Commit::Pipeline => call.ok && succeeded,
            Commit::Never => false,
        };
        for effect in &call.effects {
            let times = undone.get(effect).copied().unwrap_or(0);
            assert_eq!(times, usize::from(!fixed), "{call:?} after {ended:?}");
        }
    }

    // Each message was handled, or put back, or is in its source; or counted.
    let called: BTreeSet<u32> = calls.iter().flat_map(|call| call.batch.iter().copied()).collect();
    let back: BTreeSet<u32> = world.back.borrow().iter().map(|(_, message)| *message).collect();
    assert_eq!(back.len(), world.back.borrow().len(), "put back twice");
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
    // A window that was closed is one message of the drain, whatever becomes of it.
    let windows = if case.windows { WINDOW } else { 1 };
    let unfinished = report.unfinished() as usize;
    assert!(missing <= unfinished * windows, "{missing} messages are lost: {report:?}");
    assert!(!case.shape.put_back || missing == 0, "{missing} messages were not put back");
    assert_eq!(report.attempts(), calls.len() as u64, "{report:?}");
    let ok = calls.iter().filter(|call| call.ok).count();
    assert_eq!(report.handled(), ok as u64, "{report:?}");
    assert_eq!(report.put_back(), world.went_back.get(), "{report:?}");
    assert!(world.letters.get() <= report.failed(), "{} letters: {report:?}", world.letters.get());
    if !case.windows {
        assert_eq!(
            report.taken() as usize,
            called.len() + (back.difference(&called).count()) + missing
        );
    }
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
