//! One message at a time out of 8 channels.

use async_channel::Receiver;
use futures::executor::block_on;
use futures_concurrency::future::Race;
use watershed::channels::Select;
use watershed::{ErrorCode, StepContext, channels};

use crate::support::marks::{Bound, Mark};
use crate::support::measure::draining;
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "select";
const FIGURE: &str = "ns a message";

pub(crate) const SECTION: Section = Section {
    name: "select",
    title: "a select over 8 channels in a loop",
    figures: &[FIGURE],
    columns: &[Column::new("8 channels", 8, 1_000_000)],
    contenders: &[
        Contender { name: OURS, role: Role::Ours, once: |load| draining(load, by_select) },
        Contender {
            name: "future_select_all",
            role: Role::PeerOf(OURS),
            once: |load| draining(load, by_future_select_all),
        },
        Contender { name: "race", role: Role::PeerOf(OURS), once: |load| draining(load, by_race) },
    ],
    marks: &[Mark {
        what: "the fastest peer to select",
        figure: FIGURE,
        of: &["future_select_all", "race"],
        to: Some(OURS),
        bound: Bound::Even(&[8]),
    }],
    countable: true,
    note: "",
};

fn by_select(receivers: Vec<Receiver<u64>>) -> u64 {
    let context = StepContext::new("sum");
    let select = receivers.into_iter().fold(channels::Select::new(&context), Select::pass);
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
