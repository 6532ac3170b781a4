//! The tables, how they are filled on the first run, and what a killed run left behind.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::input::{Feed, Input, Transport};
use crate::lines::Bookmark;
use crate::store::StoreError;

/// The name this worker takes leases under.
pub(crate) const WORKER: &str = "high_volume_fan_in";

const PRAGMAS: &str = "
    PRAGMA locking_mode = EXCLUSIVE; -- one process at a time works on a database
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;     -- a power cut may undo the last commits, a crash does not
    PRAGMA wal_autocheckpoint = 8000;
    PRAGMA cache_size = -65536;
";

const TABLES: &str = "
    CREATE TABLE meta(fingerprint TEXT NOT NULL) STRICT;
    CREATE TABLE feeds(feed INTEGER PRIMARY KEY, name TEXT NOT NULL, transport TEXT NOT NULL,
        messages INTEGER NOT NULL) STRICT;
    CREATE TABLE runs(run INTEGER PRIMARY KEY) STRICT;

    -- The lease queue.
    CREATE TABLE leases(feed INTEGER NOT NULL, position INTEGER NOT NULL, payload BLOB NOT NULL,
        state TEXT NOT NULL DEFAULT 'available', -- or 'leased' or 'completed'
        owner TEXT, expires_at INTEGER,
        PRIMARY KEY(feed, position)) STRICT, WITHOUT ROWID;

    -- How far a partition of the log is committed, a connection acknowledged: the next position.
    CREATE TABLE offsets(feed INTEGER PRIMARY KEY, committed INTEGER NOT NULL) STRICT;
    -- Lines that failed and were passed, for the next run to try again.
    CREATE TABLE parked(feed INTEGER NOT NULL, position INTEGER NOT NULL,
        PRIMARY KEY(feed, position)) STRICT, WITHOUT ROWID;

    -- What handling a message leaves.
    CREATE TABLE tokens(token TEXT PRIMARY KEY, feed INTEGER NOT NULL, position INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE TABLE outbox(token TEXT PRIMARY KEY, feed INTEGER NOT NULL, position INTEGER NOT NULL,
        body TEXT NOT NULL) STRICT, WITHOUT ROWID;
    -- Messages that brought an event a second time.
    CREATE TABLE duplicates(feed INTEGER NOT NULL, position INTEGER NOT NULL, token TEXT NOT NULL,
        PRIMARY KEY(feed, position)) STRICT, WITHOUT ROWID;

    -- Written in the transactions of the effects and of their compensations, for the audit.
    CREATE TABLE effects(sequence INTEGER PRIMARY KEY, run INTEGER NOT NULL,
        feed INTEGER NOT NULL, position INTEGER NOT NULL, action TEXT NOT NULL) STRICT;
    CREATE TABLE rollbacks(step INTEGER PRIMARY KEY, sequence INTEGER UNIQUE NOT NULL,
        run INTEGER NOT NULL, action TEXT NOT NULL) STRICT;

    CREATE VIEW unsettled AS
        SELECT traces.feed, traces.position
        FROM (SELECT feed, position FROM tokens UNION SELECT feed, position FROM duplicates) traces
        LEFT JOIN leases ON leases.feed = traces.feed AND leases.position = traces.position
        LEFT JOIN offsets ON offsets.feed = traces.feed
        LEFT JOIN parked ON parked.feed = traces.feed AND parked.position = traces.position
        WHERE coalesce(leases.state <> 'completed',
            traces.position >= offsets.committed OR parked.feed IS NOT NULL);
";

/// What a run starts from.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    /// The number of this run on the database; 1 is the first.
    pub(crate) run: i64,
    /// The first number that no effect has yet.
    pub(crate) next_sequence: i64,
    pub(crate) recovered: Recovered,
}

/// What a run that was killed had left half done, and what was done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) released: usize,
    pub(crate) deleted: usize,
}

/// Why a run cannot start on a database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot open {0}")]
    Open(String, #[source] rusqlite::Error),
    #[error("{0} is in use by another run")]
    Locked(String),
    #[error("{0} cannot be written: every message is recorded there")]
    ReadOnly(String),
    #[error(
        "{0} belongs to another input: run it with the files and the --repeat it was made with, \
        or give another --database"
    )]
    OtherInput(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens the database at `path`, and fills it on the first run; `write_log` writes the log's
/// partitions then.
///
/// # Errors
///
/// When the file is not a database, is in use, or belongs to another input.
pub(crate) fn open(
    path: &Path,
    input: &mut Input,
    order: &[usize],
    write_log: impl FnOnce(&Input) -> std::io::Result<()>,
) -> Result<Opened, OpenError> {
    let name = || path.display().to_string();
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy) => OpenError::Locked(name()),
        Some(rusqlite::ErrorCode::ReadOnly) => OpenError::ReadOnly(name()),
        _ => OpenError::Open(name(), error),
    };
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(std::time::Duration::ZERO).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(PRAGMAS).map_err(failed)?;
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;

    if transaction.table_exists(None, "meta").map_err(failed)? {
        let known = "SELECT fingerprint FROM meta";
        let known: String = transaction.query_row(known, [], |row| row.get(0)).map_err(failed)?;
        if known != input.fingerprint {
            return Err(OpenError::OtherInput(name()));
        }
        recall_transports(&transaction, input).map_err(failed)?;
    } else {
        input.assign_transports(order);
        write_log(input)?;
        fill(&transaction, input).map_err(failed)?;
    }
    let recovered = recover(&transaction).map_err(failed)?;
    transaction.execute("INSERT INTO runs DEFAULT VALUES", []).map_err(failed)?;
    let run = transaction.last_insert_rowid();
    let last = "SELECT coalesce(max(sequence), 0) FROM effects";
    let last: i64 = transaction.query_row(last, [], |row| row.get(0)).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(Opened { connection, run, next_sequence: last + 1, recovered })
}

/// Opens the database again, to read only: the audit's connection.
///
/// # Errors
///
/// When the file cannot be opened.
pub(crate) fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn fill(transaction: &Transaction<'_>, input: &Input) -> rusqlite::Result<()> {
    transaction.execute_batch(TABLES)?;
    transaction.execute("INSERT INTO meta VALUES (?1)", [&input.fingerprint])?;
    let mut lease =
        transaction.prepare("INSERT INTO leases(feed, position, payload) VALUES (?1, ?2, ?3)")?;
    for feed in &input.feeds {
        let row = params![feed.id, &*feed.name, feed.transport.as_str(), feed.messages()];
        transaction.execute("INSERT INTO feeds VALUES (?1, ?2, ?3, ?4)", row)?;
        if feed.transport == Transport::LeaseQueue {
            for (position, payload) in feed.payloads(0) {
                lease.execute(params![feed.id, position, payload])?;
            }
        } else {
            transaction.execute("INSERT INTO offsets VALUES (?1, 0)", [feed.id])?;
        }
    }
    Ok(())
}

/// What transports a feed was decided on the first run and stays.
fn recall_transports(transaction: &Transaction<'_>, input: &mut Input) -> rusqlite::Result<()> {
    let mut find = transaction.prepare("SELECT transport FROM feeds WHERE feed = ?1")?;
    for index in 0..input.feeds.len() {
        let name: String = find.query_row([index], |row| row.get(0))?;
        if let Some(transport) = Transport::from_name(&name) {
            input.set_transport(index, transport);
        }
    }
    Ok(())
}

/// Releases the leases and deletes the traces of messages that a killed run was handling: its
/// compensations died with it. The messages will be delivered again.
fn recover(transaction: &Transaction<'_>) -> rusqlite::Result<Recovered> {
    let released = release_held(transaction)?;
    let mut deleted = 0;
    // The outbox first: what is unsettled is looked up by the tokens.
    for table in ["outbox", "tokens", "duplicates"] {
        let sql = format!(
            "DELETE FROM {table} WHERE (feed, position) IN (SELECT feed, position FROM unsettled)"
        );
        deleted += transaction.execute(&sql, [])?;
    }
    Ok(Recovered { released, deleted })
}

/// What is not done of a feed whose transport is the log or the socket.
///
/// # Errors
///
/// When the database fails.
pub(crate) fn bookmark(connection: &Connection, feed: u32) -> rusqlite::Result<Bookmark> {
    let next = "SELECT committed FROM offsets WHERE feed = ?1";
    let next = connection.query_row(next, [feed], |row| row.get(0))?;
    let mut parked = connection.prepare("SELECT position FROM parked WHERE feed = ?1")?;
    let parked = parked.query_map([feed], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(Bookmark { parked, next })
}

/// Which messages of a feed are settled: for each position, whether it is.
///
/// # Errors
///
/// When the database fails.
pub(crate) fn settled(connection: &Connection, feed: &Feed) -> rusqlite::Result<Vec<bool>> {
    let mut settled = vec![false; feed.messages() as usize];
    if feed.transport == Transport::LeaseQueue {
        let completed = "SELECT position FROM leases WHERE feed = ?1 AND state = 'completed'";
        let mut completed = connection.prepare(completed)?;
        for position in completed.query_map([feed.id], |row| row.get::<_, usize>(0))? {
            settled[position?] = true;
        }
    } else {
        let bookmark = bookmark(connection, feed.id)?;
        settled[..bookmark.next as usize].fill(true);
        for position in bookmark.parked {
            settled[position as usize] = false;
        }
    }
    Ok(settled)
}

/// Releases every lease that this worker holds.
///
/// # Errors
///
/// When the database fails.
pub(crate) fn release_held(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE leases SET state = 'available', owner = NULL, expires_at = NULL
            WHERE state = 'leased' AND owner = ?1",
        [WORKER],
    )
}
