//! A broker, topics of one's own, and what a group has committed.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Message, Offset, TopicPartitionList};
use watershed::transport::Link;
use watershed::{BoxError, FanInReport, StepContext, fan_in};
use watershed_kafka::{Consumer, rdkafka};

/// How long a broker may take that is busy with something else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Broker(String);

/// The broker that is there for the tests. Without one they pass, and say so.
pub(crate) fn broker() -> Option<Broker> {
    if let Ok(server) = std::env::var("WATERSHED_KAFKA") {
        return Some(Broker(server));
    }
    let text = "there is no Kafka: WATERSHED_KAFKA is not set; .ci/kafka COMMAND starts one";
    assert!(std::env::var("WATERSHED_SERVERS").as_deref() != Ok("required"), "{text}");
    eprintln!("not tried: {text}");
    None
}

/// A name that no other test has.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{}-{number}", std::process::id())
}

impl Broker {
    pub(crate) fn at(server: String) -> Self {
        Self(server)
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.0);
        config
    }

    /// A member of this group. With the client's default of 45 s, this broker takes a group that was
    /// left for full.
    pub(crate) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.config();
        config.set("group.id", group).set("session.timeout.ms", "6000");
        config.set("heartbeat.interval.ms", "500");
        config
    }

    /// A topic that is this test's alone.
    pub(crate) fn topic(&self, what: &str, partitions: i32) -> Result<String, BoxError> {
        self.topic_with(what, partitions, &[])
    }

    pub(crate) fn topic_with(
        &self,
        what: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<String, BoxError> {
        let name = unique(what);
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for result in smol::block_on(admin.create_topics([&topic], &options))? {
            result.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
        Ok(name)
    }

    /// Puts numbers into the topic, in turn into each of its partitions.
    pub(crate) fn put(
        &self,
        topic: &str,
        partitions: i32,
        numbers: Range<u32>,
    ) -> Result<(), BoxError> {
        let records = numbers.map(|number| {
            let partition = i32::try_from(number).unwrap_or(0) % partitions;
            (partition, Some(number.to_string().into_bytes()))
        });
        self.put_records(topic, records)
    }

    pub(crate) fn put_records(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = (i32, Option<Vec<u8>>)>,
    ) -> Result<(), BoxError> {
        let producer: BaseProducer = self.config().create()?;
        for (partition, value) in records {
            let record = BaseRecord::<(), [u8]>::to(topic).partition(partition);
            let record = value.iter().fold(record, |record, value| record.payload(value));
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(PATIENCE)?;
        Ok(())
    }

    fn outsider(&self, group: &str) -> Result<BaseConsumer, BoxError> {
        Ok(self.config().set("group.id", group).create()?)
    }

    /// The group's position in each partition; `None` where it has none.
    pub(crate) fn committed(
        &self,
        group: &str,
        topic: &str,
        partitions: i32,
    ) -> Result<Vec<Option<i64>>, BoxError> {
        let mut tpl = TopicPartitionList::new();
        tpl.add_partition_range(topic, 0, partitions - 1);
        let committed = self.outsider(group)?.committed_offsets(tpl, PATIENCE)?;
        let offset = |offset| if let Offset::Offset(it) = offset { Some(it) } else { None };
        Ok(committed.elements().iter().map(|element| offset(element.offset())).collect())
    }

    /// Sets positions of a group that nobody is in.
    pub(crate) fn commit(
        &self,
        group: &str,
        topic: &str,
        at: &[(i32, i64)],
    ) -> Result<(), BoxError> {
        let mut tpl = TopicPartitionList::new();
        for (partition, position) in at {
            tpl.add_partition_offset(topic, *partition, Offset::Offset(*position))?;
        }
        Ok(self.outsider(group)?.commit(&tpl, CommitMode::Sync)?)
    }
}

/// The number that a message was put with.
pub(crate) fn number(message: &impl Message) -> u32 {
    let text = message.payload().map(String::from_utf8_lossy);
    text.and_then(|text| text.parse().ok()).unwrap_or(u32::MAX)
}

/// Handles what there is until the consumer has caught up.
pub(crate) fn until_empty(
    consumer: Consumer,
) -> Result<(FanInReport, Vec<OwnedMessage>), BoxError> {
    let consumer = consumer.until_empty();
    let caught_up = consumer.caught_up();
    let link = Link::new(consumer);
    let seen = Mutex::new(Vec::new());
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [], async |message, _| {
        seen.lock().map_err(|_| "a handler has panicked")?.push(message);
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(link.assigned()).shutdown(caught_up).timeout(PATIENCE);
    let report = smol::block_on(drain.into_future())?;
    Ok((report, seen.into_inner()?))
}
