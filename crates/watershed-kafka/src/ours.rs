//! The partitions that are ours, and what of them is committed or on its way: behind a lock, for whoever
//! settles, for the thread that commits and for the member's.
//!
//! The broker takes a commit of whoever is in the group, also of a partition that somebody else has by
//! now: so a receipt of an older assignment is not sent, and the client is asked as well. Looking and
//! sending are one step, and so are looking whether anything is on its way and giving up.
//!
//! A commit so passes two threads (the drain's, and the one that waits for the broker) and not three: one
//! by one, where each waits for the last, that is a third of its price.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use futures::channel::oneshot;
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::TopicPartitionListElem as Element;
use watershed::transport::{Assignment, Settled};

use crate::committing::{Request, positions};
use crate::consumer::Receipt;
use crate::errors::{closed, error, not_ours};
use crate::group::{Client, Place};
use crate::partition::Partition;

/// A partition that is ours, and what is committed of it.
#[derive(Debug)]
struct Held {
    partition: Arc<Partition>,
    /// The offset behind the last message that is committed.
    committed: i64,
    /// How many commits of it have no answer yet.
    committing: usize,
}

#[derive(Default)]
pub(crate) struct Ours {
    /// By the number that the library has for a partition.
    held: BTreeMap<u32, Held>,
    /// The client and the thread that commits, while there is one.
    pub(crate) open: Option<(Arc<Client>, Sender<Request>)>,
    /// The member waits for commits.
    is_waited_for: bool,
}

impl Ours {
    pub(crate) fn add(&mut self, partition: Arc<Partition>, committed: i64) {
        let number = partition.assignment.partition;
        self.held.insert(number, Held { partition, committed, committing: 0 });
    }

    /// All that are ours, to be looked at when the lock is free: waking somebody is not our code.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.held.values().map(|held| Arc::clone(&held.partition)).collect()
    }

    pub(crate) fn partition(&self, assignment: Assignment) -> Option<Arc<Partition>> {
        let held = self.held.get(&assignment.partition)?;
        let is_it = held.partition.assignment == assignment;
        is_it.then(|| Arc::clone(&held.partition))
    }

    pub(crate) fn assignments_of(&self, places: &[Place]) -> Vec<Assignment> {
        let partitions = self.held.values().map(|held| &held.partition);
        let partitions = partitions.filter(|partition| is_among(partition, places));
        partitions.map(|partition| partition.assignment).collect()
    }

    fn held_by(&mut self, receipt: &Receipt) -> Option<&mut Held> {
        let held = self.held.get_mut(&receipt.assignment.partition)?;
        (held.partition.assignment == receipt.assignment).then_some(held)
    }

    /// Has committed what is ours of these, which are of different partitions. They are said with their
    /// places in a batch; of the rest of it `settled` has the outcomes.
    pub(crate) fn commit(
        &mut self,
        receipts: Vec<(usize, Receipt)>,
        mut settled: Vec<Option<Settled>>,
        answer: oneshot::Sender<Vec<Settled>>,
    ) {
        let Some((client, commits)) = self.open.clone() else {
            for (at, _) in receipts {
                settled[at] = Some(Settled::Lost(closed()));
            }
            let _ = answer.send(settled.into_iter().flatten().collect());
            return;
        };
        let mut sent = Vec::with_capacity(receipts.len());
        for (at, receipt) in receipts {
            if self.held_by(&receipt).is_none() {
                settled[at] = Some(Settled::Lost(not_ours()));
            } else if let Err(lost) = store(&client, &receipt) {
                settled[at] = Some(lost);
            } else {
                sent.push((at, receipt));
            }
        }
        if sent.is_empty() {
            let _ = answer.send(settled.into_iter().flatten().collect());
            return;
        }
        for (_, receipt) in &sent {
            if let Some(held) = self.held_by(receipt) {
                held.committing += 1;
            }
        }
        // Its thread ends only when nobody can send to it.
        let _ = commits.send(Request { receipts: sent, settled, answer });
    }

    /// These have their answers, and whether that was a yes; what is confirmed is behind us. `true`: the
    /// member waits for that.
    pub(crate) fn committed<'a>(
        &mut self,
        answered: impl Iterator<Item = (&'a Receipt, bool)>,
    ) -> bool {
        for (receipt, is_confirmed) in answered {
            let Some(held) = self.held_by(receipt) else { continue };
            held.committing -= 1;
            if is_confirmed {
                held.committed = receipt.offset + 1;
            }
        }
        std::mem::take(&mut self.is_waited_for)
    }

    /// Gives these up, unless a commit of them is on its way: then the member is told when it has its
    /// answer.
    pub(crate) fn give_up(&mut self, places: &[Place]) -> Option<Vec<Arc<Partition>>> {
        let mut of_them = self.held.values().filter(|held| is_among(&held.partition, places));
        if of_them.any(|held| held.committing > 0) {
            self.is_waited_for = true;
            return None;
        }
        let given_up = self.assignments_of(places).into_iter();
        let given_up = given_up.filter_map(|given_up| self.held.remove(&given_up.partition));
        Some(given_up.map(|held| held.partition).collect())
    }

    /// Whether all that is ours was read to its end and is committed; where not, the member is told of
    /// the next commit.
    pub(crate) fn is_read_and_committed(&mut self) -> bool {
        let is_done = |held: &Held| {
            let (next, at_end) = held.partition.position();
            at_end && held.committed >= next
        };
        let is_done = !self.held.is_empty() && self.held.values().all(is_done);
        self.is_waited_for |= !is_done;
        is_done
    }

    /// Nothing is ours any more, and the thread that commits ends.
    pub(crate) fn close(&mut self) {
        *self = Self::default();
    }
}

fn is_among(partition: &Partition, places: &[Place]) -> bool {
    let Partition { topic, number, .. } = partition;
    places.iter().any(|(name, other)| **topic == **name && number == other)
}

/// The client refuses this of a partition that is not assigned to it.
fn store(client: &Client, receipt: &Receipt) -> Result<(), Settled> {
    let stored = positions(&[receipt]).and_then(|tpl| {
        client.store_offsets(&tpl)?;
        tpl.elements().iter().try_for_each(Element::error)
    });
    stored.map_err(|cause| Settled::Lost(error("the partition is not assigned", cause)))
}

impl std::fmt::Debug for Ours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ours").field("held", &self.held).finish_non_exhaustive()
    }
}
