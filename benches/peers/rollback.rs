//! Rolling back: staged actions, run in reverse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use watershed::{CompensationPolicy, CompensationScope};

use crate::support::channels::Load;
use crate::support::marks::{Bound, Mark};
use crate::support::measure::timing;
use crate::support::section::{Column, Contender, Role, Section};
use crate::undo::{BoxedUndo, OfShared, Undo, undo_by_hand};

const BY_HAND: &str = "by_hand";
const OURS: &str = "roll_back";
const FIGURE: &str = "ns an action";

/// The size is the number of actions of one scope, the messages that of all scopes.
pub(crate) const SECTION: Section = Section {
    name: "rollback",
    title: "rollback of staged actions",
    figures: &[FIGURE],
    columns: &[
        Column::new("1,000 actions", 1_000, 1_000_000),
        Column::new("1,000,000 actions", 1_000_000, 1_000_000),
    ],
    contenders: &[
        Contender {
            name: BY_HAND,
            role: Role::PeerOf(OURS),
            once: |load| in_batches(load, by_hand),
        },
        Contender { name: OURS, role: Role::Ours, once: |load| in_batches(load, by_watershed) },
    ],
    marks: &[Mark {
        what: "roll_back to the loop by hand",
        figure: FIGURE,
        of: &[OURS],
        to: Some(BY_HAND),
        bound: Bound::Most(&[(1_000, 1.2), (1_000_000, 1.2)]),
    }],
    countable: true,
    note: "By hand: a list of boxed closures, emptied from its end.",
};

/// As many scopes of one size as there are messages for.
fn in_batches(load: Load, once: fn(Load) -> Duration) -> Vec<f64> {
    let batch = Load { messages: load.size.min(load.messages), ..load };
    let batches = (load.messages / batch.messages).max(1);
    let took: Duration = (0..batches).map(|_| once(batch)).sum();
    Load { messages: batches * batch.messages, ..load }.each(took)
}

fn by_hand(load: Load) -> Duration {
    let undone = Arc::new(AtomicU64::new(0));
    let staged: Vec<BoxedUndo> =
        (0..u64::from(load.messages)).map(|number| OfShared::boxed(&undone, number)).collect();
    let (result, took) = timing(|| block_on(undo_by_hand(staged)));
    result.expect("no action fails");
    check(load, &undone);
    took
}

fn by_watershed(load: Load) -> Duration {
    let undone = Arc::new(AtomicU64::new(0));
    let scope = CompensationScope::new();
    for number in 0..u64::from(load.messages) {
        OfShared::stage(&undone, number, &scope);
    }
    // The list goes away with its owner here as it does there.
    let policy = CompensationPolicy::sequential_reverse();
    let (result, took) = timing(|| block_on(async move { scope.roll_back(&policy).await }));
    result.expect("no action fails");
    check(load, &undone);
    took
}

fn check(load: Load, undone: &AtomicU64) {
    assert_eq!(undone.load(Ordering::Relaxed), load.sum(), "every action has run once");
}
