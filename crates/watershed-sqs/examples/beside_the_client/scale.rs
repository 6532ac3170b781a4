//! The same queue with one process, two and four.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use watershed::transport::Link;
use watershed::{BoxError, Progress, Source, StepContext, fan_in};
use watershed_sqs::Queue;
use watershed_sqs::aws_sdk_sqs::types::Message;

use crate::Orders;
use crate::service::{Service, message};
use crate::workers::{self, Worker};

pub(crate) fn measure(arguments: impl Iterator<Item = String>) -> Result<(), BoxError> {
    workers::measure("SQS, one queue of a scripted service", arguments, |workers, messages| {
        let is_filled = Arc::new(AtomicBool::new(false));
        let there = Arc::clone(&is_filled);
        let service = Service::queue((0..messages).map(message), move |call| {
            // A receive waits for a first message.
            while call.operation == "ReceiveMessage" && !there.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            None
        });
        workers::run(workers, messages, &["work", &service.address], || {
            is_filled.store(true, Ordering::Relaxed);
            Ok(())
        })
    })
}

/// One process.
pub(crate) fn work(mut arguments: impl Iterator<Item = String>) -> Result<(), BoxError> {
    let address = arguments.next().ok_or("`work` is what `scale` starts")?;
    let orders = Orders::at(&address, 0);
    let link = Link::new(Queue::new(orders.client, &orders.url));
    let (worker, progress) = (Worker::new(), Progress::new());
    let context = StepContext::new("worker");
    smol::block_on(async {
        let orders = link.source().named("orders");
        workers::is_ready();
        let drained = fan_in(&context, [orders], async |message: Message, _| {
            std::hint::black_box(message);
            workers::handle().await;
            Ok::<_, BoxError>(())
        })
        .unordered()
        .concurrency(workers::AT_ONCE)
        .shutdown(worker.shutdown())
        .finish_within(Duration::from_secs(20))
        .progress(&progress);
        worker.watched(drained, &progress).await
    })
}
