//! What the client calls when its group changes. It only notes what is asked: the thread of the
//! consumer answers, when the drain has.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaRespErr;

/// A topic and the number of one of its partitions.
pub(crate) type Place = (String, i32);

/// What the group asks of this consumer. The client waits for the answer.
#[derive(Debug)]
pub(crate) enum Change {
    Assign(Vec<Place>),
    Revoke(Vec<Place>),
}

#[derive(Debug, Default)]
pub(crate) struct Group {
    asked: Mutex<VecDeque<Change>>,
    /// The consumer leaves: nothing is waited for, so the answer is given on the spot.
    leaving: AtomicBool,
}

pub(crate) type Client = BaseConsumer<Group>;

impl Group {
    pub(crate) fn next(&self) -> Option<Change> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }
}

impl ClientContext for Group {}

impl ConsumerContext for Group {
    fn rebalance(&self, client: &Client, asked: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        let places = places(tpl);
        let change = match asked {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Change::Assign(places),
            _ => Change::Revoke(places),
        };
        if self.leaving.load(Ordering::Relaxed) {
            // Refused only where the client is past it.
            let _ = match change {
                Change::Assign(_) => give(client, tpl),
                Change::Revoke(_) => take_away(client, tpl),
            };
            return;
        }
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push_back(change);
    }
}

fn places(tpl: &TopicPartitionList) -> Vec<Place> {
    let elements = tpl.elements();
    elements.iter().map(|it| (it.topic().to_owned(), it.partition())).collect()
}

/// Tells the client that it has these partitions from now on.
pub(crate) fn give(client: &Client, tpl: &TopicPartitionList) -> KafkaResult<()> {
    match client.rebalance_protocol() {
        RebalanceProtocol::Cooperative => client.incremental_assign(tpl),
        _ => client.assign(tpl),
    }
}

/// Tells the client that it has these partitions no longer. In the eager protocol they are all it has.
pub(crate) fn take_away(client: &Client, tpl: &TopicPartitionList) -> KafkaResult<()> {
    match client.rebalance_protocol() {
        RebalanceProtocol::Cooperative => client.incremental_unassign(tpl),
        _ => client.unassign(),
    }
}
