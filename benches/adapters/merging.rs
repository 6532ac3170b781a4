//! Many channels as one stream.

use std::pin::pin;

use futures::executor::block_on;
use futures::stream::{Stream, StreamExt};
use watershed::{StepContext, channels};

use crate::support::marks::{Bound, Mark};
use crate::support::measure::draining;
use crate::support::merges::{Buffered, Group, Merge, Merged, SelectAll, StreamMap, Unicycle};
use crate::support::section::{BY_SOURCES, Contender, Role, Section};

const OURS: &str = "merge";
const FIGURE: &str = "ns a message";

pub(crate) const SECTION: Section = Section {
    name: "merge",
    title: "many channels as one stream",
    figures: &[FIGURE],
    columns: BY_SOURCES,
    contenders: &[
        Contender {
            name: OURS,
            role: Role::Ours,
            once: |load| {
                draining(load, |all| {
                    let merged = channels::merge(&StepContext::new("sum"), all);
                    sum(merged.map(|message| message.expect("no source fails")))
                })
            },
        },
        peer::<SelectAll>(),
        peer::<Merged>(),
        peer::<Group>(),
        peer::<StreamMap>(),
        peer::<Unicycle>(),
        peer::<Buffered>(),
    ],
    marks: &[Mark {
        what: "the fastest peer to merge",
        figure: FIGURE,
        of: &[
            SelectAll::NAME,
            Merged::NAME,
            Group::NAME,
            StreamMap::NAME,
            Unicycle::NAME,
            Buffered::NAME,
        ],
        to: Some(OURS),
        bound: Bound::Even(&[1, 64, 1_024, 16_384]),
    }],
    countable: true,
    note: "",
};

const fn peer<M: Merge>() -> Contender {
    Contender {
        name: M::NAME,
        role: Role::PeerOf(OURS),
        once: |load| draining(load, |all| sum(M::merge(all))),
    }
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
