//! The drain's sources: both transports, and what makes messages of their records.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{Stream, StreamExt};
use watershed::channels::AnySource;
use watershed::transport::{Assignment, Link, Ticket, Transport, TransportSource};
use watershed::{BoxError, Source};

use crate::database::Database;
use crate::input::{self, Input, Message};
use crate::transports::Record;
use crate::transports::lease_queue::LeaseQueue;
use crate::transports::partition_log::PartitionLog;

/// A message that was begun so often and never settled may be what kills the workers.
const MAX_DELIVERIES: u32 = 100;

/// How long the database may be in trouble.
const PATIENCE: Duration = Duration::from_secs(30);

/// A source, whatever transports it.
pub(crate) type Feed = AnySource<'static, Message, Ticket>;

/// What the sources are made of.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) database: Database,
    pub(crate) input: Arc<Input>,
    /// Where the log's partitions are.
    pub(crate) folder: PathBuf,
}

impl Sources {
    /// One for each queue.
    pub(crate) fn queues(&self) -> impl Iterator<Item = Feed> {
        let link = Link::new(LeaseQueue(self.database.clone()))
            .max_deliveries(MAX_DELIVERIES)
            .unreachable_for(PATIENCE);
        self.input.feeds_of(input::Transport::LeaseQueue).map(move |feed| {
            let queue = Assignment { partition: feed.id, generation: 0 };
            self::feed(link.partition(queue), &feed.name, &self.input)
        })
    }

    /// One for each partition that is ours, as they come and go.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub(crate) fn partitions(
        &self,
        run: i64,
    ) -> Result<impl Stream<Item = Feed> + Send + use<>, BoxError> {
        let member = format!("run {run}");
        let log = PartitionLog::open(self.database.clone(), self.folder.clone(), member)?;
        let input = Arc::clone(&self.input);
        let link = Link::new(log).unreachable_for(PATIENCE);
        Ok(link.assigned().map(move |source| feed(source, "log", &input)))
    }
}

fn feed<T>(source: TransportSource<T>, name: &str, input: &Arc<Input>) -> Feed
where
    T: Transport<Message = Record>,
{
    let input = Arc::clone(input);
    source.named(name).decoded(move |record| input.message(record)).erased()
}
