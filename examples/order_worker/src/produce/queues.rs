//! Queues of SQS, tables of PostgreSQL and files: made where they are missing, and filled.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sqlx::postgres::PgPool;
use watershed::BoxError;
use watershed_postgres::{LeasedRows, NewRow};
use watershed_sqs::aws_sdk_sqs::Client;
use watershed_sqs::aws_sdk_sqs::types::SendMessageBatchRequestEntry;

use super::{PATIENCE, Produced};
use crate::config::{FilesSource, PostgresSource, SqsSource};
use crate::order::{FEEDS, Order};
use crate::sources::{error_text, files, sqs};
use crate::store::reach;

/// A queue of SQS.
pub(super) struct Sqs<'a> {
    client: Client,
    url: &'a str,
}

/// What the service takes in one call.
const CALL: usize = 10;

impl<'a> Sqs<'a> {
    /// Makes the queue, and that for its dead letters, where they are missing.
    ///
    /// # Errors
    ///
    /// When the service does not make them, or they are elsewhere than the configuration says.
    pub(super) async fn open(source: &'a SqsSource) -> Result<Self, BoxError> {
        let client = sqs::client(source)?;
        for url in [&source.url, &source.dead_letter_url] {
            let name = url.rsplit('/').next().unwrap_or_default();
            let mut call = client.create_queue().queue_name(name);
            if Path::new(name).extension().is_some_and(|it| it == "fifo") {
                use watershed_sqs::aws_sdk_sqs::types::QueueAttributeName::FifoQueue;
                call = call.attributes(FifoQueue, "true");
            }
            let made = call.send().await;
            let made = made.map_err(|error| format!("making {name}: {}", error_text(&error)))?;
            let at = made.queue_url().unwrap_or_default();
            if path(at) != path(url) {
                return Err(format!(
                    "the queue {name} is at {at}, and the configuration says {url}: \
                    type that there"
                )
                .into());
            }
        }
        Ok(Self { client, url: &source.url })
    }

    /// Sends the orders.
    ///
    /// # Errors
    ///
    /// When the service does not take one.
    pub(super) async fn send(&self, orders: &[Produced]) -> Result<(), BoxError> {
        let is_fifo = Path::new(self.url).extension().is_some_and(|it| it == "fifo");
        for orders in orders.chunks(CALL) {
            let entries = (0..).zip(orders).map(|(at, order): (usize, _)| {
                let body = String::from_utf8_lossy(&order.body);
                let entry = SendMessageBatchRequestEntry::builder().id(at.to_string());
                let entry = entry.message_body(body);
                let entry = if is_fifo {
                    entry.message_group_id(feed(order)).message_deduplication_id(&order.id)
                } else {
                    entry
                };
                entry.build()
            });
            let entries = entries.collect::<Result<Vec<_>, _>>()?;
            let call = self.client.send_message_batch().queue_url(self.url);
            let sent = call.set_entries(Some(entries)).send().await;
            let sent = sent.map_err(|error| error_text(&error))?;
            if let Some(failed) = sent.failed().first() {
                let why = failed.message().unwrap_or_default();
                return Err(
                    format!("{} of {} not sent: {why}", sent.failed().len(), orders.len()).into()
                );
            }
        }
        Ok(())
    }
}

/// What is behind the host: a queue has one address by each name of its service.
fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or("", |(_, path)| path)
}

/// What keeps its order: the orders of one feed.
fn feed(order: &Produced) -> String {
    Order::decode(&order.body).map_or_else(|_| "?".to_owned(), |order| order.feed)
}

/// A table of PostgreSQL.
pub(super) struct Rows {
    pool: PgPool,
    queue: LeasedRows,
    has_keys: bool,
}

impl Rows {
    /// Makes the tables where they are missing.
    ///
    /// # Errors
    ///
    /// When the database does not.
    pub(super) async fn open(source: &PostgresSource) -> Result<Self, BoxError> {
        reach(&source.url).await?;
        let pool = source.pool(PATIENCE)?;
        let queue = source.queue(pool.clone());
        queue.create().await?;
        Ok(Self { pool, queue, has_keys: source.key_column.is_some() })
    }

    /// Puts the orders into the queue, in one transaction.
    ///
    /// # Errors
    ///
    /// When the database does not take them.
    pub(super) async fn send(&self, orders: &[Produced]) -> Result<(), BoxError> {
        let keys: Vec<_> = orders.iter().map(feed).collect();
        let rows = orders.iter().zip(&keys).map(|(order, key)| {
            let row = NewRow::new(&order.body);
            if self.has_keys { row.key(key) } else { row }
        });
        let mut transaction = self.pool.begin().await?;
        self.queue.enqueue(&mut transaction, rows).await?;
        Ok(transaction.commit().await?)
    }
}

/// A folder of files: one for each feed of earthquakes would be empty for most, so there are three.
pub(super) struct Lines([PathBuf; 3]);

impl Lines {
    /// Makes the files where they are missing.
    ///
    /// # Errors
    ///
    /// When the system does not.
    pub(super) fn open(source: &FilesSource) -> io::Result<Self> {
        fs::create_dir_all(&source.folder)?;
        fs::create_dir_all(files::dead_letters(&source.folder).parent().unwrap_or(&source.folder))?;
        let files = [1, 2, 3].map(|number| source.folder.join(format!("orders-{number}.jsonl")));
        for file in &files {
            OpenOptions::new().append(true).create(true).open(file)?;
        }
        Ok(Self(files))
    }

    /// Puts the orders behind the others, those of one feed into one file.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub(super) async fn send(&self, orders: &[Produced]) -> Result<(), BoxError> {
        let mut lines = [const { Vec::new() }; 3];
        for order in orders {
            let at = FEEDS.iter().position(|it| *it == feed(order)).unwrap_or_default() % 3;
            lines[at].extend_from_slice(&order.body);
            lines[at].push(b'\n');
        }
        let files = self.0.clone();
        let write = move || {
            for (file, lines) in files.iter().zip(&lines).filter(|(_, lines)| !lines.is_empty()) {
                let mut file = OpenOptions::new().append(true).open(file)?;
                file.write_all(lines)?;
                file.sync_data()?;
            }
            Ok::<_, io::Error>(())
        };
        Ok(smol::unblock(write).await?)
    }
}
