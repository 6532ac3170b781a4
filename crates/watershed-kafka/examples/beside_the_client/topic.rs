//! A topic with messages, which every contender reads as a group of its own.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use watershed::BoxError;
use watershed_kafka::rdkafka;

pub(crate) const PARTITIONS: i32 = 4;

#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) broker: ClientConfig,
    pub(crate) name: String,
    pub(crate) messages: u32,
}

impl Topic {
    /// The topic for this purpose, with so many messages; filled once.
    pub(crate) fn filled(server: &str, what: &str, messages: u32) -> Result<Self, BoxError> {
        static FILLED: Mutex<Option<HashMap<String, Topic>>> = Mutex::new(None);
        let mut filled = FILLED.lock().map_err(|_| "a run has panicked")?;
        let filled = filled.get_or_insert_default();
        if let Some(topic) = filled.get(what) {
            return Ok(topic.clone());
        }
        let topic = Self::new(server, what)?;
        topic.fill(messages)?;
        let topic = Self { messages, ..topic };
        filled.insert(what.to_owned(), topic.clone());
        Ok(topic)
    }

    /// A new one without messages.
    pub(crate) fn new(server: &str, what: &str) -> Result<Self, BoxError> {
        let mut broker = ClientConfig::new();
        broker.set("bootstrap.servers", server);
        let name = unique(what);
        let admin: AdminClient<DefaultClientContext> = broker.create()?;
        let topic = Self { broker, name, messages: 0 };
        let letters = topic.letters();
        let topics = [topic.name.as_str(), letters.as_str()]
            .map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)));
        for made in smol::block_on(admin.create_topics(&topics, &AdminOptions::new()))? {
            made.map_err(|(topic, code)| format!("making the topic {topic}: {code}"))?;
        }
        Ok(topic)
    }

    /// The topic for dead letters.
    pub(crate) fn letters(&self) -> String {
        format!("{}-dead", self.name)
    }

    pub(crate) fn fill(&self, messages: u32) -> Result<(), BoxError> {
        let producer: BaseProducer = self.broker.create()?;
        for number in 0..messages {
            let body = number.to_string();
            let partition = i32::try_from(number)? % PARTITIONS;
            let mut record =
                BaseRecord::<(), str>::to(&self.name).partition(partition).payload(&body);
            while let Err((error, back)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(error.into());
                }
                producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        Ok(producer.flush(Duration::from_secs(60))?)
    }

    /// A member of a group that nobody has been in, reading from the beginning.
    pub(crate) fn member(&self) -> ClientConfig {
        self.member_of(&unique("group"))
    }

    pub(crate) fn member_of(&self, group: &str) -> ClientConfig {
        let mut member = self.broker.clone();
        member.set("group.id", group).set("session.timeout.ms", "6000");
        member
    }
}

/// A name that there was never before.
pub(crate) fn unique(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let moment = since.map_or(0, |since| since.as_millis());
    format!("{what}-{}-{moment}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}
