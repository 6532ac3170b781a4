//! Compensations that are staged and, as all goes well, cleared: a loop written by hand over a
//! merged stream, and `fan_in`. Both stage the same [`Undo`].
//!
//! The loop keeps what it staged on a list. Cleared after each message it is the peer of
//! `Commit::Message`, cleared at the end that of `Commit::Pipeline` and `Commit::Never`.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_channel::Receiver;
use futures::executor::block_on;
use futures::stream::StreamExt;
use watershed::{BoxError, Commit, StepContext, fan_in};

use crate::draining::handle;
use crate::support::channels::Load;
use crate::support::measure::draining;
use crate::support::merges::{Merge, Merged, SelectAll};
use crate::support::section::{self, Column, Contender, Role, Section};
use crate::support::targets::{Bound, Target, To};
use crate::undo::{BoxedUndo, Undo};

const HAND_PER_MESSAGE: &str = "by_hand_per_message";
const HAND_TO_THE_END: &str = "by_hand_to_the_end";
const MERGE_PER_MESSAGE: &str = "by_hand_merge_per_message";
const MERGE_TO_THE_END: &str = "by_hand_merge_to_the_end";
const FAN_IN_MESSAGE: &str = "fan_in_commit_message";
const FAN_IN_PIPELINE: &str = "fan_in_commit_pipeline";
const FAN_IN_NEVER: &str = "fan_in_commit_never";

/// How many sources there are where their number is not the question.
const SOURCES: u32 = 64;

pub(crate) const OF_TWO: Section = Section {
    name: "two_compensations",
    title: "two compensations a message, by sources",
    figures: &["ns a message"],
    columns: section::BY_SOURCES,
    contenders: &contenders::<BySources>(),
    targets: TARGETS,
    countable: true,
    note: NOTE,
};

pub(crate) const BY_NUMBER: Section = Section {
    name: "compensations",
    title: "compensations a message, 64 sources",
    figures: &["ns a message"],
    columns: &[
        Column::new("none", 0, 1_000_000),
        Column::new("1", 1, 1_000_000),
        Column::new("2", 2, 1_000_000),
        Column::new("8", 8, 250_000),
    ],
    contenders: &contenders::<ByNumber>(),
    targets: &[],
    countable: true,
    note: NOTE,
};

const TARGETS: &[Target] = &[
    Target {
        what: "by hand to fan_in, Commit::Message: at least 2",
        of: HAND_PER_MESSAGE,
        to: To::Contender(FAN_IN_MESSAGE),
        bound: Bound::Least(2.0),
    },
    Target {
        what: "by hand to fan_in, Commit::Pipeline: at least 2",
        of: HAND_TO_THE_END,
        to: To::Contender(FAN_IN_PIPELINE),
        bound: Bound::Least(2.0),
    },
];

const NOTE: &str = "by_hand is a loop over select_all and a list of boxed closures; \
                    by_hand_merge one over the merge of futures-concurrency.";

/// What the size of a load says here.
trait Axis {
    /// In how many channels the messages lie, and how many compensations each gets.
    fn split(load: Load) -> (Load, u32);
}

struct BySources;

impl Axis for BySources {
    fn split(load: Load) -> (Load, u32) {
        (load, 2)
    }
}

struct ByNumber;

impl Axis for ByNumber {
    fn split(load: Load) -> (Load, u32) {
        (load.in_channels(SOURCES), load.size)
    }
}

const fn contenders<A: Axis>() -> [Contender; 7] {
    [
        Contender {
            name: HAND_PER_MESSAGE,
            role: Role::PeerOf(FAN_IN_MESSAGE),
            once: |load| by_hand::<A, SelectAll>(load, Vec::clear),
        },
        Contender {
            name: MERGE_PER_MESSAGE,
            role: Role::PeerOf(FAN_IN_MESSAGE),
            once: |load| by_hand::<A, Merged>(load, Vec::clear),
        },
        Contender {
            name: FAN_IN_MESSAGE,
            role: Role::Ours,
            once: |load| by_fan_in::<A>(load, Commit::Message),
        },
        Contender {
            name: HAND_TO_THE_END,
            role: Role::PeerOf(FAN_IN_PIPELINE),
            once: |load| by_hand::<A, SelectAll>(load, |_| ()),
        },
        Contender {
            name: MERGE_TO_THE_END,
            role: Role::PeerOf(FAN_IN_PIPELINE),
            once: |load| by_hand::<A, Merged>(load, |_| ()),
        },
        Contender {
            name: FAN_IN_PIPELINE,
            role: Role::Ours,
            once: |load| by_fan_in::<A>(load, Commit::Pipeline),
        },
        Contender {
            name: FAN_IN_NEVER,
            role: Role::Ours,
            once: |load| by_fan_in::<A>(load, Commit::Never),
        },
    ]
}

fn by_hand<A: Axis, M: Merge>(load: Load, after_message: fn(&mut Vec<BoxedUndo>)) -> Vec<f64> {
    let (load, undos) = A::split(load);
    draining(load, |all| drain_by_hand::<M>(all, undos, after_message))
}

fn drain_by_hand<M: Merge>(
    channels: Vec<Receiver<u64>>,
    undos: u32,
    after_message: fn(&mut Vec<BoxedUndo>),
) -> u64 {
    let sum = AtomicU64::new(0);
    let undone = Arc::new(AtomicU64::new(0));
    let loop_by_hand = async {
        let mut staged = Vec::new();
        let mut messages = pin!(M::merge(channels));
        while let Some(message) = messages.next().await {
            handle_by_hand(message, undos, &sum, &undone, &mut staged).await?;
            after_message(&mut staged);
        }
        staged.clear();
        Ok::<_, BoxError>(())
    };
    block_on(loop_by_hand).expect("no handler fails");
    sum.into_inner()
}

async fn handle_by_hand(
    message: u64,
    undos: u32,
    sum: &AtomicU64,
    undone: &Arc<AtomicU64>,
    staged: &mut Vec<BoxedUndo>,
) -> Result<(), BoxError> {
    for _ in 0..undos {
        staged.push(Undo::new(undone, message).boxed());
    }
    handle(message, sum).await
}

fn by_fan_in<A: Axis>(load: Load, commit: Commit) -> Vec<f64> {
    let (load, undos) = A::split(load);
    draining(load, |all| drain_by_fan_in(all, undos, commit))
}

fn drain_by_fan_in(channels: Vec<Receiver<u64>>, undos: u32, commit: Commit) -> u64 {
    let sum = AtomicU64::new(0);
    let undone = Arc::new(AtomicU64::new(0));
    let context = StepContext::new("sum");
    let drain = async {
        let handler = |message, step| handle_step(message, undos, step, &sum, &undone);
        fan_in(&context, channels, handler).commit(commit).await
    };
    block_on(drain).expect("no handler fails");
    // Nothing is left to clear, unless nothing was to be committed.
    context.scope().clear();
    sum.into_inner()
}

async fn handle_step(
    message: u64,
    undos: u32,
    step: StepContext,
    sum: &AtomicU64,
    undone: &Arc<AtomicU64>,
) -> Result<(), BoxError> {
    for _ in 0..undos {
        let undo = Undo::new(undone, message);
        step.register_compensation(move || undo.attempt());
    }
    handle(message, sum).await
}
