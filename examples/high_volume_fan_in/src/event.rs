//! Decoding and validating one line, and the handler's error type.

use serde::Deserialize;
use serde_json::json;

use crate::database::DatabaseError;
use crate::input::{Message, Origin};

/// An earthquake as it stands in a line, before anything is known about it.
#[derive(Deserialize)]
struct Raw {
    id: Option<String>,
    time: Option<i64>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    mag: Option<f64>,
    place: Option<String>,
}

/// A valid earthquake: the domain event that goes into the outbox.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Earthquake {
    pub(crate) id: String,
    /// Milliseconds since 1970, UTC.
    time: i64,
    latitude: f64,
    longitude: f64,
    /// Negative for a very weak one; unknown while it has not been determined.
    magnitude: Option<f64>,
    place: Option<String>,
}

/// Why a message could not be handled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventError {
    #[error("{origin}: not a valid line of JSON: {reason} at column {column}")]
    Json { origin: Origin, reason: String, column: usize },
    #[error("{origin}: {field} is missing")]
    Missing { origin: Origin, field: &'static str },
    #[error("{origin}: {field} {value} is not between -{limit} and {limit}")]
    Impossible { origin: Origin, field: &'static str, value: f64, limit: f64 },
    #[error("{origin}: event {number} fails, as --fail-at says")]
    Planned { origin: Origin, number: u64 },
    #[error("{origin}: fails by chance, as --fail-one-in says")]
    Chance { origin: Origin },
    #[error("{origin}: cannot {action}")]
    Database { origin: Origin, action: &'static str, source: DatabaseError },
    #[error("{origin}: the message has no transport that would settle it")]
    NoTransport { origin: Origin },
}

impl EventError {
    /// Whether another attempt may succeed.
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(self, Self::Json { .. } | Self::Missing { .. } | Self::Impossible { .. })
    }
}

impl Earthquake {
    /// Decodes and validates a message.
    ///
    /// # Errors
    ///
    /// When the line is not JSON, a field is missing, or a coordinate is not on the globe.
    pub(crate) fn decode(message: &Message) -> Result<Self, EventError> {
        Self::from_line(&message.payload, || message.origin())
    }

    pub(crate) fn from_line(line: &[u8], origin: impl Fn() -> Origin) -> Result<Self, EventError> {
        let raw: Raw = serde_json::from_slice(line).map_err(|error| {
            let text = error.to_string();
            // The line number it gives is always 1: the payload is a single line.
            let reason = text.split(" at line ").next().unwrap_or_default().to_owned();
            EventError::Json { origin: origin(), reason, column: error.column() }
        })?;
        let missing = |field| EventError::Missing { origin: origin(), field };
        let within = |field, value: Option<f64>, limit: f64| {
            let value = value.ok_or_else(|| missing(field))?;
            if (-limit..=limit).contains(&value) {
                return Ok(value);
            }
            Err(EventError::Impossible { origin: origin(), field, value, limit })
        };
        Ok(Self {
            id: raw.id.filter(|id| !id.is_empty()).ok_or_else(|| missing("id"))?,
            time: raw.time.ok_or_else(|| missing("time"))?,
            latitude: within("latitude", raw.latitude, 90.0)?,
            longitude: within("longitude", raw.longitude, 180.0)?,
            magnitude: raw.mag,
            place: raw.place,
        })
    }

    /// The domain event, as it goes into the outbox.
    pub(crate) fn to_json(&self) -> String {
        let Self { id, time, latitude, longitude, magnitude, place } = self;
        json!({
            "event": "earthquake recorded", "id": id, "time": time, "latitude": latitude,
            "longitude": longitude, "magnitude": magnitude, "place": place,
        })
        .to_string()
    }

    /// What makes handling the event twice impossible: its id, and which copy of it this is.
    pub(crate) fn token(&self, origin: &Origin) -> String {
        format!("{}#{}", self.id, origin.copy)
    }
}
