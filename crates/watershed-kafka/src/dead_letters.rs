//! A topic for what was given up.
//!
//! A letter is stored when the broker has confirmed it; only then does the drain reject the message,
//! which lets the group's position pass it.

use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, thread};

use futures::channel::oneshot;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage, Timestamp};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Message};
use watershed::transport::Trouble;
use watershed::{Error, ErrorCode, Letter};

use crate::errors::error;
use crate::member::ANSWER_WITHIN;
use crate::positions::partitions_of_one;
use crate::setup::gives_up_soon;

/// A topic for the messages that were given up, for
/// [`FanIn::dead_letters`](watershed::FanIn::dead_letters).
///
/// A record goes there as it was: key, value (or none), timestamp and headers. These headers are added,
/// together at most 2 KiB, and left out where the record does not fit with them:
///
/// | header | has |
/// | --- | --- |
/// | `watershed.topic`, `watershed.partition`, `watershed.offset` | where it was |
/// | `watershed.attempts` | how often its handler was called |
/// | `watershed.error` | why it was given up, its first 1,024 bytes |
///
/// A letter may be there twice: where the broker has stored it and its answer was lost. A producer that
/// is of no use any more, because it and the broker disagree about what was stored, is replaced.
pub struct DeadLetters {
    config: ClientConfig,
    producer: Mutex<Arc<Producer>>,
    topic: String,
    limit: String,
}

type Producer = ThreadedProducer<Delivered>;

type Answer = oneshot::Sender<KafkaResult<()>>;

/// Tells whoever has sent a record what became of it.
struct Delivered;

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Box<Answer>) {
        let result = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        let _ = answer.send(result);
    }
}

const LONGEST_REASON: usize = 1024;

impl DeadLetters {
    /// Letters go to `topic`, by a producer with this configuration: the client's own. `acks` is `all`.
    /// Where nothing else is said `enable.idempotence` is `true`, and `socket.timeout.ms` is 10 s: what the
    /// broker has not answered by then is sent again.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Validation`] where the configuration asks for other `acks`, where there is no such
    /// topic, and where it is compacted: a letter would be deleted by the next one with its key. What
    /// the broker answers otherwise is [`ErrorCode::Source`]; it has to let the topic's configuration be
    /// described.
    ///
    /// # Cancel safety
    ///
    /// Nothing was sent but questions.
    pub async fn open(mut config: ClientConfig, topic: impl Into<String>) -> Result<Self, Error> {
        let topic = topic.into();
        let acks = ["acks", "request.required.acks"];
        for said in acks.iter().filter_map(|key| config.get(key)) {
            if !matches!(said, "all" | "-1") {
                let text = format!("`acks={said}` confirms no letter: it has to be `all`");
                return Err(Error::validation(text));
            }
        }
        is_there(config.clone(), topic.clone()).await?;
        keeps_all(&config, &topic).await?;
        config.set("acks", "all");
        if config.get("enable.idempotence").is_none() {
            config.set("enable.idempotence", "true");
        }
        gives_up_soon(&mut config);
        Self::confirmed(config, topic)
    }

    /// With a configuration that has every letter confirmed.
    fn confirmed(config: ClientConfig, topic: String) -> Result<Self, Error> {
        let producer = Mutex::new(produce(&config)?);
        let limit = config.get("message.max.bytes").unwrap_or("1000000").to_owned();
        Ok(Self { config, producer, topic, limit })
    }

    /// One that can send. The client's errors that are fatal to a producer are for good.
    fn producer(&self) -> Result<Arc<Producer>, Error> {
        let producer = Arc::clone(&self.producer.lock().unwrap_or_else(PoisonError::into_inner));
        if is_lost(&producer) { self.another_than(&producer) } else { Ok(producer) }
    }

    /// The one that has taken the place of `lost`, or takes it now.
    fn another_than(&self, lost: &Arc<Producer>) -> Result<Arc<Producer>, Error> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&producer, lost) {
            // What is on its way, and not taken, would go back into a queue that nobody sends from, and
            // be given up after its 5 minutes.
            lost.purge(PurgeConfig::default().queue().inflight().non_blocking());
            *producer = produce(&self.config)?;
        }
        Ok(Arc::clone(&producer))
    }

    /// Stores a letter: `record` says which record a decoded message was, or `None` where it is of
    /// another source. One that could not be decoded is in the letter.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Validation`] where the letter has no record, or one that the topic does not take
    /// whatever is left out (with its size and the limit); [`ErrorCode::Source`] where the broker has
    /// not confirmed it.
    ///
    /// # Cancel safety
    ///
    /// The letter may be stored.
    pub async fn store<'a, M, R>(
        &self,
        letter: &'a Letter<M>,
        record: impl FnOnce(&'a M) -> R,
    ) -> Result<(), Error>
    where
        R: Into<Option<&'a OwnedMessage>>,
    {
        let record = letter.message().and_then(|message| record(message).into());
        let record = record.or_else(|| letter.raw());
        let record = record.ok_or_else(|| Error::validation("the letter has no record"))?;
        let added = added(record, letter.attempts(), letter.error());
        let headers = record.headers().cloned();
        if self.send(record, Some(added)).await?.is_none() {
            return Ok(());
        }
        match self.send(record, headers).await? {
            None => Ok(()),
            Some(cause) => {
                let size = record.payload().map_or(0, <[u8]>::len);
                let text = format!(
                    "a record of {size} bytes does not fit into `{}`: the producer's limit is {}",
                    self.topic, self.limit
                );
                Err(Error::validation(text).with_source(cause))
            }
        }
    }

    /// Sends a record, and waits for the answer. Returns the error where it was too large.
    async fn send(
        &self,
        record: &OwnedMessage,
        headers: Option<OwnedHeaders>,
    ) -> Result<Option<KafkaError>, Error> {
        let producer = self.producer()?;
        let mut delivered = self.send_by(&producer, record, headers.clone()).await;
        if delivered.as_ref().is_err_and(|cause| is_lost(&producer) || is_disowned(cause)) {
            let producer = self.another_than(&producer)?;
            delivered = self.send_by(&producer, record, headers).await;
        }
        match delivered {
            Ok(()) => Ok(None),
            Err(cause) if is_too_large(&cause) => Ok(Some(cause)),
            Err(cause) => Err(error(format!("storing a letter in `{}`", self.topic), cause)),
        }
    }

    async fn send_by(
        &self,
        producer: &Producer,
        record: &OwnedMessage,
        headers: Option<OwnedHeaders>,
    ) -> KafkaResult<()> {
        let (answer, delivered) = oneshot::channel();
        let mut sent: BaseRecord<'_, [u8], [u8], _> =
            BaseRecord::with_opaque_to(&self.topic, Box::new(answer));
        (sent.key, sent.payload, sent.headers) = (record.key(), record.payload(), headers);
        if let Timestamp::CreateTime(at) = record.timestamp() {
            sent.timestamp = Some(at);
        }
        producer.send(sent).map_err(|(cause, _)| cause)?;
        delivered.await.unwrap_or(Err(KafkaError::Canceled))
    }
}

fn produce(config: &ClientConfig) -> Result<Arc<Producer>, Error> {
    config.create_with_context(Delivered).map(Arc::new).map_err(misconfigured)
}

fn is_lost(producer: &Producer) -> bool {
    producer.client().fatal_error().is_some()
}

/// Whether the broker knows its producer no longer, or another one by its number.
fn is_disowned(cause: &KafkaError) -> bool {
    let code = cause.rdkafka_error_code();
    matches!(
        code,
        Some(
            Code::ProducerFenced
                | Code::InvalidProducerEpoch
                | Code::InvalidProducerIdMapping
                | Code::UnknownProducerId
                | Code::OutOfOrderSequenceNumber
        )
    )
}

fn is_too_large(cause: &KafkaError) -> bool {
    let code = cause.rdkafka_error_code();
    matches!(code, Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize))
}

/// The record's own headers, and where it was.
fn added(record: &OwnedMessage, attempts: u32, reason: &Error) -> OwnedHeaders {
    let reason = format!("{reason:#}");
    let mut end = reason.len().min(LONGEST_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let (partition, offset) = (record.partition().to_string(), record.offset().to_string());
    let attempts = attempts.to_string();
    let added = [
        ("watershed.topic", record.topic()),
        ("watershed.partition", &partition),
        ("watershed.offset", &offset),
        ("watershed.attempts", &attempts),
        ("watershed.error", &reason[..end]),
    ];
    let headers = record.headers().cloned().unwrap_or_default();
    added
        .into_iter()
        .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

/// Whether there is the topic. Some brokers would make one when the first letter comes.
async fn is_there(mut config: ClientConfig, topic: String) -> Result<(), Error> {
    // Only a consumer asks about a topic without making it, and nobody waits for its thread.
    config.remove("group.id");
    let (answer, known) = oneshot::channel();
    let ask = move || {
        let outsider = config.create::<BaseConsumer>().map_err(misconfigured);
        let found = outsider.and_then(|outsider| {
            partitions_of_one(&outsider, &topic).map_err(|trouble| match trouble {
                Trouble::Lasts(cause) => {
                    let text = format!("there is no topic `{topic}` for letters");
                    Error::validation(text).with_source(cause)
                }
                Trouble::Passes(cause) => cause,
            })
        });
        let _ = answer.send(found.map(drop));
    };
    let asks = thread::Builder::new().name("watershed-kafka-letters".to_owned()).spawn(ask);
    asks.map_err(|cause| Error::from_error(ErrorCode::Source, cause))?;
    let gone = |_| Error::new(ErrorCode::Panic, "the thread that asks for the topic panicked");
    known.await.map_err(gone)?
}

/// Whether the topic keeps what is sent to it.
async fn keeps_all(config: &ClientConfig, topic: &str) -> Result<(), Error> {
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(misconfigured)?;
    let what = || format!("the configuration of the topic `{topic}`");
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
    let described = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
    for described in described.map_err(|cause| error(what(), cause))? {
        let described = described.map_err(|code| error(what(), KafkaError::AdminOp(code)))?;
        let policy = described.get("cleanup.policy").and_then(|policy| policy.value.as_deref());
        if policy.is_some_and(|policy| policy.contains("compact")) {
            let text = format!("the topic `{topic}` is compacted: letters would be deleted");
            return Err(Error::validation(text));
        }
    }
    Ok(())
}

fn misconfigured(cause: KafkaError) -> Error {
    Error::new(ErrorCode::Validation, "the configuration for letters").with_source(cause)
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").field("topic", &self.topic).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    /// How long a letter may be with a producer.
    const PATIENCE: Duration = Duration::from_secs(60);

    type Cluster = MockCluster<'static, DefaultProducerContext>;

    fn letters() -> Result<(Cluster, DeadLetters), Box<dyn std::error::Error>> {
        let cluster = MockCluster::new(1)?;
        cluster.create_topic("dead", 1, 1)?;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        config.set("enable.idempotence", "true");
        // A request for each letter.
        config.set("batch.num.messages", "1");
        config.set("message.timeout.ms", PATIENCE.as_millis().to_string());
        Ok((cluster, DeadLetters::confirmed(config, "dead".to_owned())?))
    }

    fn record(text: &str) -> OwnedMessage {
        let (at, body) = (Timestamp::NotAvailable, Some(text.as_bytes().to_vec()));
        OwnedMessage::new(body, None, "orders".to_owned(), at, 0, 0, None)
    }

    /// The broker does not take the next letters, because of one that it has not.
    fn disagree(cluster: &Cluster, letters: usize) {
        let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        cluster.request_errors(RDKafkaApiKey::Produce, &vec![error; letters]);
    }

    #[test]
    fn a_producer_that_the_broker_does_not_know_any_more_is_replaced()
    -> Result<(), Box<dyn std::error::Error>> {
        let (cluster, letters) = letters()?;
        for error in [
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
        ] {
            let first = letters.producer()?;
            cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
            assert!(smol::block_on(letters.send(&record("a"), None))?.is_none());
            assert!(!Arc::ptr_eq(&first, &letters.producer()?), "{error:?}");
        }
        Ok(())
    }

    #[test]
    fn a_letter_behind_one_that_has_ended_its_producer_is_sent_by_the_next_one()
    -> Result<(), Box<dyn std::error::Error>> {
        let (cluster, letters) = letters()?;
        assert!(smol::block_on(letters.send(&record("it is connected"), None))?.is_none());
        disagree(&cluster, 2);
        cluster.broker_round_trip_time(1, Duration::from_millis(300))?;
        let (first, second, began) = (record("a"), record("b"), Instant::now());
        // Its answer comes when that of the first has ended the producer: what was not taken is in its
        // queue again then, and stays there.
        let second = async {
            smol::Timer::after(Duration::from_millis(150)).await;
            letters.send(&second, None).await
        };
        let sent = futures::future::join(letters.send(&first, None), second);
        let (first, second) = smol::block_on(sent);
        assert!(first?.is_none() && second?.is_none());
        assert!(began.elapsed() < PATIENCE, "it was sent when it was given up");
        let (_, stored) =
            letters.producer()?.client().fetch_watermarks("dead", 0, ANSWER_WITHIN)?;
        assert_eq!(stored, 3);
        Ok(())
    }

    #[test]
    fn a_producer_that_is_of_no_use_any_more_is_replaced() -> Result<(), Box<dyn std::error::Error>>
    {
        let (cluster, letters) = letters()?;
        let first = letters.producer()?;
        for text in ["a", "b"] {
            disagree(&cluster, 1);
            assert!(smol::block_on(letters.send(&record(text), None))?.is_none());
        }
        let last = letters.producer()?;
        assert!(is_lost(&first) && !is_lost(&last));
        let (_, stored) = first.client().fetch_watermarks("dead", 0, ANSWER_WITHIN)?;
        assert_eq!(stored, 2);
        Ok(())
    }
}
