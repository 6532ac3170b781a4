//! What handling a message does to the database, and what undoes it.
//!
//! Messages come at least once: a worker may be killed between an effect and its accept, or be so slow
//! that its lease runs out and another one has the message, and may go on with it all the same. So every
//! row bears the mark of the delivery that wrote it, by four rules:
//!
//! - An event has one token. A message that finds it taken by another one does nothing.
//! - A delivery takes over the rows of earlier deliveries of its message, and adds what is missing.
//! - It does nothing once a later delivery has begun, or the message is settled.
//! - An undo deletes only rows that are still its own delivery's. So the undo of an earlier one does
//!   nothing to what a later one has found and accepted.

use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::database::DatabaseError;
use crate::schema;

/// Which delivery of which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) feed: u32,
    pub(crate) position: u32,
    /// Grows with the deliveries of the message.
    pub(crate) number: u64,
    pub(crate) run: i64,
}

/// Whose a row is, and of which event.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) delivery: Delivery,
    /// No other delivery has it.
    pub(crate) undo: Arc<str>,
    /// The idempotency token of the event.
    pub(crate) token: Arc<str>,
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
    /// It is not needed: the message is settled, or another one that brought the same event.
    Done,
    /// Somebody else is at it, and may still fail.
    InWork,
}

impl Delivery {
    /// Whether somebody else has settled the message or begun with a later delivery of it.
    fn is_too_late(&self, database: &Connection) -> rusqlite::Result<Option<Put>> {
        let Self { feed, position, number, .. } = *self;
        if schema::is_settled(database, feed, position)? {
            return Ok(Some(Put::Done));
        }
        let later = "SELECT EXISTS (SELECT 1 FROM tokens
                WHERE feed = ?1 AND position = ?2 AND delivery > ?3)
            OR EXISTS (SELECT 1 FROM dead
                WHERE feed = ?1 AND position = ?2 AND delivery > ?3)";
        let mut later = database.prepare_cached(later)?;
        let later = later.query_row(params![feed, position, number], |row| row.get(0))?;
        Ok(if later { Some(Put::InWork) } else { None })
    }

    /// Puts the message among the dead letters, in place of whatever its deliveries have left.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) fn bury(
        &self,
        database: &Connection,
        body: &[u8],
        reason: &str,
    ) -> Result<(), DatabaseError> {
        if self.is_too_late(database)?.is_some() {
            return Ok(());
        }
        let Self { feed, position, number, run } = *self;
        for table in ["outbox", "tokens"] {
            let sql = format!("DELETE FROM {table} WHERE feed = ?1 AND position = ?2");
            database.prepare_cached(&sql)?.execute(params![feed, position])?;
        }
        let sql = "INSERT OR REPLACE INTO dead VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let row = params![feed, position, number, run, body, reason];
        database.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }
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
        let Mark { delivery, undo, token } = mark;
        if let Some(put) = delivery.is_too_late(database)? {
            return Ok(put);
        }
        let Delivery { feed, position, number, run } = delivery;
        // The letter of an earlier delivery, whose worker did not live to reject it.
        let sql = "DELETE FROM dead WHERE feed = ?1 AND position = ?2";
        database.prepare_cached(sql)?.execute(params![feed, position])?;
        let put = match self {
            Self::Token => {
                let sql = "INSERT INTO tokens VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                    ON CONFLICT DO UPDATE
                        SET delivery = excluded.delivery, run = excluded.run, undo = excluded.undo
                        WHERE feed = excluded.feed AND position = excluded.position";
                let row = params![token, feed, position, number, run, undo];
                database.prepare_cached(sql)?.execute(row)?
            }
            Self::Event(body) => {
                let sql = "INSERT INTO outbox VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                    ON CONFLICT DO UPDATE
                        SET delivery = excluded.delivery, run = excluded.run, undo = excluded.undo
                        WHERE feed = excluded.feed AND position = excluded.position";
                let row = params![token, feed, position, number, run, undo, body];
                database.prepare_cached(sql)?.execute(row)?
            }
        };
        if put == 1 {
            return Ok(Put::Ours);
        }
        // Another message brought the event: it counts once that one is settled with it.
        let sql = "SELECT feed, position FROM tokens WHERE token = ?1";
        let other = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (feed, position) = database.prepare_cached(sql)?.query_row([token], other)?;
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

#[cfg(test)]
mod tests;
