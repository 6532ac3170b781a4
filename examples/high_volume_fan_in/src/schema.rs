//! The database's tables, how they are filled on the first run, and what is left to do in them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};

use crate::input::{Input, Transport};
use crate::transports::partition_log;

pub(crate) const TABLES: &str = include_str!("schema.sql");

const PRAGMAS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL; -- a power cut may undo the last commits, a crash does not
    PRAGMA wal_autocheckpoint = 8000;
    PRAGMA cache_size = -65536;
";

/// How long another worker's transaction is waited for.
const BUSY: Duration = Duration::from_secs(10);

/// Why a run cannot start on a database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot open {0}")]
    Open(String, #[source] rusqlite::Error),
    #[error("{0} is locked by another program")]
    Locked(String),
    #[error("{0} cannot be written: every message is recorded there")]
    ReadOnly(String),
    #[error(
        "{0} belongs to another input: run it with the files and the --repeat it was made with, \
        or give another --database"
    )]
    OtherInput(String),
    #[error("cannot write the log's partitions in {0}")]
    Log(String, #[source] io::Error),
}

/// The folder of the log's partitions that belong to a database.
pub(crate) fn partitions(database: &Path) -> PathBuf {
    let mut folder = database.as_os_str().to_owned();
    folder.push(".partitions");
    folder.into()
}

/// Opens the database at `path`, and fills it and the log on the first run.
///
/// # Errors
///
/// When the file is no database, cannot be written, or belongs to another input.
pub(crate) fn open(path: &Path, input: &Input) -> Result<Connection, OpenError> {
    let name = || path.display().to_string();
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => OpenError::Locked(name()),
        Some(ErrorCode::ReadOnly) => OpenError::ReadOnly(name()),
        _ => OpenError::Open(name(), error),
    };
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    set_up(&connection).map_err(failed)?;
    // Of several workers that begin at once, one fills it, and the others wait here.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let filled = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'input')";
    if transaction.query_row(filled, [], |row| row.get(0)).map_err(failed)? {
        let known = "SELECT fingerprint FROM input";
        let known: String = transaction.query_row(known, [], |row| row.get(0)).map_err(failed)?;
        if known != input.fingerprint {
            return Err(OpenError::OtherInput(name()));
        }
    } else {
        let folder = partitions(path);
        let unwritten = |error| OpenError::Log(folder.display().to_string(), error);
        write_log(&folder, input).map_err(unwritten)?;
        fill(&transaction, input).map_err(failed)?;
    }
    transaction.commit().map_err(failed)?;
    Ok(connection)
}

/// Of several workers that begin at once on a new file, one makes its write-ahead log. The others are
/// told at once that it is busy, whatever `busy_timeout` is: they ask again.
fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    let began = Instant::now();
    loop {
        match connection.execute_batch(PRAGMAS) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && began.elapsed() < BUSY =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Opens the database again, to read only: the audit's connection.
///
/// # Errors
///
/// When the file cannot be opened.
pub(crate) fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn write_log(folder: &Path, input: &Input) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for feed in input.feeds_of(Transport::Log) {
        let partition = fs::File::create(partition_log::partition(folder, feed.id))?;
        let mut lines = io::BufWriter::new(partition);
        for (_, line) in feed.payloads() {
            lines.write_all(line)?;
            lines.write_all(b"\n")?;
        }
        lines.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    }
    Ok(())
}

fn fill(transaction: &Transaction<'_>, input: &Input) -> rusqlite::Result<()> {
    transaction.execute_batch(TABLES)?;
    transaction.execute("INSERT INTO input VALUES (?1)", [&input.fingerprint])?;
    let mut put =
        transaction.prepare("INSERT INTO queue(queue, number, body) VALUES (?1, ?2, ?3)")?;
    for feed in input.feeds_of(Transport::LeaseQueue) {
        for (number, line) in feed.payloads() {
            put.execute(params![feed.id, number, line])?;
        }
    }
    for feed in input.feeds_of(Transport::Log) {
        let sql = "INSERT INTO partitions(partition, records) VALUES (?1, ?2)";
        transaction.execute(sql, params![feed.id, feed.messages()])?;
    }
    Ok(())
}

/// Notes that a run begins, and returns its number; 1 is the first.
///
/// # Errors
///
/// When the database fails.
pub(crate) fn begin_run(connection: &Connection) -> rusqlite::Result<i64> {
    connection.execute("INSERT INTO runs DEFAULT VALUES", [])?;
    Ok(connection.last_insert_rowid())
}

/// Notes that a run has ended, how many messages it has settled, and of how many it cannot be sure.
///
/// # Errors
///
/// When the database fails.
pub(crate) fn end_run(
    connection: &Connection,
    run: i64,
    settled: u64,
    unsure: u64,
) -> rusqlite::Result<()> {
    let sql = "UPDATE runs SET ended = 1, settled = ?2, unsure = ?3 WHERE run = ?1";
    connection.execute(sql, params![run, settled, unsure]).map(drop)
}

/// How many messages nobody has settled yet.
///
/// # Errors
///
/// When the database fails.
pub(crate) fn left(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT (SELECT count(*) FROM queue)
        + (SELECT coalesce(sum(records - committed), 0) FROM partitions)";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// Whether every message is settled: quicker than to count.
///
/// # Errors
///
/// When the database fails.
pub(crate) fn is_done(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM queue)
        AND NOT EXISTS (SELECT 1 FROM partitions WHERE committed < records)";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// Whether a message is settled.
///
/// # Errors
///
/// When the database fails.
pub(crate) fn is_settled(
    connection: &Connection,
    feed: u32,
    position: u32,
) -> rusqlite::Result<bool> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM queue WHERE queue = ?1 AND number = ?2)
        AND NOT EXISTS (SELECT 1 FROM partitions WHERE partition = ?1 AND committed <= ?2)";
    connection.prepare_cached(sql)?.query_row(params![feed, position], |row| row.get(0))
}
