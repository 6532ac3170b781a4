//! The same table with one process, two and four.

use std::time::Duration;

use watershed::transport::Link;
use watershed::{BoxError, Progress, Source, StepContext, fan_in};

use crate::table::Table;
use crate::workers::{self, Worker};

pub(crate) fn measure(url: &str, arguments: impl Iterator<Item = String>) -> Result<(), BoxError> {
    workers::measure("PostgreSQL, one table", arguments, |workers, messages| {
        let table = smol::block_on(Table::new(url))?;
        let fill = || smol::block_on(table.fill(messages));
        let took = workers::run(workers, messages, &["work", &table.name], fill)?;
        smol::block_on(table.drop())?;
        Ok(took)
    })
}

/// One process.
pub(crate) fn work(url: &str, mut arguments: impl Iterator<Item = String>) -> Result<(), BoxError> {
    let name = arguments.next().ok_or("`work` is what `scale` starts")?;
    let (worker, progress) = (Worker::new(), Progress::new());
    smol::block_on(async {
        let table = Table::open(url, name).await?;
        let link = Link::new(table.queue().listen());
        let orders = link.source().named("orders");
        workers::is_ready();
        let context = StepContext::new("worker");
        let drained = fan_in(&context, [orders], async |body: Vec<u8>, _| {
            std::hint::black_box(body);
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
