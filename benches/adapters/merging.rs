//! Many channels as one stream.

use std::pin::{Pin, pin};

use async_channel::Receiver;
use futures::executor::block_on;
use futures::stream::{Stream, StreamExt, select_all};
use futures_concurrency::stream::Merge;
use tokio_stream::StreamMap;
use watershed::{StepContext, channels};

use crate::measure::{Contender, Section, draining};
use crate::targets::{Bound, Target};

const OURS: &str = "merged";

pub(crate) const SECTION: Section = Section {
    title: "many channels as one stream: ratio to merged",
    has_sources: true,
    contenders: &[
        Contender {
            name: OURS,
            floor: OURS,
            once: |load| {
                draining(load, |all| {
                    let merged = channels::merged(&StepContext::new("sum"), all);
                    sum(merged.map(|message| message.expect("no source fails")))
                })
            },
        },
        Contender {
            name: "select_all",
            floor: OURS,
            once: |load| draining(load, |all| sum(select_all(pinned(all)))),
        },
        Contender {
            name: "futures_concurrency",
            floor: OURS,
            once: |load| draining(load, |all| sum(all.merge())),
        },
        Contender {
            name: "stream_map",
            floor: OURS,
            once: |load| {
                draining(load, |all| {
                    let streams: StreamMap<_, _> = pinned(all).enumerate().collect();
                    sum(streams.map(|(_, message)| message))
                })
            },
        },
    ],
    targets: &[
        Target {
            what: "select_all to merged: at least 1",
            of: "select_all",
            to: OURS,
            bound: Bound::Least(1.0),
        },
        Target {
            what: "futures-concurrency to merged: at least 1",
            of: "futures_concurrency",
            to: OURS,
            bound: Bound::Least(1.0),
        },
        Target {
            what: "StreamMap to merged: at least 1",
            of: "stream_map",
            to: OURS,
            bound: Bound::Least(1.0),
        },
    ],
};

fn pinned(channels: Vec<Receiver<u64>>) -> impl Iterator<Item = Pin<Box<Receiver<u64>>>> {
    channels.into_iter().map(Box::pin)
}

fn sum(messages: impl Stream<Item = u64>) -> u64 {
    block_on(async {
        let mut messages = pin!(messages);
        let mut sum = 0;
        while let Some(message) = messages.next().await {
            sum += message;
        }
        sum
    })
}
