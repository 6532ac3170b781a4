//! Batches in which something goes back: the member's thread seeks, and no fetch or revocation is in the
//! middle of that.

use futures::channel::oneshot;
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::TopicPartitionListElem as Element;
use rdkafka::{Offset, TopicPartitionList};
use watershed::transport::{Settled, Verdict};

use crate::consumer::Receipt;
use crate::errors::{closed, error, not_ours};
use crate::member::{ANSWER_WITHIN, Member};

impl Member {
    /// Seeks, and has committed what is to be. The verdicts are of different partitions.
    pub(crate) fn settle(
        &mut self,
        batch: Vec<(Receipt, Verdict)>,
        answer: oneshot::Sender<Vec<Settled>>,
    ) {
        let mut settled: Vec<Option<Settled>> = batch.iter().map(|_| None).collect();
        let mut receipts = Vec::new();
        for (at, (receipt, verdict)) in batch.into_iter().enumerate() {
            if let Verdict::Release { .. } = verdict {
                settled[at] = Some(self.seek(&receipt));
            } else {
                receipts.push((at, receipt));
            }
        }
        self.shared.ours().commit(receipts, settled, answer);
    }

    /// What is given back comes again: the partition is read from there.
    fn seek(&self, receipt: &Receipt) -> Settled {
        let Some(client) = &self.client else { return Settled::Lost(closed()) };
        let Some(held) = self.shared.ours().partition(receipt.assignment) else {
            return Settled::Lost(not_ours());
        };
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
        held.moved_to(*offset);
        Settled::Confirmed
    }
}
