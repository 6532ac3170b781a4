//! Windows of 64 messages of one channel.

use std::num::NonZeroUsize;
use std::pin::pin;

use async_channel::Receiver;
use futures::executor::block_on;
use futures::stream::{Stream, StreamExt};
use watershed::{StepContext, channels};

use crate::measure::{Contender, Section, draining};
use crate::targets::{Bound, Target};

const OURS: &str = "window";
const COUNT: usize = 64;

pub(crate) const SECTION: Section = Section {
    title: "windows of 64 messages: ratio to window",
    has_sources: false,
    contenders: &[
        Contender { name: OURS, floor: OURS, once: |load| draining(load, by_window) },
        Contender {
            name: "chunks",
            floor: OURS,
            once: |load| draining(load, |all| sum(only(all).chunks(COUNT))),
        },
        Contender {
            name: "ready_chunks",
            floor: OURS,
            once: |load| draining(load, |all| sum(only(all).ready_chunks(COUNT))),
        },
    ],
    targets: &[
        Target {
            what: "chunks to window: at least 1",
            of: "chunks",
            to: OURS,
            bound: Bound::Least(1.0),
        },
        Target {
            what: "ready_chunks to window: at least 1",
            of: "ready_chunks",
            to: OURS,
            bound: Bound::Least(1.0),
        },
    ],
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
