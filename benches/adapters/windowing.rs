//! Windows of 64 messages of one channel.

use std::pin::pin;

use async_channel::Receiver;
use futures::executor::block_on;
use futures::stream::{Stream, StreamExt};
use watershed::{StepContext, channels};

use crate::support::marks::{Bound, Mark};
use crate::support::measure::draining;
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "window";
const FIGURE: &str = "ns a message";
const COUNT: usize = 64;

pub(crate) const SECTION: Section = Section {
    name: "window",
    title: "windows of 64 messages",
    figures: &[FIGURE],
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
    marks: &[Mark {
        what: "the fastest peer to window",
        figure: FIGURE,
        of: &["chunks", "ready_chunks"],
        to: Some(OURS),
        bound: Bound::Even(&[1]),
    }],
    countable: true,
    note: "",
};

fn only(mut channels: Vec<Receiver<u64>>) -> Receiver<u64> {
    channels.pop().expect("there is one")
}

fn by_window(channels: Vec<Receiver<u64>>) -> u64 {
    let context = StepContext::new("sum");
    let windows = channels::Window::new(&context, only(channels)).count(COUNT).stream();
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
