//! The drain, with everything turned on.

use std::time::Duration;

use watershed::transport::Link;
use watershed::{BoxError, Letter, Progress, RetryPolicy, Source, StepContext, fan_in};
use watershed_sqs::Queue;
use watershed_sqs::aws_sdk_sqs::types::Message;

use crate::Orders;
use crate::stopwatch::Stopwatch;

/// How many handlers run at once, how many verdicts may be without an answer, how many receives are on
/// their way, and how long a handler waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    pub(crate) at_once: usize,
    pub(crate) unsettled: usize,
    pub(crate) receives: usize,
    pub(crate) call: Duration,
}

impl Drain {
    pub(crate) fn run(self, orders: &Orders) -> Result<Duration, BoxError> {
        let watch = Stopwatch::new(orders.messages).calling(self.call);
        let queue = Queue::new(orders.client.clone(), &orders.url);
        let link = Link::new(queue).max_unsettled(self.unsettled);
        let (context, progress) = (StepContext::new("measured"), Progress::new());
        // Several sources of one queue are several receives at once.
        let sources = (0..self.receives).map(|_| link.source().named("orders"));
        let drained = fan_in(&context, sources, async |message: Message, step: StepContext| {
            step.register_compensation(async || { /* what a handler has done */ });
            watch.work(message.body().ok_or("it is empty")?.as_bytes()).await
        })
        .unordered()
        .concurrency(self.at_once)
        .message_timeout(Duration::from_secs(20))
        .retry(RetryPolicy::exponential(4, Duration::from_millis(200)))
        .dead_letters(async |letter: Letter<Message>| {
            eprintln!("given up: {:#}", letter.error());
            Ok::<_, BoxError>(())
        })
        .shutdown(watch.shutdown())
        .finish_within(Duration::from_secs(20))
        .progress(&progress);
        smol::block_on(async {
            let (report, took) =
                smol::future::zip(drained.into_future(), watch.all_accepted(&progress)).await;
            report?;
            took
        })
    }
}
