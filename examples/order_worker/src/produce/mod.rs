//! `produce`: feeds every source orders that are made of the earthquakes.
//!
//! Each order is noted in the store before it is sent, and marked when its source has confirmed it. So
//! what a producer leaves that is killed is known as well: noted and not marked is an order that may
//! have been sent or not.
//!
//! - here: the orders, and what is noted of them
//! - `orders`: the orders of a source
//! - `kafka`, `queues`: making what is missing, and sending

mod kafka;
mod orders;
mod queues;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::try_join_all;
use watershed::BoxError;

use crate::config::{Config, Source};
use crate::sources::error_text;
use crate::store::{Store, StoreError, Value};
pub(crate) use orders::Produced;

use Value::{Bytes, Number, Text};

/// How many orders are noted, sent and marked at once.
const BATCH: usize = 100;

/// How long a server may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Feeds each source so many orders, some of them poison. Returns how many were sent.
///
/// # Errors
///
/// When a server does not take them, or the earthquakes cannot be read.
pub(crate) async fn produce(
    config: &Config,
    count: u32,
    poison: u32,
    prefix: Option<&str>,
) -> Result<usize, BoxError> {
    if poison > count {
        return Err(format!("--poison {poison} of --count {count}: there are not so many").into());
    }
    let prefix = match prefix {
        Some(prefix) => prefix.to_owned(),
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis().to_string(),
    };
    let store = Store::open(&config.store.url, config.sources.len(), PATIENCE)?;
    store.create_tables().await?;
    let feeds = config.sources.iter().map(async |source| {
        let orders = orders::orders(source.name(), &prefix, count, poison);
        let sent = feed(&store, source, &orders).await;
        let named =
            |error: BoxError| format!("source {:?}: {}", source.name(), error_text(&*error));
        sent.map(|()| orders.len()).map_err(named)
    });
    let sent = try_join_all(feeds).await?;
    store.close().await;
    Ok(sent.into_iter().sum())
}

async fn feed(store: &Store, source: &Source, orders: &[Produced]) -> Result<(), BoxError> {
    let sender = Sender::open(source).await?;
    for batch in orders.chunks(BATCH) {
        note(store, source.name(), batch).await?;
        sender.send(batch).await?;
        mark(store, batch).await?;
    }
    Ok(())
}

/// Whoever sends to a source.
enum Sender<'a> {
    Kafka(kafka::Topic),
    Sqs(queues::Sqs<'a>),
    Postgres(Box<queues::Rows>),
    Files(queues::Lines),
}

impl<'a> Sender<'a> {
    /// Makes what is missing of the source.
    async fn open(source: &'a Source) -> Result<Self, BoxError> {
        Ok(match source {
            Source::Kafka(kafka) => Self::Kafka(kafka::Topic::open(kafka).await?),
            Source::Sqs(sqs) => Self::Sqs(queues::Sqs::open(sqs).await?),
            Source::Postgres(postgres) => {
                Self::Postgres(Box::new(queues::Rows::open(postgres).await?))
            }
            Source::Files(files) => Self::Files(queues::Lines::open(files)?),
        })
    }

    async fn send(&self, orders: &[Produced]) -> Result<(), BoxError> {
        match self {
            Self::Kafka(topic) => topic.send(orders).await,
            Self::Sqs(queue) => queue.send(orders).await,
            Self::Postgres(rows) => rows.send(orders).await,
            Self::Files(lines) => lines.send(orders).await,
        }
    }
}

async fn note(store: &Store, source: &str, orders: &[Produced]) -> Result<(), StoreError> {
    let mut transaction = store.begin("what is produced").await?;
    for Produced { id, body, is_poison } in orders {
        let sql = "insert into produced (message, source, body, poison, sent)
            values ($1, $2, $3, $4, 0) on conflict (message) do nothing";
        let values = [Text(id), Text(source), Bytes(body), Number((*is_poison).into())];
        transaction.run(sql, &values).await?;
    }
    transaction.commit().await
}

async fn mark(store: &Store, orders: &[Produced]) -> Result<(), StoreError> {
    let mut transaction = store.begin("what is produced").await?;
    for Produced { id, .. } in orders {
        let sql = "update produced set sent = 1 where message = $1";
        transaction.run(sql, &[Text(id)]).await?;
    }
    transaction.commit().await
}
