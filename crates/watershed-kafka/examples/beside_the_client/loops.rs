//! What one writes with the client alone.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer as _, DefaultConsumerContext, StreamConsumer,
};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::util::AsyncRuntime;
use watershed::BoxError;
use watershed_kafka::rdkafka;

use crate::stopwatch::Stopwatch;
use crate::topic::Topic;

/// Positions are stored by hand, behind the handler, and committed by hand.
fn by_hand(topic: &Topic) -> ClientConfig {
    let mut member = topic.member();
    member.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    member.set("auto.offset.reset", "earliest");
    member
}

/// One message after another; every so many of them a commit, which is confirmed before the next one.
pub(crate) fn one_after_another(topic: &Topic, every: u32) -> Result<Duration, BoxError> {
    polled(topic, &by_hand(topic), |consumer, handled| {
        if handled % every == 0 || handled == topic.messages {
            consumer.commit_consumer_state(CommitMode::Sync)?;
        }
        Ok(())
    })
}

/// The same, and nobody waits for the answer of a commit but for that of the last one.
pub(crate) fn unconfirmed(topic: &Topic, every: u32) -> Result<Duration, BoxError> {
    polled(topic, &by_hand(topic), |consumer, handled| {
        if handled == topic.messages {
            consumer.commit_consumer_state(CommitMode::Sync)?;
        } else if handled % every == 0 {
            consumer.commit_consumer_state(CommitMode::Async)?;
        }
        Ok(())
    })
}

/// What the client does by itself: it stores the position of each message before it is handed out, and
/// commits every 5 seconds.
pub(crate) fn automatic(topic: &Topic) -> Result<Duration, BoxError> {
    let mut member = topic.member();
    member.set("enable.auto.commit", "true").set("auto.offset.reset", "earliest");
    polled(topic, &member, |consumer, handled| {
        if handled == topic.messages {
            consumer.commit_consumer_state(CommitMode::Sync)?;
        }
        Ok(())
    })
}

fn polled(
    topic: &Topic,
    member: &ClientConfig,
    handled: impl Fn(&BaseConsumer, u32) -> Result<(), KafkaError>,
) -> Result<Duration, BoxError> {
    let watch = Stopwatch::new(topic.messages);
    let stores = member.get("enable.auto.offset.store") == Some("false");
    let consumer: BaseConsumer = member.create()?;
    consumer.subscribe(&[&topic.name])?;
    while !watch.is_done() {
        // None also when the group has changed.
        let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
        let message = message?;
        let count = watch.handle(message.payload().ok_or("it has no body")?)?;
        if stores {
            consumer.store_offset_from_message(&message)?;
        }
        handled(&consumer, count)?;
    }
    watch.elapsed()
}

/// What is there, but at most so many; handled at once, then committed together: a position is that of
/// all messages before it, so none may be committed while an earlier one is handled.
/// `blocks`: the executor's thread waits for the commit, and nothing else goes on there.
pub(crate) fn concurrent(
    topic: &Topic,
    at_once: usize,
    blocks: bool,
    call: Duration,
) -> Result<Duration, BoxError> {
    let watch = Stopwatch::new(topic.messages).calling(call);
    let consumer: StreamConsumer<DefaultConsumerContext, Smol> = by_hand(topic).create()?;
    consumer.subscribe(&[&topic.name])?;
    let consumer = Arc::new(consumer);
    let (watch_it, consumer_it) = (&watch, &*consumer);
    smol::block_on(async {
        let mut chunks = consumer.stream().ready_chunks(at_once);
        while !watch.is_done() {
            let chunk = chunks.next().await.ok_or("the stream has ended")?;
            let results = futures::stream::iter(chunk);
            let failed = std::cell::RefCell::new(None);
            results
                .for_each_concurrent(at_once, async |message| {
                    if let Err(error) = handle(watch_it, consumer_it, message).await {
                        failed.borrow_mut().get_or_insert(error);
                    }
                })
                .await;
            if let Some(error) = failed.into_inner() {
                return Err(error);
            }
            if blocks {
                consumer.commit_consumer_state(CommitMode::Sync)?;
            } else {
                let consumer = Arc::clone(&consumer);
                smol::unblock(move || consumer.commit_consumer_state(CommitMode::Sync)).await?;
            }
        }
        watch.elapsed()
    })
}

async fn handle(
    watch: &Stopwatch,
    consumer: &StreamConsumer<DefaultConsumerContext, Smol>,
    message: Result<rdkafka::message::BorrowedMessage<'_>, KafkaError>,
) -> Result<(), BoxError> {
    let message = message?;
    watch.work(message.payload().ok_or("it has no body")?).await?;
    Ok(consumer.store_offset_from_message(&message)?)
}

/// What the client's stream needs of an executor.
pub(crate) struct Smol;

impl AsyncRuntime for Smol {
    type Delay = futures::future::Map<smol::Timer, fn(std::time::Instant)>;

    fn spawn<T: Future<Output = ()> + Send + 'static>(task: T) {
        smol::spawn(task).detach();
    }

    fn delay_for(duration: Duration) -> Self::Delay {
        futures::FutureExt::map(smol::Timer::after(duration), drop)
    }
}
