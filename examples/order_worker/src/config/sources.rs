//! What each kind of source needs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// A source of orders.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Source {
    Kafka(KafkaSource),
    Sqs(SqsSource),
    Postgres(PostgresSource),
    Files(FilesSource),
}

/// A topic, read as a member of a consumer group.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KafkaSource {
    #[serde(default = "kafka")]
    pub(crate) name: String,
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) group: String,
    /// The topic for dead letters.
    pub(crate) dead_topic: String,
    /// How many partitions the topic gets where `produce` makes it.
    #[serde(default = "three")]
    pub(crate) partitions: i32,
    /// Settings of the client's own, such as `"session.timeout.ms"`.
    #[serde(default)]
    pub(crate) client: BTreeMap<String, Setting>,
}

/// A value of the client's: it takes all as text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Setting {
    Text(String),
    Number(i64),
    Switch(bool),
}

/// A queue of SQS.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqsSource {
    #[serde(default = "sqs")]
    pub(crate) name: String,
    /// The queue.
    pub(crate) url: String,
    /// The queue for dead letters.
    pub(crate) dead_letter_url: String,
    /// Where the service is.
    pub(crate) endpoint: String,
    pub(crate) region: String,
    /// How long a message is ours, and how long it takes to come again when a worker dies.
    #[serde(default = "half_a_minute", with = "humantime_serde")]
    pub(crate) visibility: Duration,
}

/// A table of leased rows in PostgreSQL.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostgresSource {
    #[serde(default = "postgres")]
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) table: String,
    /// The table for dead letters; the table's name with `_dead` behind it if nothing is said.
    pub(crate) dead_table: Option<String>,
    /// The column by which rows keep their order, if they are to.
    pub(crate) key_column: Option<String>,
    /// How long a row is ours, and how long it takes to come again when a worker dies.
    #[serde(default = "half_a_minute", with = "humantime_serde")]
    pub(crate) lease: Duration,
}

/// A folder of `.jsonl` files, an order a line; dead letters are in its folder `dead`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilesSource {
    #[serde(default = "files")]
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

fn kafka() -> String {
    "kafka".to_owned()
}

fn sqs() -> String {
    "sqs".to_owned()
}

fn postgres() -> String {
    "postgres".to_owned()
}

fn files() -> String {
    "files".to_owned()
}

fn three() -> i32 {
    3
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

impl Source {
    /// Its name in logs, metrics and the store.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Kafka(source) => &source.name,
            Self::Sqs(source) => &source.name,
            Self::Postgres(source) => &source.name,
            Self::Files(source) => &source.name,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let name = self.name();
        let wrong = |what: &str, say: &str| Err(format!("source {name:?}: {what}: type {say}"));
        if name.is_empty() {
            return wrong("its name is empty", "name = \"orders\"");
        }
        match self {
            Self::Kafka(source) if source.partitions < 1 => {
                wrong("a topic has at least one partition", "partitions = 3")
            }
            Self::Kafka(source) if source.client.contains_key("bootstrap.servers") => {
                wrong("`client` says where the brokers are", "brokers = \"127.0.0.1:9092\"")
            }
            Self::Kafka(source) if source.client.contains_key("group.id") => {
                wrong("`client` says the group", "group = \"order-workers\"")
            }
            Self::Kafka(source) if source.topic == source.dead_topic => {
                wrong("its dead letters would be orders again", "dead_topic = \"orders.dead\"")
            }
            Self::Sqs(source) if source.url == source.dead_letter_url => {
                let say = "dead_letter_url = \"http://…/orders-dead\"";
                wrong("its dead letters would be orders again", say)
            }
            Self::Sqs(source) if !source.endpoint.starts_with("http://") => {
                let what = "this worker's HTTP client has no TLS, for an emulator or a proxy on this \
                    machine needs none";
                wrong(what, "endpoint = \"http://127.0.0.1:5000\"")
            }
            Self::Postgres(source) if source.dead_table.as_ref() == Some(&source.table) => {
                wrong("its dead letters would be orders again", "dead_table = \"orders_dead\"")
            }
            Self::Postgres(source) if !source.url.starts_with("postgres") => {
                wrong("its url is none of PostgreSQL", "url = \"postgres://user@host/database\"")
            }
            _ => Ok(()),
        }
    }
}

impl Setting {
    /// As the client takes it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Switch(on) => on.to_string(),
        }
    }
}

impl PostgresSource {
    pub(crate) fn dead_table(&self) -> String {
        self.dead_table.clone().unwrap_or_else(|| format!("{}_dead", self.table))
    }
}
