//! What Kafka has: the topic, read from its beginning to its end, the group's positions, and the topic
//! of the dead letters.

use std::time::{Duration, Instant};

use watershed::BoxError;
use watershed_kafka::rdkafka::consumer::{BaseConsumer, Consumer};
use watershed_kafka::rdkafka::error::KafkaError;
use watershed_kafka::rdkafka::{Message, Offset, TopicPartitionList};

use super::Held;
use crate::config::KafkaSource;
use crate::produce::PATIENCE;

/// What is in a topic.
struct Log {
    bodies: Vec<Vec<u8>>,
    /// By partition: the offset behind the last record; 0 where there is none.
    ends: Vec<i64>,
}

/// Reads it.
///
/// # Errors
///
/// When the broker does not answer, or there is no such topic.
pub(super) async fn read(source: &KafkaSource) -> Result<Held, BoxError> {
    let source = source.clone();
    // The client blocks.
    smol::unblock(move || {
        let orders = read_topic(&source, &source.topic)?;
        let letters = read_topic(&source, &source.dead_topic)?.bodies;
        let open = positions(&source, &orders.ends)?;
        Ok(Held { letters, log: Some(orders.bodies), open })
    })
    .await
}

fn outsider(source: &KafkaSource) -> Result<BaseConsumer, BoxError> {
    let mut config = source.client();
    // It reads by itself and joins nobody: the group is named for its positions.
    config.set("group.id", &source.group).set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
    Ok(config.create()?)
}

/// Reads a topic until the client says of each partition that it is at the end. What the broker says
/// of where that is (its watermark) is not asked for: not all of them know.
fn read_topic(source: &KafkaSource, topic: &str) -> Result<Log, BoxError> {
    let consumer = outsider(source)?;
    let known = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(|error| {
        let brokers = &source.brokers;
        format!("no broker answers at {brokers}: start one, or mend `brokers`: {error}")
    })?;
    let count = known.topics().iter().find(|it| it.name() == topic && it.error().is_none());
    let count = count.map_or(0, |topic| topic.partitions().len());
    if count == 0 {
        return Err(format!("there is no topic {topic}: `produce` makes it").into());
    }
    let mut partitions = TopicPartitionList::new();
    for partition in 0..i32::try_from(count)? {
        partitions.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let (mut log, mut at_end) =
        (Log { bodies: Vec::new(), ends: vec![0; count] }, vec![false; count]);
    let began = Instant::now();
    while at_end.contains(&false) {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(record)) => {
                let partition = usize::try_from(record.partition())?;
                log.bodies.push(record.payload().unwrap_or_default().to_vec());
                log.ends[partition] = record.offset() + 1;
                at_end[partition] = false;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                at_end[usize::try_from(partition)?] = true;
            }
            // Connections that break are the client's to mend.
            Some(Err(error)) => tracing::debug!("reading {topic}: {error}"),
            None => {}
        }
        if began.elapsed() > PATIENCE {
            return Err(
                format!("the broker did not let the topic {topic} be read to its end").into()
            );
        }
    }
    Ok(log)
}

/// Where the group is not at the end.
fn positions(source: &KafkaSource, ends: &[i64]) -> Result<Vec<String>, BoxError> {
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(&source.topic, 0, i32::try_from(ends.len())? - 1);
    let committed = outsider(source)?.committed_offsets(partitions, PATIENCE)?;
    let elements = committed.elements();
    let open = elements.iter().filter_map(|element| {
        let end = ends.get(usize::try_from(element.partition()).ok()?)?;
        let position = match element.offset() {
            Offset::Offset(position) => position,
            _ => 0,
        };
        let (partition, group) = (element.partition(), &source.group);
        (position != *end).then(|| {
            format!("partition {partition} ends at {end}, and the group {group} is at {position}")
        })
    });
    Ok(open.collect())
}
