//! What a message costs that is settled.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::executor::block_on;
use futures::stream::{self, FuturesUnordered, StreamExt};
use watershed::transport::Link;
use watershed::{BoxError, Commit, StepContext, fan_in};

use super::transport::Counter;
use crate::support::channels::Load;
use crate::support::marks::{Bound, Mark};
use crate::support::measure::timing;
use crate::support::section::{Column, Contender, Role, Section};

const TIME: &str = "ns a message";
const MORE: &str = "ns more than without settling";

const AT_ONCE: &[Column] = &[
    Column::new("1 at once", 1, 1_000_000),
    Column::new("16 at once", 16, 1_000_000),
    Column::new("256 at once", 256, 1_000_000),
];

pub(crate) const ONE_BY_ONE: Section = Section {
    name: "one_by_one",
    title: "one verdict a call, answered at once",
    figures: &[TIME, MORE],
    columns: AT_ONCE,
    contenders: &[
        Contender { name: "settled", role: Role::Ours, once: |load| settled(load, ONE) },
        Contender {
            name: "by hand",
            role: Role::PeerOf("settled"),
            once: |load| by_hand(load, ONE),
        },
    ],
    marks: &[Mark {
        what: "settling, beside the same drain without",
        figure: MORE,
        of: &["settled"],
        to: None,
        bound: Bound::Most(&[(1, 150.0), (16, 150.0), (256, 150.0)]),
    }],
    countable: true,
    note: "By hand is a loop that accepts each message behind its handler.",
};

pub(crate) const BATCHES: Section = Section {
    name: "batches",
    title: "100 verdicts a call, answered after 1 ms",
    figures: &[TIME, MORE],
    columns: AT_ONCE,
    contenders: &[
        Contender { name: "settled", role: Role::Ours, once: |load| settled(load, HUNDRED) },
        Contender {
            name: "by hand",
            role: Role::PeerOf("settled"),
            once: |load| by_hand(load, HUNDRED),
        },
    ],
    marks: &[Mark {
        what: "settling, beside the same drain without",
        figure: MORE,
        of: &["settled"],
        to: None,
        bound: Bound::Most(&[(1, 60.0), (16, 60.0), (256, 60.0)]),
    }],
    countable: false,
    note: "By hand is a loop that gathers 100 messages and has any number of accepts on their way.",
};

/// Verdicts a call, and when it is answered.
type Calls = (usize, Duration);

const ONE: Calls = (1, Duration::ZERO);
const HUNDRED: Calls = (100, Duration::from_millis(1));

/// The handlers of both drains.
#[allow(clippy::unused_async, reason = "handlers are async")]
async fn handle(number: u64) -> Result<(), BoxError> {
    std::hint::black_box(number);
    Ok(())
}

fn settled(load: Load, (batch, after): Calls) -> Vec<f64> {
    let messages = u64::from(load.messages);
    let link = Link::new(Counter::new(messages, batch, after)).max_unsettled(1_000_000);
    let (report, took) = timing(|| {
        let drain =
            fan_in(&StepContext::new("settled"), [link.source()], |number, _| handle(number))
                .unordered()
                .concurrency(load.size as usize);
        block_on(drain.into_future()).expect("nothing fails")
    });
    assert_eq!(report.accepted(), messages);
    assert_eq!(link.transport().accepted.load(Ordering::Relaxed), messages);
    let (_, plain) = timing(|| {
        let numbers = stream::iter(0..messages);
        let drain = fan_in(&StepContext::new("plain"), [numbers], |number, _| handle(number))
            .unordered()
            .concurrency(load.size as usize)
            .commit(Commit::Message);
        block_on(drain.into_future()).expect("nothing fails")
    });
    figures(load, took, plain)
}

fn by_hand(load: Load, (batch, after): Calls) -> Vec<f64> {
    let messages = u64::from(load.messages);
    let counter = Counter::new(messages, batch, after);
    let ((), took) = timing(|| {
        block_on(async {
            let (mut accepts, mut done) = (FuturesUnordered::new(), 0);
            loop {
                let taken = counter.take(256);
                if taken.is_empty() {
                    break;
                }
                for number in taken {
                    handle(number).await.expect("nothing fails");
                    done += 1;
                    if done == batch {
                        accepts.push(counter.accept(std::mem::take(&mut done)));
                        // Those that are there already, without waiting.
                        while let Some(Some(())) = futures::FutureExt::now_or_never(accepts.next())
                        {
                        }
                    }
                }
            }
            accepts.push(counter.accept(done));
            while accepts.next().await.is_some() {}
        });
    });
    assert_eq!(counter.accepted.load(Ordering::Relaxed), messages);
    figures(load, took, Duration::ZERO)
}

fn figures(load: Load, took: Duration, plain: Duration) -> Vec<f64> {
    let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(load.messages);
    vec![each(took), each(took) - each(plain)]
}
