//! What of a batch may be settled: of partitions that are ours.
//!
//! The broker takes a commit of whoever is in the group, also of a partition that somebody else has by
//! now: so a receipt of an older assignment is not sent, and the client is asked as well.

use futures::channel::oneshot;
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::TopicPartitionListElem as Element;
use rdkafka::{Offset, TopicPartitionList};
use watershed::transport::{Settled, Verdict};

use crate::committing::{Request, positions};
use crate::consumer::Receipt;
use crate::errors::{closed, error, not_ours};
use crate::group::Client;
use crate::member::{ANSWER_WITHIN, Held, Member};

impl Member {
    /// Seeks, and has committed what is to be. The verdicts are of different partitions.
    pub(crate) fn settle(
        &mut self,
        batch: Vec<(Receipt, Verdict)>,
        answer: oneshot::Sender<Vec<Settled>>,
    ) {
        let Some(client) = self.client() else {
            let _ = answer.send(batch.iter().map(|_| Settled::Lost(closed())).collect());
            return;
        };
        let mut settled: Vec<Option<Settled>> = batch.iter().map(|_| None).collect();
        let mut receipts = Vec::new();
        for (at, (receipt, verdict)) in batch.into_iter().enumerate() {
            if self.held_by(&receipt).is_none() {
                settled[at] = Some(Settled::Lost(not_ours()));
            } else if let Verdict::Release { .. } = verdict {
                settled[at] = Some(self.seek(&client, &receipt));
            } else if let Err(lost) = store(&client, &receipt) {
                settled[at] = Some(lost);
            } else {
                receipts.push((at, receipt));
            }
        }
        let request = Request { receipts, settled, answer };
        if request.receipts.is_empty() {
            let _ = request.answer.send(request.settled.into_iter().flatten().collect());
            return;
        }
        let sent: Vec<_> = request.receipts.iter().map(|(_, receipt)| receipt.clone()).collect();
        // Where it is not sent nobody answers: what became of it is unknown.
        if self.commits.as_ref().is_some_and(|commits| commits.send(request).is_ok()) {
            for receipt in sent {
                if let Some(held) = self.held_by(&receipt) {
                    held.committing += 1;
                }
            }
        }
    }

    fn held_by(&mut self, receipt: &Receipt) -> Option<&mut Held> {
        let held = self.held.get_mut(&receipt.assignment.partition)?;
        (held.partition.assignment == receipt.assignment).then_some(held)
    }

    /// These have their answers; what is confirmed is behind us.
    pub(crate) fn committed(&mut self, answered: &[(Receipt, bool)]) {
        for (receipt, is_confirmed) in answered {
            let Some(held) = self.held_by(receipt) else { continue };
            held.committing -= 1;
            if *is_confirmed {
                held.committed = receipt.offset + 1;
            }
        }
    }

    /// What is given back comes again: the partition is read from there.
    fn seek(&mut self, client: &Client, receipt: &Receipt) -> Settled {
        let Receipt { topic, partition, offset, .. } = receipt;
        let mut tpl = TopicPartitionList::with_capacity(1);
        let sought = tpl
            .add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .and_then(|()| client.seek_partitions(tpl, ANSWER_WITHIN))
            .and_then(|tpl| tpl.elements().iter().try_for_each(Element::error));
        if let Err(cause) = sought {
            let what = format!("seeking partition {partition} of `{topic}` to {offset}");
            return Settled::Unknown(error(what, cause));
        }
        if let Some(held) = self.held_by(receipt) {
            held.partition.moved_to(*offset);
        }
        Settled::Confirmed
    }
}

/// The client refuses this of a partition that is not assigned to it.
fn store(client: &Client, receipt: &Receipt) -> Result<(), Settled> {
    let stored = positions(&[receipt]).and_then(|tpl| {
        client.store_offsets(&tpl)?;
        tpl.elements().iter().try_for_each(Element::error)
    });
    stored.map_err(|cause| Settled::Lost(error("the partition is not assigned", cause)))
}
