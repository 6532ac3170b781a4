//! Rolling back: as many staged actions as there are messages elsewhere, run in reverse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use watershed::{
    BoxError, CancellationToken, CompensationPolicy, CompensationScope, run_compensation,
};

use crate::channels::Load;
use crate::compensated::{BoxedUndo, Undo};
use crate::measure::{Contender, Section, timing};
use crate::targets::{Bound, Target};

const BY_HAND: &str = "rollback_by_hand";
const BY_WATERSHED: &str = "run_compensation";

pub(crate) const SECTION: Section = Section {
    title: "rollback of staged compensations: ratio to the loop by hand",
    has_sources: false,
    contenders: CONTENDERS,
    targets: &[Target {
        what: "run_compensation to the loop by hand: at most 1.5",
        of: BY_WATERSHED,
        to: BY_HAND,
        bound: Bound::Most(1.5),
    }],
};

const CONTENDERS: &[Contender] = &[
    Contender { name: BY_HAND, floor: BY_HAND, once: by_hand },
    Contender { name: BY_WATERSHED, floor: BY_HAND, once: by_watershed },
];

fn by_hand(load: Load) -> Duration {
    let undone = Arc::new(AtomicU64::new(0));
    let mut staged: Vec<BoxedUndo> =
        (0..u64::from(load.messages)).map(|number| Undo::new(&undone, number).boxed()).collect();
    let rollback = async move {
        while let Some(mut undo) = staged.pop() {
            undo().await?;
        }
        Ok::<_, BoxError>(())
    };
    let (result, took) = timing(|| block_on(rollback));
    result.expect("no action fails");
    check(load, &undone);
    took
}

fn by_watershed(load: Load) -> Duration {
    let undone = Arc::new(AtomicU64::new(0));
    let scope = CompensationScope::new();
    for number in 0..u64::from(load.messages) {
        let undo = Undo::new(&undone, number);
        scope.register_compensation(move || undo.attempt());
    }
    // The list goes away with its owner here as it does there.
    let rollback = async move {
        let policy = CompensationPolicy::sequential_reverse();
        run_compensation(&policy, &scope, CancellationToken::never()).await
    };
    let (result, took) = timing(|| block_on(rollback));
    result.expect("no action fails");
    check(load, &undone);
    took
}

fn check(load: Load, undone: &AtomicU64) {
    assert_eq!(undone.load(Ordering::Relaxed), load.sum(), "every action has run once");
}
