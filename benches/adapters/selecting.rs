//! One message at a time out of 8 channels.

use std::time::Duration;

use async_channel::Receiver;
use futures::executor::block_on;
use futures_concurrency::future::Race;
use watershed::channels::Select;
use watershed::{ErrorCode, StepContext, channels};

use crate::channels::Load;
use crate::measure::{Contender, Section, draining};
use crate::targets::{Bound, Target};

const OURS: &str = "select";

pub(crate) const SECTION: Section = Section {
    title: "a select over 8 channels in a loop: ratio to select",
    has_sources: false,
    contenders: &[
        Contender { name: OURS, floor: OURS, once: |load| of_eight(load, by_select) },
        Contender {
            name: "future_select_all",
            floor: OURS,
            once: |load| of_eight(load, by_future_select_all),
        },
        Contender { name: "race", floor: OURS, once: |load| of_eight(load, by_race) },
    ],
    targets: &[
        Target {
            what: "future::select_all to select: at least 1",
            of: "future_select_all",
            to: OURS,
            bound: Bound::Least(1.0),
        },
        Target {
            what: "race to select: at least 1",
            of: "race",
            to: OURS,
            bound: Bound::Least(1.0),
        },
    ],
};

fn of_eight(load: Load, drain: fn(Vec<Receiver<u64>>) -> u64) -> Duration {
    draining(Load { sources: 8, ..load }, drain)
}

fn by_select(receivers: Vec<Receiver<u64>>) -> u64 {
    let context = StepContext::new("sum");
    let select = receivers.into_iter().fold(channels::select(&context), Select::pass);
    block_on(async {
        let (mut select, mut sum) = (select, 0);
        loop {
            match select.run().await {
                Ok(message) => sum += message,
                Err(error) if error.code() == ErrorCode::SelectDrained => return sum,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

/// A race of receives for every message; a channel that has ended is left out from then on.
fn by_future_select_all(mut receivers: Vec<Receiver<u64>>) -> u64 {
    block_on(async {
        let mut sum = 0;
        while !receivers.is_empty() {
            let all = receivers.iter().map(|receiver| Box::pin(receiver.recv()));
            let (received, index, _) = futures::future::select_all(all).await;
            match received {
                Ok(message) => sum += message,
                Err(_) => drop(receivers.swap_remove(index)),
            }
        }
        sum
    })
}

fn by_race(mut receivers: Vec<Receiver<u64>>) -> u64 {
    block_on(async {
        let mut sum = 0;
        while !receivers.is_empty() {
            let indexed = receivers.iter().enumerate();
            let all: Vec<_> = indexed
                .map(|(index, receiver)| async move { (index, receiver.recv().await) })
                .collect();
            match all.race().await {
                (_, Ok(message)) => sum += message,
                (index, Err(_)) => drop(receivers.swap_remove(index)),
            }
        }
        sum
    })
}
