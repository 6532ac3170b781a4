//! Kafka's group, as its broker sees it.
//!
//! The broker of the proof has a fault that Kafka has not: when the leader of a group leaves while a
//! generation forms, no other member becomes the leader, and none gets a partition ever after. What it
//! reads back from its storage is in order again, so somebody has to start it anew.

use std::time::{Duration, Instant};

use watershed::BoxError;
use watershed_kafka::rdkafka::ClientConfig;
use watershed_kafka::rdkafka::consumer::{BaseConsumer, Consumer};

/// Longer than a group takes to form.
const FORMING: Duration = Duration::from_secs(12);

/// How long the broker may take to say.
const ANSWER: Duration = Duration::from_secs(1);

pub(crate) struct Group {
    client: BaseConsumer,
    name: String,
    forming_since: Option<Instant>,
}

impl Group {
    /// # Errors
    ///
    /// When there can be no client.
    pub(crate) fn new(brokers: &str, name: &str) -> Result<Self, BoxError> {
        let client = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
        Ok(Self { client, name: name.to_owned(), forming_since: None })
    }

    /// Whether it has members and has not been stable for longer than it takes to form.
    pub(crate) fn is_stuck(&mut self) -> bool {
        // A broker that does not answer says nothing of its group.
        let said = self.client.fetch_group_list(Some(&self.name), ANSWER).ok();
        let group = said.as_ref().and_then(|said| said.groups().first());
        let forms =
            group.is_some_and(|group| !matches!(group.state(), "Stable" | "Empty" | "Dead"));
        self.forming_since = forms.then(|| self.forming_since.unwrap_or_else(Instant::now));
        self.forming_since.is_some_and(|since| since.elapsed() > FORMING)
    }

    /// Looks anew from now on.
    pub(crate) fn cured(&mut self) {
        self.forming_since = None;
    }
}
