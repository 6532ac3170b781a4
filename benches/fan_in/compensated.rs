//! The contenders with two compensations a message: a loop written by hand over `select_all`, and
//! `fan_in`. Both stage the same [`Undo`].
//!
//! The loop keeps what it staged on a list. Cleared after each message it is the peer of
//! `Commit::Message`, cleared at the end that of `Commit::Pipeline`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_channel::Receiver;
use futures::executor::block_on;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{StreamExt, select_all};
use watershed::{BoxError, Commit, StepContext, fan_in};

use crate::measure::{Contender, Section, draining};
use crate::targets::{Bound, Target};
use crate::uncompensated::{handle, pinned};

const HAND_PER_MESSAGE: &str = "by_hand_per_message";
const HAND_TO_THE_END: &str = "by_hand_to_the_end";
const FAN_IN_MESSAGE: &str = "fan_in_commit_message";
const FAN_IN_PIPELINE: &str = "fan_in_commit_pipeline";

pub(crate) const SECTION: Section = Section {
    title: "two compensations a message: ratio to the loop by hand",
    has_sources: true,
    contenders: CONTENDERS,
    targets: &[
        Target {
            what: "by hand to fan_in, Commit::Message: at least 1.5",
            of: HAND_PER_MESSAGE,
            to: FAN_IN_MESSAGE,
            bound: Bound::Least(1.5),
        },
        Target {
            what: "by hand to fan_in, Commit::Pipeline: at least 1.5",
            of: HAND_TO_THE_END,
            to: FAN_IN_PIPELINE,
            bound: Bound::Least(1.5),
        },
    ],
};

const CONTENDERS: &[Contender] = &[
    Contender {
        name: HAND_PER_MESSAGE,
        floor: HAND_PER_MESSAGE,
        once: |load| draining(load, |all| drain_by_hand(all, Vec::clear)),
    },
    Contender {
        name: FAN_IN_MESSAGE,
        floor: HAND_PER_MESSAGE,
        once: |load| draining(load, |all| drain_by_fan_in(all, Commit::Message)),
    },
    Contender {
        name: HAND_TO_THE_END,
        floor: HAND_TO_THE_END,
        once: |load| draining(load, |all| drain_by_hand(all, |_| ())),
    },
    Contender {
        name: FAN_IN_PIPELINE,
        floor: HAND_TO_THE_END,
        once: |load| draining(load, |all| drain_by_fan_in(all, Commit::Pipeline)),
    },
];

/// What an action captures: something shared, and something of the message.
pub(crate) struct Undo {
    undone: Arc<AtomicU64>,
    message: u64,
}

impl Undo {
    pub(crate) fn new(undone: &Arc<AtomicU64>, message: u64) -> Self {
        Self { undone: Arc::clone(undone), message }
    }

    pub(crate) fn attempt(&self) -> impl Future<Output = Result<(), BoxError>> + Send + use<> {
        let (undone, message) = (Arc::clone(&self.undone), self.message);
        async move {
            undone.fetch_add(message, Ordering::Relaxed);
            Ok(())
        }
    }

    /// What a list written by hand can hold.
    pub(crate) fn boxed(self) -> BoxedUndo {
        Box::new(move || self.attempt().boxed())
    }
}

pub(crate) type BoxedUndo = Box<dyn FnMut() -> BoxFuture<'static, Result<(), BoxError>> + Send>;

fn drain_by_hand(channels: Vec<Receiver<u64>>, after_message: fn(&mut Vec<BoxedUndo>)) -> u64 {
    let sum = AtomicU64::new(0);
    let undone = Arc::new(AtomicU64::new(0));
    let loop_by_hand = async {
        let mut staged = Vec::new();
        let mut messages = select_all(pinned(channels));
        while let Some(message) = messages.next().await {
            handle_by_hand(message, &sum, &undone, &mut staged).await?;
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
    sum: &AtomicU64,
    undone: &Arc<AtomicU64>,
    staged: &mut Vec<BoxedUndo>,
) -> Result<(), BoxError> {
    staged.push(Undo::new(undone, message).boxed());
    staged.push(Undo::new(undone, message).boxed());
    handle(message, sum).await
}

fn drain_by_fan_in(channels: Vec<Receiver<u64>>, commit: Commit) -> u64 {
    let sum = AtomicU64::new(0);
    let undone = Arc::new(AtomicU64::new(0));
    let context = StepContext::new("sum");
    let drain = async {
        let handler = |message, step| handle_step(message, step, &sum, &undone);
        fan_in(&context, channels, handler).commit(commit).await
    };
    block_on(drain).expect("no handler fails");
    sum.into_inner()
}

async fn handle_step(
    message: u64,
    step: StepContext,
    sum: &AtomicU64,
    undone: &Arc<AtomicU64>,
) -> Result<(), BoxError> {
    let (first, second) = (Undo::new(undone, message), Undo::new(undone, message));
    step.register_compensation(move || first.attempt());
    step.register_compensation(move || second.attempt());
    handle(message, sum).await
}
