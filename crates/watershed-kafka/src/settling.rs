//! Commits and seeks, of partitions that are ours.
//!
//! The broker takes a commit of whoever is in the group, also of a partition that somebody else has by
//! now: so a receipt of an older assignment is not sent, and the client is asked as well.

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use watershed::transport::{Event, Settled, Verdict};

use crate::consumer::Receipt;
use crate::errors::{closed, error, lasts, not_ours, outcome};
use crate::group::Client;
use crate::member::{ANSWER_WITHIN, Held, Member};

impl Member {
    /// One outcome for each. They are of different partitions.
    pub(crate) fn settle(&mut self, batch: &[(Receipt, Verdict)]) -> Vec<Settled> {
        let Some(client) = self.client() else {
            return batch.iter().map(|_| Settled::Lost(closed())).collect();
        };
        let mut settled: Vec<Option<Settled>> = batch.iter().map(|_| None).collect();
        let mut commits = Vec::new();
        for (at, (receipt, verdict)) in batch.iter().enumerate() {
            if !self.is_ours(receipt) {
                settled[at] = Some(Settled::Lost(not_ours()));
            } else if let Verdict::Release { .. } = verdict {
                settled[at] = Some(self.seek(&client, receipt));
            } else if let Err(lost) = store(&client, receipt) {
                settled[at] = Some(lost);
            } else {
                commits.push((at, receipt));
            }
        }
        for (at, outcome) in self.commit(&client, &commits) {
            settled[at] = Some(outcome);
        }
        settled.into_iter().flatten().collect()
    }

    fn held_by(&mut self, receipt: &Receipt) -> Option<&mut Held> {
        let held = self.held.get_mut(&receipt.assignment.partition)?;
        (held.partition.assignment == receipt.assignment).then_some(held)
    }

    fn is_ours(&mut self, receipt: &Receipt) -> bool {
        self.held_by(receipt).is_some()
    }

    /// All in one request; where that fails each by itself, since the client says one error for all.
    fn commit(&mut self, client: &Client, receipts: &[(usize, &Receipt)]) -> Vec<(usize, Settled)> {
        let mut outcome = match receipts {
            [] => return Vec::new(),
            [(_, receipt)] => self.commit_once(client, &[*receipt]),
            several => {
                let all: Vec<_> = several.iter().map(|(_, receipt)| *receipt).collect();
                match self.commit_once(client, &all) {
                    Settled::Confirmed => Settled::Confirmed,
                    _ => {
                        let each = several.iter();
                        return each.flat_map(|one| self.commit(client, &[*one])).collect();
                    }
                }
            }
        };
        if let Settled::Confirmed = outcome {
            for (_, receipt) in receipts {
                if let Some(held) = self.held_by(receipt) {
                    held.committed = receipt.offset + 1;
                }
            }
        } else if client.assignment_lost() {
            outcome = Settled::Lost(not_ours());
        }
        receipts.iter().map(|(at, _)| (*at, outcome.clone())).collect()
    }

    fn commit_once(&self, client: &Client, receipts: &[&Receipt]) -> Settled {
        let committed = positions(receipts).and_then(|tpl| client.commit(&tpl, CommitMode::Sync));
        match committed {
            Ok(()) => Settled::Confirmed,
            Err(cause) => {
                if lasts(&cause) {
                    let gone = error("the position cannot be committed", cause.clone());
                    self.shared.notices.tell(Event::Gone(gone));
                }
                outcome(cause)
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
            .and_then(|tpl| tpl.elements().iter().try_for_each(|element| element.error()));
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
        tpl.elements().iter().try_for_each(|element| element.error())
    });
    stored.map_err(|cause| Settled::Lost(error("the partition is not assigned", cause)))
}

fn positions(receipts: &[&Receipt]) -> rdkafka::error::KafkaResult<TopicPartitionList> {
    let mut tpl = TopicPartitionList::with_capacity(receipts.len());
    for Receipt { topic, partition, offset, .. } in receipts {
        tpl.add_partition_offset(topic, *partition, Offset::Offset(offset + 1))?;
    }
    Ok(tpl)
}
