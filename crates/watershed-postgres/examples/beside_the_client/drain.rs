//! The drain, with everything turned on.

use std::time::Duration;

use watershed::transport::Link;
use watershed::{BoxError, Letter, Progress, RetryPolicy, Source, StepContext, fan_in};

use crate::stopwatch::Stopwatch;
use crate::table::Table;

/// How many handlers run at once, how many verdicts may be without an answer, and how long a handler
/// waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    pub(crate) at_once: usize,
    pub(crate) unsettled: usize,
    pub(crate) call: Duration,
}

impl Drain {
    pub(crate) async fn run(self, table: &Table) -> Result<Duration, BoxError> {
        let watch = Stopwatch::new(table.messages).calling(self.call);
        let queue = table.queue().prefetch((8 * self.at_once).max(16));
        let link = Link::new(queue).max_unsettled(self.unsettled).max_deliveries(5);
        let (context, progress) = (StepContext::new("measured"), Progress::new());
        let orders = link.source().named("orders");
        let drained = fan_in(&context, [orders], async |body: Vec<u8>, step: StepContext| {
            step.register_compensation(async || { /* what a handler has done */ });
            watch.work(&body).await
        })
        .unordered()
        .concurrency(self.at_once)
        .message_timeout(Duration::from_secs(20))
        .retry(RetryPolicy::exponential(4, Duration::from_millis(200)))
        .dead_letters(async |letter: Letter<Vec<u8>>| {
            eprintln!("given up: {:#}", letter.error());
            Ok::<_, BoxError>(())
        })
        .shutdown(watch.shutdown())
        .finish_within(Duration::from_secs(20))
        .progress(&progress);
        let (report, took) =
            smol::future::zip(drained.into_future(), watch.all_accepted(&progress)).await;
        report?;
        took
    }
}
