//! The audit: proves from the store's and the sources' own state that every order took effect exactly
//! once, or is a dead letter and has none; and that nothing is half done, on its way or left over.
//!
//! It trusts nothing that a worker remembers or reports. What an order should have left is worked out
//! from the bytes that were sent, which `produce` noted before it sent them.
//!
//! - here: reading all of it, and the table that is printed
//! - `compare`: what has to hold
//! - `store`: what the store has; `kafka`, `queues`: what the sources have

mod compare;
mod kafka;
mod queues;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;

use watershed::BoxError;

use crate::config::{Config, Source};
use crate::produce::PATIENCE;
use crate::sources::error_text;
use crate::store::Store;

/// What a source's own servers have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Its dead letters, as they were sent.
    pub(crate) letters: Vec<Vec<u8>>,
    /// All that was ever sent, where the source keeps that.
    pub(crate) log: Option<Vec<Vec<u8>>>,
    /// What is not settled, in words.
    pub(crate) open: Vec<String>,
}

/// How many orders of a source are where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) source: String,
    pub(crate) produced: u64,
    /// Took effect, exactly once.
    pub(crate) done: u64,
    /// Are dead letters, and have no effect.
    pub(crate) dead: u64,
    /// Of these: are valid, and were given up for another reason.
    pub(crate) dead_and_valid: u64,
    /// Were noted, and never sent as far as anybody knows.
    pub(crate) unsent: u64,
    /// Everything else: there is a finding for each.
    pub(crate) wrong: u64,
}

/// What the audit found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit {
    pub(crate) rows: Vec<Row>,
    pub(crate) findings: Vec<String>,
}

impl Audit {
    /// Whether everything holds.
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Reads everything, and compares it.
///
/// # Errors
///
/// When the store or a source cannot be read. What does not hold is in the result.
pub(crate) async fn audit(config: &Config) -> Result<Audit, BoxError> {
    let mut held = Vec::new();
    for source in &config.sources {
        let name = source.name().to_owned();
        let read = read(source).await;
        let read = read.map_err(|error| format!("source {name:?}: {}", error_text(&*error)))?;
        held.push((name, read));
    }
    // Last, so that an order that was taken from its source meanwhile is not missed.
    let store = Store::open(&config.store.url, 1, PATIENCE)?;
    store.reach().await?;
    let kept = store::read(&store).await?;
    store.close().await;
    Ok(compare::compare(&kept, &held))
}

async fn read(source: &Source) -> Result<Held, BoxError> {
    match source {
        Source::Kafka(kafka) => kafka::read(kafka).await,
        Source::Sqs(sqs) => queues::read_sqs(sqs).await,
        Source::Postgres(postgres) => queues::read_postgres(postgres).await,
        Source::Files(files) => Ok(queues::read_files(files)?),
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.source.len()).max().unwrap_or(0).max(6);
        writeln!(
            f,
            "{:width$} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "source", "produced", "done", "dead", "unsent", "wrong"
        )?;
        for row in &self.rows {
            let Row { source, produced, done, dead, unsent, wrong, .. } = row;
            writeln!(
                f,
                "{source:width$} {produced:>9} {done:>9} {dead:>9} {unsent:>9} {wrong:>9}"
            )?;
        }
        for Row { source, dead_and_valid, .. } in &self.rows {
            if *dead_and_valid > 0 {
                writeln!(f, "of the dead letters of {source}, {dead_and_valid} are valid orders")?;
            }
        }
        for finding in &self.findings {
            writeln!(f, "wrong: {finding}")?;
        }
        match self.findings.len() {
            0 => write!(f, "clean"),
            1 => write!(f, "1 finding"),
            count => write!(f, "{count} findings"),
        }
    }
}
