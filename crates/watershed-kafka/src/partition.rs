//! One partition that is assigned: read by the drain without waiting, and closed by the member.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, OwnedMessage};
use watershed::transport::{Assignment, Facts, Received};

use crate::consumer::Receipt;
use crate::group::{Client, Group};

pub(crate) struct Partition {
    pub(crate) assignment: Assignment,
    pub(crate) topic: Arc<str>,
    /// The number that Kafka has for it.
    pub(crate) number: i32,
    bytes_at_once: usize,
    reading: Mutex<Reading>,
    /// Whoever waits for a message. The client's own threads wake it.
    waker: Arc<AtomicWaker>,
}

struct Reading {
    /// Out when the partition is given up: it keeps the client alive.
    queue: Option<PartitionQueue<Group>>,
    /// The offset behind the last message that was read.
    next: i64,
    /// The client was at the end of the partition.
    at_end: bool,
    /// Came behind messages that were read in the same fetch.
    failed: Option<KafkaError>,
    /// Until when somebody waits.
    until: Option<Instant>,
    /// The id of the last message: the next one begins with the same topic and partition.
    id: String,
}

/// What there is to be read.
pub(crate) enum Read {
    Messages(Vec<Received<OwnedMessage, Receipt>>),
    Nothing,
    End,
    Failed(KafkaError),
    /// The partition was given up.
    Closed,
}

impl Partition {
    /// Opened before the partition is given to the client, so that no message goes another way.
    pub(crate) fn open(
        client: &Arc<Client>,
        (topic, number): (&Arc<str>, i32),
        assignment: Assignment,
        next: i64,
        bytes_at_once: usize,
    ) -> Option<Arc<Self>> {
        let mut queue = client.split_partition_queue(topic, number)?;
        let waker = Arc::new(AtomicWaker::new());
        let woken = Arc::clone(&waker);
        queue.set_nonempty_callback(move || woken.wake());
        let queue = Some(queue);
        let id = format!("{topic}/{number}/");
        let reading = Reading { queue, next, at_end: false, failed: None, until: None, id };
        let (topic, reading) = (Arc::clone(topic), Mutex::new(reading));
        Some(Arc::new(Self { assignment, topic, number, bytes_at_once, reading, waker }))
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is woken from now on.
    pub(crate) fn wakes(&self, cx: &std::task::Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// What is there now. Whoever waits does so until the moment said, and is woken then.
    pub(crate) fn read(&self, at_most: usize, until: Instant) -> Read {
        let mut reading = self.reading();
        reading.until = None;
        if let Some(error) = reading.failed.take() {
            return Read::Failed(error);
        }
        let Reading { queue: Some(queue), next, at_end, failed, id, .. } = &mut *reading else {
            return Read::Closed;
        };
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while messages.len() < at_most && bytes <= self.bytes_at_once {
            match queue.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    *next = message.offset() + 1;
                    *at_end = false;
                    bytes += message.payload_len() + message.key_len();
                    if messages.is_empty() {
                        // They are large: a vector that grows would copy each of them twice.
                        messages.reserve_exact(at_most);
                    }
                    messages.push(self.received(&message, id));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    *at_end = true;
                    break;
                }
                Some(Err(error)) => {
                    *failed = Some(error);
                    break;
                }
                None => break,
            }
        }
        if !messages.is_empty() {
            return Read::Messages(messages);
        }
        if let Some(error) = failed.take() {
            return Read::Failed(error);
        }
        if *at_end {
            return Read::End;
        }
        reading.until = Some(until);
        Read::Nothing
    }

    /// `id`: that of an earlier message, which becomes that of this one.
    fn received(
        &self,
        message: &BorrowedMessage<'_>,
        id: &mut String,
    ) -> Received<OwnedMessage, Receipt> {
        let offset = message.offset();
        let (topic, partition) = (Arc::clone(&self.topic), self.number);
        id.truncate(id.rfind('/').map_or(0, |slash| slash + 1));
        // A string takes whatever is written to it.
        let _ = write!(id, "{offset}");
        // The client looks for headers each time that it is asked: in the copy they have been found.
        let message = message.detach();
        let headers = message.headers().map(|headers| {
            let headers = headers.iter();
            headers.map(|it| (it.key.to_owned(), it.value.unwrap_or_default().to_vec())).collect()
        });
        let facts = Facts {
            id: Some(id.as_str().into()),
            assignment: self.assignment,
            headers: headers.unwrap_or_default(),
            ..Facts::default()
        };
        let receipt = Receipt { assignment: self.assignment, topic, partition, offset };
        Received::new(message, receipt).with_facts(facts)
    }

    /// The offset behind the last message that was read, and whether the end was behind it.
    pub(crate) fn position(&self) -> (i64, bool) {
        let reading = self.reading();
        (reading.next, reading.at_end)
    }

    /// The client goes on from another offset.
    pub(crate) fn moved_to(&self, offset: i64) {
        let mut reading = self.reading();
        reading.next = offset;
        reading.at_end = false;
        reading.failed = None;
    }

    /// Wakes whoever has waited long enough.
    pub(crate) fn tick(&self, now: Instant) {
        if self.reading().until.is_some_and(|until| now >= until) {
            self.waker.wake();
        }
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Nothing more is read. Called on the member's thread, which alone may drop the client.
    pub(crate) fn close(&self) {
        let queue = self.reading().queue.take();
        drop(queue);
        self.waker.wake();
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("topic", &self.topic)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
