//! Many channels as one stream.

use std::pin::pin;

use futures::executor::block_on;
use futures::stream::{Stream, StreamExt};
use watershed::{StepContext, channels};

use crate::support::measure::draining;
use crate::support::merges::{Buffered, Group, Merge, Merged, SelectAll, StreamMap, Unicycle};
use crate::support::section::{BY_SOURCES, Contender, Role, Section};

const OURS: &str = "merged";

pub(crate) const SECTION: Section = Section {
    name: "merged",
    title: "many channels as one stream",
    figures: &["ns a message"],
    columns: BY_SOURCES,
    contenders: &[
        Contender {
            name: OURS,
            role: Role::Ours,
            once: |load| {
                draining(load, |all| {
                    let merged = channels::merged(&StepContext::new("sum"), all);
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
    targets: &[],
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
