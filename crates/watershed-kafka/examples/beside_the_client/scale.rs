//! The same group with one process, two and four.

use std::time::Duration;

use futures::StreamExt;
use rdkafka::Message as _;
use rdkafka::message::OwnedMessage;
use watershed::transport::Link;
use watershed::{BoxError, Progress, Source, StepContext, fan_in};
use watershed_kafka::{Consumer, rdkafka};

use crate::topic::{PARTITIONS, Topic, unique};
use crate::workers::{self, Worker};

pub(crate) fn measure(
    server: &str,
    arguments: impl Iterator<Item = String>,
) -> Result<(), BoxError> {
    workers::measure("Kafka, one topic", arguments, |workers, messages| {
        let topic = Topic::new(server, "scale")?;
        let partitions = PARTITIONS.unsigned_abs() / workers;
        let arguments = ["work", &topic.name, &unique("group"), &partitions.to_string()];
        workers::run(workers, messages, &arguments, || topic.fill(messages))
    })
}

/// One process: ready when it has its share of the partitions.
pub(crate) fn work(
    server: &str,
    mut arguments: impl Iterator<Item = String>,
) -> Result<(), BoxError> {
    let (Some(topic), Some(group), Some(share)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("`work` is what `scale` starts".into());
    };
    let share: usize = share.parse()?;
    let mut broker = rdkafka::ClientConfig::new();
    broker.set("bootstrap.servers", server);
    let member = Topic { broker, name: topic.clone(), messages: 0 }.member_of(&group);
    let link = Link::new(Consumer::new(member, [topic])?);
    let (worker, progress) = (Worker::new(), Progress::new());
    let context = StepContext::new("worker");
    smol::block_on(async {
        // The first source stands for the group itself.
        let mut opened = 0;
        let assigned = link.assigned().inspect(|_| {
            opened += 1;
            if opened == share + 1 {
                workers::is_ready();
            }
        });
        let drain = fan_in(&context, [], async |record: OwnedMessage, _| {
            std::hint::black_box(record.payload());
            workers::handle().await;
            Ok::<_, BoxError>(())
        });
        let drained = drain
            .incoming(assigned.map(|partition| partition.named("orders")))
            .unordered()
            .concurrency(workers::AT_ONCE)
            .shutdown(worker.shutdown())
            .finish_within(Duration::from_secs(20))
            .progress(&progress);
        worker.watched(drained, &progress).await
    })
}
