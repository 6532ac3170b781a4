//! The thread that commits. A commit waits for the broker, and may do so for long; the member goes on
//! polling meanwhile, and takes no partition away before the commit has its answer.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::{io, thread};

use futures::channel::oneshot;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use watershed::transport::{Event, Settled};

use crate::consumer::{Receipt, Shared};
use crate::errors::{error, lasts, not_ours, outcome};
use crate::group::Client;
use crate::member::Command;

/// What was looked at, and what is still to be committed of it.
pub(crate) struct Request {
    /// By position in the batch.
    pub(crate) receipts: Vec<(usize, Receipt)>,
    pub(crate) settled: Vec<Option<Settled>>,
    pub(crate) answer: oneshot::Sender<Vec<Settled>>,
}

/// Starts the thread; it ends when the sender is dropped.
pub(crate) fn start(client: Arc<Client>, shared: Arc<Shared>) -> io::Result<Sender<Request>> {
    let (requests, receiver) = mpsc::channel();
    let thread = thread::Builder::new().name("watershed-kafka-commits".to_owned());
    thread.spawn(move || commit_all(&client, &shared, &receiver))?;
    Ok(requests)
}

fn commit_all(client: &Client, shared: &Shared, receiver: &Receiver<Request>) {
    while let Ok(first) = receiver.recv() {
        // What has gathered meanwhile goes in the same request: all of it is of different partitions.
        let mut requests: Vec<_> = std::iter::once(first).chain(receiver.try_iter()).collect();
        let of_one = |(at, request): (usize, &Request)| {
            let receipts = request.receipts.iter();
            receipts
                .map(move |(place, receipt)| ((at, *place), receipt.clone()))
                .collect::<Vec<_>>()
        };
        let all: Vec<_> = requests.iter().enumerate().flat_map(of_one).collect();
        let outcomes = commit(client, shared, &all);
        let is_confirmed = |settled: &Settled| matches!(settled, Settled::Confirmed);
        let answered = all.iter().zip(&outcomes);
        let answered = answered.map(|((_, receipt), it)| (receipt, is_confirmed(it)));
        // Noted before the drain knows: it may be asked about it at once.
        if shared.ours().committed(answered) {
            let _ = shared.commands.send(Command::Look);
        }
        for (((at, place), _), settled) in all.iter().zip(outcomes) {
            requests[*at].settled[*place] = Some(settled);
        }
        for Request { settled, answer, .. } in requests {
            let _ = answer.send(settled.into_iter().flatten().collect());
        }
    }
}

/// All in one request; where that fails each by itself, since the client says one error for all.
fn commit<P>(client: &Client, shared: &Shared, receipts: &[(P, Receipt)]) -> Vec<Settled> {
    let receipts: Vec<_> = receipts.iter().map(|(_, receipt)| receipt).collect();
    if receipts.len() > 1 {
        if let Settled::Confirmed = commit_once(client, shared, &receipts) {
            return receipts.iter().map(|_| Settled::Confirmed).collect();
        }
    }
    receipts.into_iter().map(|receipt| commit_once(client, shared, &[receipt])).collect()
}

fn commit_once(client: &Client, shared: &Shared, receipts: &[&Receipt]) -> Settled {
    let committed = positions(receipts).and_then(|tpl| client.commit(&tpl, CommitMode::Sync));
    let Err(cause) = committed else { return Settled::Confirmed };
    if client.assignment_lost() {
        return Settled::Lost(not_ours());
    }
    if lasts(&cause) {
        let gone = error("the position cannot be committed", cause.clone());
        shared.notices.tell(Event::Gone(gone));
    }
    outcome(cause)
}

/// The positions behind these messages.
pub(crate) fn positions(receipts: &[&Receipt]) -> KafkaResult<TopicPartitionList> {
    let mut tpl = TopicPartitionList::with_capacity(receipts.len());
    for Receipt { topic, partition, offset, .. } in receipts {
        tpl.add_partition_offset(topic, *partition, Offset::Offset(offset + 1))?;
    }
    Ok(tpl)
}
