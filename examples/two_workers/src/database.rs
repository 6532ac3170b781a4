//! The database of both workers, and how it is filled.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use watershed::{BoxError, Error, ErrorCode};

/// Partitions of the log.
pub(crate) const PARTITIONS: u32 = 4;

const TABLES: &str = "
    -- The lease queue: a row is somebody's until it expires, by the token of its last lease.
    CREATE TABLE queue(id INTEGER PRIMARY KEY, body TEXT NOT NULL, token INTEGER NOT NULL DEFAULT 0,
        expires INTEGER NOT NULL DEFAULT 0, deliveries INTEGER NOT NULL DEFAULT 0) STRICT;

    -- The log's partitions: how far each is committed, and whose it is for now.
    CREATE TABLE partitions(partition INTEGER PRIMARY KEY, records INTEGER NOT NULL,
        committed INTEGER NOT NULL DEFAULT 0, owner TEXT, generation INTEGER NOT NULL DEFAULT 0,
        expires INTEGER NOT NULL DEFAULT 0) STRICT;
    CREATE TABLE members(owner TEXT PRIMARY KEY, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID;

    -- What an order leaves: its token with the effect, and its event. `undo` says which delivery did it.
    CREATE TABLE stock(token TEXT PRIMARY KEY, undo TEXT NOT NULL, pieces INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE TABLE outbox(token TEXT PRIMARY KEY, undo TEXT NOT NULL, event TEXT NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE TABLE dead(token TEXT PRIMARY KEY, reason TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE ordered(token TEXT PRIMARY KEY, pieces INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// Milliseconds by the database's own clock.
pub(crate) const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// A span as the database counts it.
pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn partition(folder: &Path, partition: u32) -> PathBuf {
    folder.join(format!("partition-{partition}.log"))
}

/// Makes a database and a log with so many orders: a line is `TOKEN PIECES`, and those of 0 pieces
/// cannot be delivered.
pub(crate) fn fill(folder: &Path, orders: u32) -> Result<(), BoxError> {
    fs::create_dir_all(folder)?;
    let mut connection = open(folder)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    let mut logs = vec![Vec::new(); PARTITIONS as usize];
    for number in 0..orders {
        let (token, pieces) = (format!("order-{number}"), number % 10);
        let line = format!("{token} {pieces}");
        transaction.execute("INSERT INTO ordered VALUES (?1, ?2)", (&token, pieces))?;
        if number % 2 == 0 {
            transaction.execute("INSERT INTO queue(body) VALUES (?1)", [&line])?;
        } else {
            logs[(number / 2 % PARTITIONS) as usize].push(line);
        }
    }
    for (number, lines) in (0..).zip(&logs) {
        let mut file = fs::File::create(partition(folder, number))?;
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.sync_all()?;
        let sql = "INSERT INTO partitions(partition, records) VALUES (?1, ?2)";
        transaction.execute(sql, (number, lines.len()))?;
    }
    transaction.commit()?;
    Ok(())
}

fn open(folder: &Path) -> Result<Connection, BoxError> {
    let connection = Connection::open(folder.join("orders.db"))?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    Ok(connection)
}

/// A connection, used on threads that may block. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Database(Arc<Mutex<Connection>>);

impl Database {
    pub(crate) fn open(folder: &Path) -> Result<Self, BoxError> {
        Ok(Self(Arc::new(Mutex::new(open(folder)?))))
    }

    /// Runs a transaction, without blocking whoever waits for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let database = self.clone();
        blocking::unblock(move || database.run_blocking(work)).await
    }

    pub(crate) fn run_blocking<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || -> rusqlite::Result<T> {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|error| Error::from_error(ErrorCode::Source, error))
    }
}
