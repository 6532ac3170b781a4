//! What is wrong with a configuration, in words that say what to type.

use std::io;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {file}")]
    Unreadable { file: String, source: io::Error },
    #[error("{file}{place}: {what}")]
    Toml { file: String, place: String, what: String },
    #[error("{file}: {what}")]
    Wrong { file: String, what: String },
}

/// What to type for a field that is missing.
const EXAMPLES: [(&str, &str); 13] = [
    ("store", "[store] with url = \"sqlite:orders.db\" below it"),
    ("kind", "kind = \"kafka\", \"sqs\", \"postgres\" or \"files\""),
    (
        "url",
        "url = \"…\": of the store or the table postgres://user@host/database, of an SQS queue http://host/account/queue",
    ),
    ("brokers", "brokers = \"127.0.0.1:9092\""),
    ("topic", "topic = \"orders\""),
    ("group", "group = \"order-workers\""),
    ("dead_topic", "dead_topic = \"orders.dead\""),
    ("dead_letter_url", "dead_letter_url = \"http://host/account/orders-dead\""),
    ("endpoint", "endpoint = \"http://127.0.0.1:5000\""),
    ("region", "region = \"eu-central-1\""),
    ("table", "table = \"orders\""),
    ("folder", "folder = \"orders\""),
    ("name", "name = \"orders\""),
];

impl ConfigError {
    pub(super) fn from_toml(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        let place = line.map_or(String::new(), |line| format!(":{line}"));
        let message = error.message();
        let missing =
            message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        let example = missing.and_then(|field| EXAMPLES.iter().find(|(name, _)| *name == field));
        let what = match example {
            Some((field, example)) => format!("{field} is missing: type {example}"),
            None => message.replace('\n', " "),
        };
        Self::Toml { file: file.to_owned(), place, what }
    }
}
