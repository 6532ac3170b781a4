//! Two undos a message that are staged and, as all goes well, cleared: a loop written by hand over
//! `select_all`, and `fan_in`. Both stage the same closures.
//!
//! The loop keeps what it staged on a list. Cleared after each message it is the peer of
//! `Commit::Message`, cleared at the end that of `Commit::Pipeline`.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_channel::Receiver;
use futures::executor::block_on;
use futures::stream::StreamExt;
use watershed::{BoxError, Commit, StepContext, fan_in};

use crate::draining::handle;
use crate::support::marks::{Bound, Mark};
use crate::support::measure::draining;
use crate::support::merges::{Merge, SelectAll};
use crate::support::section::{Column, Contender, Role, Section};
use crate::undo::{BoxedUndo, OfNumbers, OfShared, Undo};

const HAND_EACH: &str = "by_hand_each";
const HAND_END: &str = "by_hand_at_the_end";
const FAN_IN_EACH: &str = "fan_in_each";
const FAN_IN_END: &str = "fan_in_at_the_end";

const FIGURE: &str = "ns a message";
const COLUMNS: &[Column] = &[Column::new("64 sources", 64, 400_000)];

pub(crate) const OF_NUMBERS: Section = Section {
    name: "undos",
    title: "two undos a message that capture numbers",
    figures: &[FIGURE],
    columns: COLUMNS,
    contenders: &contenders::<OfNumbers>(),
    marks: &[each(&[(64, 1.4)]), at_the_end(&[(64, 1.6)])],
    countable: true,
    note: NOTE,
};

pub(crate) const OF_SHARED: Section = Section {
    name: "undos_arc",
    title: "two undos a message that capture an Arc",
    figures: &[FIGURE],
    columns: COLUMNS,
    contenders: &contenders::<OfShared>(),
    marks: &[each(&[(64, 1.25)]), at_the_end(&[(64, 1.4)])],
    countable: true,
    note: NOTE,
};

const NOTE: &str = "By hand: a loop over select_all and a list of boxed closures, which is cleared \
                    after each message or at the end.";

const fn each(cells: &'static [(u32, f64)]) -> Mark {
    Mark {
        what: "by hand to fan_in, a commit each",
        figure: FIGURE,
        of: &[HAND_EACH],
        to: Some(FAN_IN_EACH),
        bound: Bound::Least(cells),
    }
}

const fn at_the_end(cells: &'static [(u32, f64)]) -> Mark {
    Mark {
        what: "by hand to fan_in, one commit at the end",
        figure: FIGURE,
        of: &[HAND_END],
        to: Some(FAN_IN_END),
        bound: Bound::Least(cells),
    }
}

const fn contenders<U: Undo>() -> [Contender; 4] {
    [
        Contender {
            name: HAND_EACH,
            role: Role::PeerOf(FAN_IN_EACH),
            once: |load| draining(load, |all| by_hand::<U>(all, Vec::clear)),
        },
        Contender {
            name: FAN_IN_EACH,
            role: Role::Ours,
            once: |load| draining(load, |all| by_fan_in::<U>(all, Commit::Message)),
        },
        Contender {
            name: HAND_END,
            role: Role::PeerOf(FAN_IN_END),
            once: |load| draining(load, |all| by_hand::<U>(all, |_| ())),
        },
        Contender {
            name: FAN_IN_END,
            role: Role::Ours,
            once: |load| draining(load, |all| by_fan_in::<U>(all, Commit::Pipeline)),
        },
    ]
}

fn by_hand<U: Undo>(channels: Vec<Receiver<u64>>, after_message: fn(&mut Vec<BoxedUndo>)) -> u64 {
    let sum = AtomicU64::new(0);
    let undone = Arc::new(AtomicU64::new(0));
    let loop_by_hand = async {
        let mut staged = Vec::new();
        let mut messages = pin!(SelectAll::merge(channels));
        while let Some(message) = messages.next().await {
            handle_by_hand::<U>(message, &sum, &undone, &mut staged).await?;
            after_message(&mut staged);
        }
        staged.clear();
        Ok::<_, BoxError>(())
    };
    block_on(loop_by_hand).expect("no handler fails");
    sum.into_inner()
}

async fn handle_by_hand<U: Undo>(
    message: u64,
    sum: &AtomicU64,
    undone: &Arc<AtomicU64>,
    staged: &mut Vec<BoxedUndo>,
) -> Result<(), BoxError> {
    staged.push(U::boxed(undone, message));
    staged.push(U::boxed(undone, message));
    handle(message, sum).await
}

fn by_fan_in<U: Undo>(channels: Vec<Receiver<u64>>, commit: Commit) -> u64 {
    let sum = AtomicU64::new(0);
    let undone = Arc::new(AtomicU64::new(0));
    let context = StepContext::new("sum");
    let drain = async {
        let handler = |message, step| handle_step::<U>(message, step, &sum, &undone);
        fan_in(&context, channels, handler).commit(commit).await
    };
    block_on(drain).expect("no handler fails");
    sum.into_inner()
}

async fn handle_step<U: Undo>(
    message: u64,
    step: StepContext,
    sum: &AtomicU64,
    undone: &Arc<AtomicU64>,
) -> Result<(), BoxError> {
    U::stage(undone, message, step.scope());
    U::stage(undone, message, step.scope());
    handle(message, sum).await
}
