//! Kafka's group, as its broker sees it.
//!
//! The broker of the proof has a fault that Kafka has not: when the leader of a group leaves while a
//! generation forms, no other member becomes the leader, and none gets a partition ever after; where it
//! was the first generation, there is no group to be seen. What the broker reads back from its storage is
//! in order again, so somebody has to start it anew.

use std::time::{Duration, Instant};

use watershed::BoxError;
use watershed_kafka::rdkafka::ClientConfig;
use watershed_kafka::rdkafka::consumer::{BaseConsumer, Consumer};

/// Longer than a group takes to form.
const FORMING: Duration = Duration::from_secs(15);

/// How long the broker may take to say.
const ANSWER: Duration = Duration::from_secs(1);

pub(crate) struct Group {
    client: BaseConsumer,
    name: String,
    forming_since: Option<Instant>,
    /// What was said of it last.
    said: String,
}

impl Group {
    /// # Errors
    ///
    /// When there can be no client.
    pub(crate) fn new(brokers: &str, name: &str) -> Result<Self, BoxError> {
        let client = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
        Ok(Self { client, name: name.to_owned(), forming_since: None, said: String::new() })
    }

    /// Asks the broker. Returns what it says, where that is something new.
    pub(crate) fn news(&mut self) -> Option<String> {
        // A broker that does not answer says nothing of its group.
        let list = self.client.fetch_group_list(Some(&self.name), ANSWER).ok()?;
        let group = list.groups().first();
        let members = group.map_or(0, |group| group.members().len());
        let state = group.map_or("not there", |group| group.state());
        // One that has never been stable is not there.
        let forms = members == 0 || !matches!(state, "Stable" | "Empty" | "Dead");
        self.forming_since = forms.then(|| self.forming_since.unwrap_or_else(Instant::now));
        let said = format!("the group is {state}, and has {members} members");
        (self.said != said).then(|| {
            self.said.clone_from(&said);
            said
        })
    }

    /// Whether it has not been stable for longer than it takes to form.
    pub(crate) fn is_stuck(&self) -> bool {
        self.forming_since.is_some_and(|since| since.elapsed() > FORMING)
    }

    /// Looks anew from now on.
    pub(crate) fn cured(&mut self) {
        self.forming_since = None;
    }
}
