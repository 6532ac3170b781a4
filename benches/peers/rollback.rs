//! Rolling back: staged actions, run in reverse; alone, and after the drain that staged them has
//! failed at its last message.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use futures::stream::StreamExt;
use watershed::{
    BoxError, CancellationToken, CompensationPolicy, CompensationScope, Error, RollbackReport,
    StepContext, fan_in, run_compensation,
};

use crate::draining::handle;
use crate::support::channels::Load;
use crate::support::measure::timing;
use crate::support::merges::{Merge, Merged, SelectAll};
use crate::support::section::{Column, Contender, Role, Section};
use crate::support::targets::{Bound, Target, To};
use crate::undo::{BoxedUndo, Undo, undo_by_hand};

const BY_HAND: &str = "rollback_by_hand";
const BY_WATERSHED: &str = "run_compensation";
const ABORT_BY_HAND: &str = "abort_by_hand";
const ABORT_BY_HAND_MERGE: &str = "abort_by_hand_merge";
const ABORT: &str = "fan_in_and_rollback";

/// How many sources the messages of an abort come from.
const SOURCES: u32 = 64;

/// The size is the number of actions of one scope, the messages that of all scopes.
const COLUMNS: &[Column] = &[
    Column::new("1,000 actions", 1_000, 1_000_000),
    Column::new("1,000,000 actions", 1_000_000, 1_000_000),
];

pub(crate) const ALONE: Section = Section {
    name: "rollback",
    title: "rollback of staged compensations",
    figures: &["ns an action"],
    columns: COLUMNS,
    contenders: &[
        Contender {
            name: BY_HAND,
            role: Role::PeerOf(BY_WATERSHED),
            once: |load| in_batches(load, by_hand),
        },
        Contender {
            name: BY_WATERSHED,
            role: Role::Ours,
            once: |load| in_batches(load, by_watershed),
        },
    ],
    targets: &[Target {
        what: "run_compensation to the loop by hand: at most 1.2",
        of: BY_WATERSHED,
        to: To::Contender(BY_HAND),
        bound: Bound::Most(1.2),
    }],
    countable: true,
    note: "",
};

pub(crate) const ABORTED: Section = Section {
    name: "abort",
    title: "a drain that fails at its last message, and its rollback: an action a message",
    figures: &["ns an action"],
    columns: COLUMNS,
    contenders: &[
        Contender {
            name: ABORT_BY_HAND,
            role: Role::PeerOf(ABORT),
            once: |load| in_batches(load, abort_by_hand::<SelectAll>),
        },
        Contender {
            name: ABORT_BY_HAND_MERGE,
            role: Role::PeerOf(ABORT),
            once: |load| in_batches(load, abort_by_hand::<Merged>),
        },
        Contender { name: ABORT, role: Role::Ours, once: |load| in_batches(load, abort) },
    ],
    targets: &[],
    countable: true,
    note: "64 sources; by hand over select_all, and over the merge of futures-concurrency.",
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
        (0..u64::from(load.messages)).map(|number| Undo::new(&undone, number).boxed()).collect();
    let (result, took) = timing(|| block_on(undo_by_hand(staged)));
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
    let (result, took) = timing(|| block_on(async move { roll_back(&scope).await }));
    result.expect("no action fails");
    check(load, &undone);
    took
}

async fn roll_back(scope: &CompensationScope) -> Result<RollbackReport, Error> {
    let policy = CompensationPolicy::sequential_reverse();
    run_compensation(&policy, scope, CancellationToken::never()).await
}

fn abort_by_hand<M: Merge>(load: Load) -> Duration {
    let channels = load.in_channels(SOURCES).channels();
    let undone = Arc::new(AtomicU64::new(0));
    let (sum, left) = (AtomicU64::new(0), AtomicU64::new(load.messages.into()));
    let drain = async {
        let mut staged = Vec::new();
        let mut messages = pin!(M::merge(channels));
        while let Some(message) = messages.next().await {
            staged.push(Undo::new(&undone, message).boxed());
            if handle_or_fail(message, &sum, &left).await.is_err() {
                return undo_by_hand(staged).await;
            }
        }
        Err("it was to fail".into())
    };
    let (result, took) = timing(|| block_on(drain));
    result.expect("it is rolled back");
    check(load, &undone);
    took
}

fn abort(load: Load) -> Duration {
    let channels = load.in_channels(SOURCES).channels();
    let undone = Arc::new(AtomicU64::new(0));
    let (sum, left) = (AtomicU64::new(0), AtomicU64::new(load.messages.into()));
    let context = StepContext::new("abort");
    let drain = async {
        let handler = |message, step: StepContext| {
            let (undone, sum, left) = (&undone, &sum, &left);
            async move {
                let undo = Undo::new(undone, message);
                step.register_compensation(move || undo.attempt());
                handle_or_fail(message, sum, left).await
            }
        };
        fan_in(&context, channels, handler).await.expect_err("its last message fails");
        roll_back(context.scope()).await
    };
    let (result, took) = timing(|| block_on(drain));
    result.expect("it is rolled back");
    check(load, &undone);
    took
}

/// Handles the message, and fails with the last one.
async fn handle_or_fail(message: u64, sum: &AtomicU64, left: &AtomicU64) -> Result<(), BoxError> {
    handle(message, sum).await?;
    left.store(left.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    if left.load(Ordering::Relaxed) == 0 { Err("the last one".into()) } else { Ok(()) }
}

fn check(load: Load, undone: &AtomicU64) {
    assert_eq!(undone.load(Ordering::Relaxed), load.sum(), "every action has run once");
}
