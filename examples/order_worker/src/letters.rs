//! Dead letters: where an order goes that was given up.
//!
//! It is to have no effect, so what its deliveries have left is deleted first. Then it is stored:
//! Kafka's in another topic, a file's in another file, those of SQS and PostgreSQL by their transport
//! when the drain rejects them behind this.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use watershed::{BoxError, ErrorCode, Letter};
use watershed_kafka::DeadLetters;
use watershed_kafka::rdkafka::message::OwnedMessage;

use crate::effect;
use crate::message::{Message, Origin};
use crate::sources::error_text;
use crate::sources::files::DeadLines;
use crate::store::Store;

/// Where each source's dead letters go.
#[derive(Debug)]
pub(crate) struct Letters {
    pub(crate) store: Store,
    /// How long to wait when a letter cannot be stored just now.
    pub(crate) again_after: Duration,
    /// By the name of the source.
    pub(crate) topics: HashMap<String, DeadLetters>,
    pub(crate) files: HashMap<String, DeadLines>,
}

impl Letters {
    /// Puts a message aside, however long the places take that it goes to.
    ///
    /// # Errors
    ///
    /// When a place will not take it whenever it is asked.
    pub(crate) async fn put_aside(&self, letter: Letter<Message>) -> Result<(), BoxError> {
        let message = letter.message().cloned();
        let order = message.as_ref().map_or("?", |message| &message.order().id);
        let (source, reason) = (letter.source_name(), format!("{:#}", letter.error()));
        tracing::warn!(source, order, attempts = letter.attempts(), "put aside: {reason}");
        loop {
            match self.try_to(&letter, message.as_ref()).await {
                Err(error) if passes(&error) => {
                    let why = error_text(&*error);
                    tracing::warn!(source, order, "cannot be put aside yet: {why}");
                    smol::Timer::after(self.again_after).await;
                }
                result => return result,
            }
        }
    }

    async fn try_to(
        &self,
        letter: &Letter<Message>,
        message: Option<&Message>,
    ) -> Result<(), BoxError> {
        if let Some(message) = message {
            let stays = effect::bury(&self.store, &message.order().id, message.undo_key()).await?;
            if stays && !matches!(message.origin(), Origin::Itself) {
                // Another delivery has finished it: it is no dead letter.
                return Ok(());
            }
        }
        if let Some(topic) = self.topics.get(letter.source_name()) {
            topic.store(letter, record).await?;
        }
        if let Some(files) = self.files.get(letter.source_name()) {
            let line = message.and_then(|message| match message.origin() {
                Origin::Line(line) => Some(line),
                _ => None,
            });
            let line =
                line.or_else(|| letter.raw::<Arc<[u8]>>()).ok_or("the letter has no line")?;
            files.put(Arc::clone(line)).await?;
        }
        Ok(())
    }
}

/// The record that a message of Kafka's was.
fn record(message: &Message) -> Option<&OwnedMessage> {
    match message.origin() {
        Origin::Kafka(record) => Some(record),
        _ => None,
    }
}

/// Whether it may be stored later: a server that is away, a disk that is full.
fn passes(error: &BoxError) -> bool {
    let of_transport = error.downcast_ref::<watershed::Error>();
    of_transport.is_some_and(|error| error.code() == ErrorCode::Source)
        || error.is::<crate::store::StoreError>()
        || error.is::<io::Error>()
}
