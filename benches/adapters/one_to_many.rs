//! One channel into 8 others, which are emptied afterwards.

use async_channel::{Receiver, Sender};
use futures::executor::block_on;
use futures::stream::StreamExt;
use watershed::{StepContext, channels};

use crate::support::marks::{Bound, Mark};
use crate::support::measure::draining;
use crate::support::section::{Column, Contender, Role, Section};

const OURS: &str = "broadcast";
const FIGURE: &str = "ns a message";
const MANY: u64 = 8;

pub(crate) const SECTION: Section = Section {
    name: "broadcast",
    title: "one channel into 8",
    figures: &[FIGURE],
    columns: &[Column::new("1 channel", 1, 1_000_000)],
    contenders: &[
        Contender {
            name: OURS,
            role: Role::Ours,
            once: |load| {
                draining(load, |all| {
                    spread(all, |source, senders| {
                        let context = StepContext::new("spread");
                        let broadcast =
                            async { channels::broadcast(&context, source, senders).await };
                        block_on(broadcast).expect("nothing fails");
                    })
                })
            },
        },
        Contender {
            name: "loop_by_hand",
            role: Role::PeerOf(OURS),
            once: |load| {
                draining(load, |all| {
                    spread(all, |source, senders| {
                        block_on(async {
                            let mut source = std::pin::pin!(source);
                            while let Some(message) = source.next().await {
                                for sender in &senders {
                                    sender.send(message).await.expect("somebody receives");
                                }
                            }
                        });
                    })
                })
            },
        },
    ],
    marks: &[Mark {
        what: "the fastest peer to broadcast",
        figure: FIGURE,
        of: &["loop_by_hand"],
        to: Some(OURS),
        bound: Bound::Even(&[1]),
    }],
    countable: true,
    note: "",
};

fn spread(
    mut channels: Vec<Receiver<u64>>,
    spread: impl FnOnce(Receiver<u64>, Vec<Sender<u64>>),
) -> u64 {
    let source = channels.pop().expect("there is one");
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..MANY).map(|_| async_channel::unbounded()).unzip();
    spread(source, senders);
    let received =
        receivers.iter().flat_map(|receiver| std::iter::from_fn(|| receiver.try_recv().ok()));
    received.sum::<u64>() / MANY
}
