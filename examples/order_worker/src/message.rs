//! A message of any source: the order in it, and what its source needs to put it aside.

use std::sync::{Arc, OnceLock};

use watershed::BoxError;
use watershed_kafka::rdkafka::Message as _;
use watershed_kafka::rdkafka::message::OwnedMessage;

use crate::order::Order;

/// An order that was delivered. Clones are the same delivery.
#[derive(Clone, Debug)]
pub(crate) struct Message(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    order: Order,
    origin: Origin,
    /// What marks the rows of this delivery, once its handler was called.
    undo_key: OnceLock<String>,
}

/// Where a message came from, as far as its dead letter needs it.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The record goes into another topic.
    Kafka(OwnedMessage),
    /// The line goes into another file.
    Line(Arc<[u8]>),
    /// The source keeps what is rejected by itself.
    Itself,
}

impl Message {
    /// The order in a record.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub(crate) fn of_record(record: OwnedMessage) -> Result<Self, BoxError> {
        let order = Order::decode(record.payload().ok_or("this is no order: it has no body")?)?;
        Ok(Self::new(order, Origin::Kafka(record)))
    }

    /// The order in a line.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub(crate) fn of_line(line: Arc<[u8]>) -> Result<Self, BoxError> {
        Ok(Self::new(Order::decode(&line)?, Origin::Line(line)))
    }

    /// The order in a body whose source keeps it.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, BoxError> {
        Ok(Self::new(Order::decode(body)?, Origin::Itself))
    }

    fn new(order: Order, origin: Origin) -> Self {
        Self(Arc::new(Inner { order, origin, undo_key: OnceLock::new() }))
    }

    pub(crate) fn order(&self) -> &Order {
        &self.0.order
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// Notes what marks the rows of this delivery: the same in each attempt.
    pub(crate) fn note_undo_key(&self, key: &str) {
        self.0.undo_key.get_or_init(|| key.to_owned());
    }

    /// What marks the rows of this delivery, if its handler was called.
    pub(crate) fn undo_key(&self) -> Option<&str> {
        self.0.undo_key.get().map(String::as_str)
    }
}
