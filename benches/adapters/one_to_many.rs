//! One channel into 8 others, which are emptied afterwards.

use async_channel::{Receiver, Sender};
use futures::executor::block_on;
use futures::stream::StreamExt;
use watershed::{StepContext, channels};

use crate::measure::{Contender, Section, draining};
use crate::targets::{Bound, Target};

const OURS: &str = "broadcast";
const MANY: u64 = 8;

pub(crate) const SECTION: Section = Section {
    title: "one channel into 8: ratio to broadcast",
    has_sources: false,
    contenders: &[
        Contender {
            name: OURS,
            floor: OURS,
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
            floor: OURS,
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
    targets: &[Target {
        what: "the loop by hand to broadcast: at least 1",
        of: "loop_by_hand",
        to: OURS,
        bound: Bound::Least(1.0),
    }],
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
