//! The drain, with everything turned on.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rdkafka::Message as _;
use rdkafka::message::OwnedMessage;
use watershed::transport::Link;
use watershed::{BoxError, Letter, Progress, RetryPolicy, Source, StepContext, fan_in};
use watershed_kafka::{Consumer, DeadLetters, rdkafka};

use crate::stopwatch::Stopwatch;
use crate::topic::Topic;

/// How many handlers run at once, how many verdicts may be without an answer, and how long a handler
/// waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    pub(crate) at_once: usize,
    pub(crate) unsettled: usize,
    pub(crate) call: Duration,
}

impl Drain {
    pub(crate) fn run(self, topic: &Topic) -> Result<Duration, BoxError> {
        let watch = Stopwatch::new(topic.messages).calling(self.call);
        let consumer = Consumer::new(topic.member(), [topic.name.as_str()])?;
        let link = Link::new(consumer).max_unsettled(self.unsettled);
        let (context, progress) = (StepContext::new("measured"), Progress::new());
        smol::block_on(async {
            let letters = DeadLetters::open(topic.broker.clone(), topic.letters()).await?;
            let drain =
                fan_in(&context, [], async |record: Arc<OwnedMessage>, step: StepContext| {
                    step.register_compensation(async || { /* what a handler has done */ });
                    watch.work(record.payload().ok_or("it has no body")?).await
                });
            let drained = drain
                .incoming(link.assigned().map(|partition| {
                    // What may be tried again is cloned for it: a handle is cheaper than the record.
                    partition.named("orders").decoded(|record| Ok::<_, BoxError>(Arc::new(record)))
                }))
                .unordered()
                .concurrency(self.at_once)
                .message_timeout(Duration::from_secs(20))
                .retry(RetryPolicy::exponential(4, Duration::from_millis(200)))
                .dead_letters(async |letter: Letter<Arc<OwnedMessage>>| {
                    letters.store(&letter, |record| &**record).await
                })
                .shutdown(watch.shutdown())
                .finish_within(Duration::from_secs(20))
                .progress(&progress);
            let (report, took) =
                smol::future::zip(drained.into_future(), watch.all_accepted(&progress)).await;
            report?;
            took
        })
    }
}
