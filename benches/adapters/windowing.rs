//! Windows of 64 messages of one channel.

use std::num::NonZeroUsize;
use std::pin::pin;

use async_channel::Receiver;
use futures::executor::block_on;
use futures::stream::{Stream, StreamExt};
use watershed::{StepContext, channels};

use crate::support::measure::draining;
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "window";
const COUNT: usize = 64;

pub(crate) const SECTION: Section = Section {
    name: "window",
    title: "windows of 64 messages",
    figures: &["ns a message"],
    columns: &[Column::new("1 channel", 1, 1_000_000)],
    contenders: &[
        Contender { name: OURS, role: Role::Ours, once: |load| draining(load, by_window) },
        Contender {
            name: "chunks",
            role: Role::PeerOf(OURS),
            once: |load| draining(load, |all| sum(only(all).chunks(COUNT))),
        },
        Contender {
            name: "ready_chunks",
            role: Role::PeerOf(OURS),
            once: |load| draining(load, |all| sum(only(all).ready_chunks(COUNT))),
        },
    ],
    targets: &[],
    countable: true,
    note: "",
};

fn only(mut channels: Vec<Receiver<u64>>) -> Receiver<u64> {
    channels.pop().expect("there is one")
}

fn by_window(channels: Vec<Receiver<u64>>) -> u64 {
    let count = NonZeroUsize::new(COUNT).expect("not zero");
    let context = StepContext::new("sum");
    let windows = channels::window(&context, only(channels)).count(count).stream();
    sum(windows.expect("it is valid").map(|window| window.expect("no source fails")))
}

fn sum(windows: impl Stream<Item = Vec<u64>>) -> u64 {
    block_on(async {
        let mut windows = pin!(windows);
        let mut sum = 0;
        while let Some(window) = windows.next().await {
            sum += window.into_iter().sum::<u64>();
        }
        sum
    })
}
