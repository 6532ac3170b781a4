//! What handling a message does to the database, and what undoes it.
//!
//! Messages come at least once: a worker may be killed between an effect and its accept, or lose a lease
//! while it is slow. So every row has the mark of the delivery that wrote it, by three rules:
//!
//! - An event has one token. Who finds it taken does nothing.
//! - A later delivery of the same message takes its rows over, and finishes what is missing.
//! - An undo deletes only what is marked as its own delivery's. So that of an earlier one, which comes
//!   late, does nothing to what a later one has found and accepted.

use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::database::DatabaseError;
use crate::schema;

/// Whose a row is.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// The idempotency token of the event.
    pub(crate) token: Arc<str>,
    pub(crate) feed: u32,
    pub(crate) position: u32,
    pub(crate) run: i64,
    /// No other delivery has it.
    pub(crate) undo: Arc<str>,
    /// Grows with the deliveries of a message.
    pub(crate) delivery: u64,
}

/// One of the effects.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Persists the idempotency token.
    Token,
    /// Puts the domain event into the outbox.
    Event(Arc<str>),
}

/// What became of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It has happened.
    Ours,
    /// It had happened: another message, or a later delivery of this one, is settled with it.
    Done,
    /// Somebody else is at it, and may still fail.
    InWork,
}

impl Effect {
    /// What it does, to follow "cannot".
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Token => "persist the token",
            Self::Event(_) => "emit the event",
        }
    }

    /// What its compensation does.
    pub(crate) fn undo_action(&self) -> &'static str {
        match self {
            Self::Token => "delete the token",
            Self::Event(_) => "roll back the event",
        }
    }

    /// Makes the effect happen.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) fn put(&self, database: &Connection, mark: &Mark) -> Result<Put, DatabaseError> {
        let Mark { token, feed, position, run, undo, delivery } = mark;
        let row = params![token, feed, position, undo, delivery, run];
        let put = match self {
            Self::Token => {
                let sql = "INSERT INTO tokens VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                    ON CONFLICT DO UPDATE SET
                        undo = excluded.undo, delivery = excluded.delivery, run = excluded.run
                    WHERE feed = excluded.feed AND position = excluded.position
                        AND delivery <= excluded.delivery";
                database.prepare_cached(sql)?.execute(row)?
            }
            Self::Event(body) => {
                let sql = "INSERT INTO outbox VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                    ON CONFLICT DO UPDATE SET
                        undo = excluded.undo, delivery = excluded.delivery, run = excluded.run
                    WHERE feed = excluded.feed AND position = excluded.position
                        AND delivery <= excluded.delivery";
                let row = params![token, feed, position, undo, delivery, run, body];
                database.prepare_cached(sql)?.execute(row)?
            }
        };
        if put == 1 {
            // The letter of an earlier delivery, whose worker was killed before it rejected.
            let sql = "DELETE FROM dead WHERE feed = ?1 AND position = ?2";
            database.prepare_cached(sql)?.execute(params![feed, position])?;
            return Ok(Put::Ours);
        }
        let sql = "SELECT feed, position FROM tokens WHERE token = ?1";
        let owner = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (feed, position) = database.prepare_cached(sql)?.query_row([token], owner)?;
        let is_settled = schema::is_settled(database, feed, position)?;
        Ok(if is_settled { Put::Done } else { Put::InWork })
    }

    /// Undoes the effect, if it is still this delivery's.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) fn undo(&self, database: &Connection, mark: &Mark) -> Result<(), DatabaseError> {
        let sql = match self {
            Self::Token => "DELETE FROM tokens WHERE token = ?1 AND undo = ?2",
            Self::Event(_) => "DELETE FROM outbox WHERE token = ?1 AND undo = ?2",
        };
        database.prepare_cached(sql)?.execute(params![mark.token, mark.undo])?;
        Ok(())
    }
}

/// Puts a message that was given up among the dead letters, in place of whatever a delivery of it that
/// was killed has left.
///
/// # Errors
///
/// When the database fails.
pub(crate) fn bury(
    database: &Connection,
    (feed, position): (u32, u32),
    body: &[u8],
    reason: &str,
    run: i64,
) -> Result<(), DatabaseError> {
    for table in ["outbox", "tokens"] {
        let sql = format!("DELETE FROM {table} WHERE feed = ?1 AND position = ?2");
        database.prepare_cached(&sql)?.execute(params![feed, position])?;
    }
    let sql = "INSERT INTO dead VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT DO UPDATE SET reason = excluded.reason, run = excluded.run";
    database.prepare_cached(sql)?.execute(params![feed, position, body, reason, run])?;
    Ok(())
}
