//! The sources of the configuration, as a drain takes them: all of one kind of message, whatever
//! transports it.
//!
//! - here: each source with its transport, and where its dead letters go
//! - `files`: the transport that reads files
//! - `sqs`: the SDK's client, on smol

pub(crate) mod files;
pub(crate) mod sqs;

use std::any::Any;
use std::collections::HashMap;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use sqlx::postgres::{PgPool, PgPoolOptions};
use watershed::channels::AnySource;
use watershed::transport::{Link, Ticket, Transport};
use watershed::{BoxError, RetryPolicy, Source as _};
use watershed_kafka::rdkafka::ClientConfig;
use watershed_kafka::{Consumer, DeadLetters};
use watershed_postgres::LeasedRows;
use watershed_sqs::Queue;

use crate::config::{KafkaSource, PostgresSource, Source, Worker};
use crate::message::Message;
use files::{DeadLines, Files};

/// A source, whatever transports it.
pub(crate) type Feed = AnySource<'static, Message, Ticket>;

/// All sources of the configuration.
pub(crate) struct Sources {
    /// Those that are there from the beginning.
    pub(crate) fixed: Vec<Feed>,
    /// Those that come: partitions as Kafka assigns them.
    pub(crate) assigned: BoxStream<'static, Feed>,
    pub(crate) topics: HashMap<String, DeadLetters>,
    pub(crate) files: HashMap<String, DeadLines>,
    /// What connects them, as long as they are drained.
    pub(crate) links: Vec<Box<dyn Any + Send>>,
}

/// How many connections a queue needs: one that is held, one for a fetch, and one to spare.
const QUEUE_CONNECTIONS: u32 = 3;

/// After how many failures in a row a source is slowed down.
const SLOW_AFTER: u32 = 50;

/// How soon an empty table is asked again.
const ASKS_EVERY: Duration = Duration::from_millis(200);

impl Sources {
    /// Makes them. No server was asked for messages then, but that of dead letters for its topic.
    ///
    /// # Errors
    ///
    /// When one cannot be made: an option that its client does not take, no topic for dead letters.
    pub(crate) async fn open(sources: &[Source], worker: &Worker) -> Result<Self, BoxError> {
        let mut opened = Self {
            fixed: Vec::new(),
            assigned: stream::empty().boxed(),
            topics: HashMap::new(),
            files: HashMap::new(),
            links: Vec::new(),
        };
        for source in sources {
            let in_it = |error| format!("source {:?}: {error}", source.name());
            opened.add(source, worker).await.map_err(|error| in_it(error_text(&*error)))?;
        }
        Ok(opened)
    }

    async fn add(&mut self, source: &Source, worker: &Worker) -> Result<(), BoxError> {
        let name = source.name().to_owned();
        match source {
            Source::Kafka(kafka) => {
                let letters = DeadLetters::open(kafka.client(), &*kafka.dead_topic).await?;
                self.topics.insert(name.clone(), letters);
                let link = link(Consumer::new(kafka.member(), [&*kafka.topic])?, worker);
                let assigned = link.assigned().map(move |partition| {
                    partition.named(&*name).decoded(Message::of_record).erased()
                });
                let before = std::mem::replace(&mut self.assigned, stream::empty().boxed());
                self.assigned = stream::select(before, assigned).boxed();
                self.links.push(Box::new(link));
            }
            Source::Sqs(sqs) => {
                let queue = Queue::new(sqs::client(sqs)?, &sqs.url)
                    .visibility(sqs.visibility)
                    .letters(&sqs.dead_letter_url);
                let link = link(queue, worker).max_deliveries(worker.max_deliveries);
                let feed = link.source().named(name).decoded(|message| {
                    Message::of_body(message.body().unwrap_or_default().as_bytes())
                });
                self.fixed.push(feed.erased());
                self.links.push(Box::new(link));
            }
            Source::Postgres(postgres) => {
                let queue = postgres.queue(postgres.pool(worker.message_timeout)?);
                let link = link(queue.asks_every(ASKS_EVERY), worker);
                let link = link.max_deliveries(worker.max_deliveries);
                let feed = link.source().named(name);
                let feed = feed.decoded(|body: Vec<u8>| Message::of_body(&body));
                self.fixed.push(feed.erased());
                self.links.push(Box::new(link));
            }
            Source::Files(source) => {
                let link = link(Files::open(&source.folder)?, worker);
                let lines = DeadLines::open(&source.folder);
                let lines = lines.map_err(|error| format!("its dead letters: {error}"))?;
                self.files.insert(name.clone(), lines);
                let partitions = link.transport().partitions();
                self.fixed.extend(partitions.map(|partition| {
                    link.partition(partition).named(&*name).decoded(Message::of_line).erased()
                }));
                self.links.push(Box::new(link));
            }
        }
        Ok(())
    }
}

/// A server that goes away is waited for, as long as it takes. The store being away is no failure of a
/// message here, so many that fail one after another are poison, and a slow source would not help.
fn link<T: Transport>(transport: T, worker: &Worker) -> Link<T> {
    let slow = RetryPolicy::exponential(u32::MAX, Duration::from_millis(100));
    Link::new(transport)
        .settle_within(worker.settle_within)
        .revoke_within(worker.finish_within)
        .slow_down_after(SLOW_AFTER, slow.cap(Duration::from_secs(1)))
}

/// An error with what has caused it.
pub(crate) fn error_text(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        // Some errors say their cause themselves.
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    })
}

impl KafkaSource {
    /// The client's configuration, for whoever is no member of the group.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in &self.client {
            config.set(key, value.text());
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// The configuration of a member of the group.
    pub(crate) fn member(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("group.id", &self.group);
        if config.get("partition.assignment.strategy").is_none() {
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        config
    }
}

impl PostgresSource {
    /// The queue in its table.
    pub(crate) fn queue(&self, pool: PgPool) -> LeasedRows {
        let queue = LeasedRows::new(pool, &self.table).lease(self.lease);
        let queue = queue.dead_letters_in(self.dead_table());
        match &self.key_column {
            Some(column) => queue.key_column(column),
            None => queue,
        }
    }

    /// Connections to its database, which is not reached yet.
    ///
    /// # Errors
    ///
    /// When the URL is none.
    pub(crate) fn pool(&self, patience: Duration) -> Result<PgPool, BoxError> {
        let pool = PgPoolOptions::new().max_connections(QUEUE_CONNECTIONS);
        Ok(pool.acquire_timeout(patience).connect_lazy(&self.url)?)
    }
}
