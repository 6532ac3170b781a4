//! Bytes a message that was handled and has no outcome, as many at once as there are messages.

use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};

use watershed::transport::{Able, Fetched, Link, Received, Settled, Transport, Verdict, Want};
use watershed::{BoxError, StepContext, fan_in};

use crate::counting;
use crate::support::channels::Load;
use crate::support::marks::{Bound, Mark};
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "fan_in";
const FIGURE: &str = "bytes a message";

pub(crate) const SECTION: Section = Section {
    name: "unsettled",
    title: "a message that was handled and is not settled, beyond its receipt",
    figures: &[FIGURE],
    columns: &[Column::new("4,096", 4_096, 1), Column::new("65,536", 65_536, 1)],
    contenders: &[Contender { name: OURS, role: Role::Ours, once: ours }],
    marks: &[Mark {
        what: "an unsettled message",
        figure: FIGURE,
        of: &[OURS],
        to: None,
        bound: Bound::Most(&[(4_096, 128.0), (65_536, 128.0)]),
    }],
    countable: false,
    note: "Handlers stage nothing, and no settlement has an answer. All of the drain is counted.",
};

/// Messages that are all there, and never settled.
struct Silent {
    next: AtomicU64,
    messages: u64,
}

impl Transport for Silent {
    type Message = u64;
    type Receipt = u64;

    fn able(&self) -> Able {
        Able::each().batches_of(usize::MAX).prefetches(64)
    }

    async fn fetch(&self, want: Want) -> Fetched<u64, u64> {
        let from = self.next.fetch_add(want.at_most as u64, Ordering::Relaxed);
        if from >= self.messages {
            return pending().await;
        }
        let taken = from..self.messages.min(from + want.at_most as u64);
        Ok(Some(taken.map(|number| Received::new(number, number)).collect()))
    }

    async fn settle(&self, _: Vec<(u64, Verdict)>) -> Vec<Settled> {
        pending().await
    }
}

#[allow(clippy::cast_precision_loss, reason = "a receipt is small")]
fn ours(load: Load) -> Vec<f64> {
    let context = StepContext::new("unsettled");
    let transport = Silent { next: AtomicU64::new(0), messages: u64::from(load.size) };
    let link = Link::new(transport).max_unsettled(usize::MAX);
    let source = link.source();
    let bytes = counting::of_waiting(|| async move {
        fan_in(&context, [source], async |_, _| Ok::<_, BoxError>(())).await
    });
    vec![bytes / f64::from(load.size) - size_of::<u64>() as f64]
}
