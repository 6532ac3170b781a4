//! An order: how it is read, what is valid, and the domain event that it becomes.

use serde::{Deserialize, Serialize};
use watershed::BoxError;

/// Copies of an earthquake's record, ordered by somebody.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    /// The idempotency token: orders with one id are one order, wherever they come from.
    pub(crate) id: String,
    /// The network that has recorded it.
    pub(crate) feed: String,
    pub(crate) earthquake: String,
    pub(crate) magnitude: Option<f64>,
    pub(crate) pieces: i64,
}

/// The networks whose records there are.
pub(crate) const FEEDS: [&str; 12] =
    ["ak", "ci", "hv", "mb", "nc", "nm", "nn", "pr", "se", "us", "uu", "uw"];

/// No more of an order can be printed.
const MOST_PIECES: i64 = 1_000;

/// Why an order is none that can be carried out. It does not become one by another try.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("order {0}: {1} pieces, of 1 to 1000")]
    Pieces(String, i64),
    #[error("order {0}: there is no feed {1:?}")]
    Feed(String, String),
    #[error("order {0}: the earthquake {1:?} is not of the feed {2:?}")]
    Earthquake(String, String, String),
    #[error("order {0}: no earthquake has a magnitude of {1}")]
    Magnitude(String, f64),
}

/// What goes into the outbox.
#[derive(Serialize)]
struct OrderPlaced<'a> {
    event: &'static str,
    order: &'a str,
    earthquake: &'a str,
    pieces: i64,
}

impl Order {
    /// Reads an order.
    ///
    /// # Errors
    ///
    /// When it is no JSON, or that of something else.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, BoxError> {
        let order: Self =
            serde_json::from_slice(body).map_err(|error| format!("this is no order: {error}"))?;
        // A text of a database has no zero character, and an order without a name is not to be found.
        if order.id.is_empty() || order.id.contains('\0') {
            return Err("this is no order: its id is no name".into());
        }
        Ok(order)
    }

    /// Whether it can be carried out.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        let Self { id, feed, earthquake, magnitude, pieces } = self;
        if !(1..=MOST_PIECES).contains(pieces) {
            return Err(Invalid::Pieces(id.clone(), *pieces));
        }
        if !FEEDS.contains(&feed.as_str()) {
            return Err(Invalid::Feed(id.clone(), feed.clone()));
        }
        if earthquake.is_empty() {
            return Err(Invalid::Earthquake(id.clone(), earthquake.clone(), feed.clone()));
        }
        match magnitude.filter(|magnitude| !(-5.0..=10.0).contains(magnitude)) {
            Some(magnitude) => Err(Invalid::Magnitude(id.clone(), magnitude)),
            None => Ok(()),
        }
    }

    /// The domain event.
    pub(crate) fn event(&self) -> Vec<u8> {
        let Self { id, earthquake, pieces, .. } = self;
        let event = OrderPlaced { event: "order placed", order: id, earthquake, pieces: *pieces };
        // Texts and a number: there is nothing that could not be written.
        serde_json::to_vec(&event).unwrap_or_default()
    }
}
