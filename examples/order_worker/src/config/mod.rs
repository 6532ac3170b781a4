//! The configuration: one TOML file.
//!
//! - `sources`: what each kind of source needs
//! - `errors`: what is wrong with a file, in words that say what to type

mod errors;
mod sources;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

pub(crate) use errors::ConfigError;
pub(crate) use sources::{FilesSource, KafkaSource, PostgresSource, Source, SqsSource};

/// What the file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) store: Store,
    #[serde(default)]
    pub(crate) worker: Worker,
    #[serde(default, rename = "source")]
    pub(crate) sources: Vec<Source>,
}

/// Where the effects are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    /// `postgres://…` or `sqlite:…`.
    pub(crate) url: String,
}

/// How the orders are handled.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Worker {
    /// How many handlers run at once.
    pub(crate) concurrency: usize,
    /// How long an attempt at an order may take.
    #[serde(with = "humantime_serde")]
    pub(crate) message_timeout: Duration,
    /// How often an order is tried again that has failed; then it is a dead letter.
    pub(crate) retries: u32,
    /// When an order is tried again that the store could not take just now. That counts as no attempt.
    #[serde(with = "humantime_serde")]
    pub(crate) store_retry: Duration,
    /// An order that was delivered more often is a dead letter, where its source counts.
    pub(crate) max_deliveries: u32,
    /// How long a settlement may be without an answer.
    #[serde(with = "humantime_serde")]
    pub(crate) settle_within: Duration,
    /// How long what runs may go on after the first signal.
    #[serde(with = "humantime_serde")]
    pub(crate) finish_within: Duration,
    /// Where `/metrics` is served: an address of this machine.
    pub(crate) metrics: Option<String>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            concurrency: 16,
            message_timeout: Duration::from_secs(30),
            retries: 4,
            store_retry: Duration::from_millis(500),
            max_deliveries: 50,
            settle_within: Duration::from_secs(30),
            finish_within: Duration::from_secs(20),
            metrics: None,
        }
    }
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, has something that means nothing here, lacks something, or says what
    /// cannot be.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { file: file.clone(), source })?;
        Self::parse(&text, &file)
    }

    fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|error| ConfigError::from_toml(file, text, &error))?;
        config.check().map_err(|what| ConfigError::Wrong { file: file.to_owned(), what })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let url = &self.store.url;
        if !["postgres:", "postgresql:", "sqlite:"].iter().any(|kind| url.starts_with(kind)) {
            return Err(format!(
                "[store] url = {url:?} is neither PostgreSQL nor SQLite: type \
                url = \"postgres://user@host/database\" or url = \"sqlite:orders.db\""
            ));
        }
        self.worker.check()?;
        if self.sources.is_empty() {
            return Err("there is no source: add a [[source]] with kind = \"kafka\", \"sqs\", \
                \"postgres\" or \"files\""
                .to_owned());
        }
        for (at, source) in self.sources.iter().enumerate() {
            source.check()?;
            if self.sources[..at].iter().any(|other| other.name() == source.name()) {
                return Err(format!(
                    "two sources have the name {:?}: type name = \"…\" in one of them",
                    source.name()
                ));
            }
        }
        Ok(())
    }
}

impl Worker {
    fn check(&self) -> Result<(), String> {
        let at_least_one = |name: &str, number: u64| {
            if number == 0 {
                return Err(format!("[worker] {name} = 0 does nothing: it is at least 1"));
            }
            Ok(())
        };
        at_least_one("concurrency", self.concurrency as u64)?;
        at_least_one("max_deliveries", self.max_deliveries.into())?;
        let times = [
            ("message_timeout", self.message_timeout),
            ("store_retry", self.store_retry),
            ("settle_within", self.settle_within),
            ("finish_within", self.finish_within),
        ];
        for (name, time) in times {
            if time.is_zero() {
                return Err(format!("[worker] {name} is no time at all: type {name} = \"20s\""));
            }
        }
        Ok(())
    }
}
