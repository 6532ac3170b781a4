//! The effects that handling a message has on the database, and what undoes each of them.
//!
//! Every effect is written together with a row in `effects`, every compensation together with a
//! row in `rollbacks`, in one transaction each. A compensation that finds no row of its effect
//! (the effect never happened) or a row of its own (it ran before) does nothing: it can be staged
//! before its effect, and run more than once.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};

use crate::input::Transport;
use crate::schema::WORKER;
use crate::store::StoreError;

/// How long a lease lasts.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// The time by which a lease taken now expires, in milliseconds since 1970.
pub(crate) fn lease_expiry() -> i64 {
    now() + i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// An effect on the database that can be undone.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub(crate) run: i64,
    /// Drawn when the compensation is registered: the order of registration.
    pub(crate) sequence: i64,
    pub(crate) feed: u32,
    pub(crate) position: u32,
    pub(crate) kind: Kind,
}

/// What an effect does.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Confirms the lease that the message came with. Undone: releases it.
    Lease,
    /// Nothing yet. Undone: the line is parked, and its partition or connection goes on behind it.
    Park,
    /// Persists the idempotency token. Undone: deletes it.
    Token(Arc<str>),
    /// Puts the domain event into the outbox. Undone: deletes it.
    Emit { token: Arc<str>, body: Arc<str> },
    /// Notes that the message brought an event a second time. Undone: deletes the note.
    Duplicate(Arc<str>),
    /// Completes the lease, or commits the offset, or acknowledges the line. Undone: takes it back.
    Settle { transport: Transport },
    /// Settles a line that an earlier run had parked. Undone: parks it again.
    Unpark,
}

impl Kind {
    /// What it does, to follow "cannot".
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Lease => "confirm the lease",
            Self::Park => "start on the line",
            Self::Token(_) => "persist the token",
            Self::Emit { .. } => "emit the event",
            Self::Duplicate(_) => "note the duplicate",
            Self::Settle { transport: Transport::LeaseQueue } => "complete the lease",
            Self::Settle { transport: Transport::Log } => "commit the offset",
            Self::Settle { transport: Transport::Tcp } => "acknowledge the line",
            Self::Unpark => "unpark the line",
        }
    }

    /// What its compensation does.
    pub(crate) fn undo_action(&self) -> &'static str {
        match self {
            Self::Lease => "release the lease",
            Self::Park | Self::Unpark => "park the line",
            Self::Token(_) => "delete the token",
            Self::Emit { .. } => "roll back the event",
            Self::Duplicate(_) => "forget the duplicate",
            Self::Settle { transport: Transport::LeaseQueue } => "take the completion back",
            Self::Settle { transport: Transport::Log } => "restore the offset",
            Self::Settle { transport: Transport::Tcp } => "take the acknowledgement back",
        }
    }
}

impl Effect {
    /// Makes the effect happen. `false`: there is nothing to undo, because the token is there
    /// already and belongs to another message.
    ///
    /// # Errors
    ///
    /// When the database fails, or the message is not this worker's to settle.
    pub(crate) fn perform(&self, connection: &Connection) -> Result<bool, StoreError> {
        let Self { feed, position, .. } = *self;
        let execute = |sql, values: &[&dyn rusqlite::ToSql]| {
            Ok::<_, StoreError>(connection.prepare_cached(sql)?.execute(values)? == 1)
        };
        let happened = match &self.kind {
            Kind::Park => true,
            Kind::Lease => execute(
                "UPDATE leases SET expires_at = ?3
                    WHERE feed = ?1 AND position = ?2 AND state = 'leased' AND owner = ?4",
                params![feed, position, lease_expiry(), WORKER],
            )?,
            Kind::Token(token) => execute(
                "INSERT INTO tokens(feed, position, token) VALUES (?1, ?2, ?3)
                    ON CONFLICT DO NOTHING",
                params![feed, position, token],
            )?,
            Kind::Emit { token, body } => execute(
                "INSERT INTO outbox(feed, position, token, body) VALUES (?1, ?2, ?3, ?4)",
                params![feed, position, token, body],
            )?,
            Kind::Duplicate(token) => execute(
                "INSERT INTO duplicates(feed, position, token) VALUES (?1, ?2, ?3)",
                params![feed, position, token],
            )?,
            Kind::Settle { transport: Transport::LeaseQueue } => execute(
                "UPDATE leases SET state = 'completed', expires_at = NULL
                    WHERE feed = ?1 AND position = ?2 AND state = 'leased' AND owner = ?3",
                params![feed, position, WORKER],
            )?,
            Kind::Settle { transport: Transport::Log | Transport::Tcp } => execute(
                "UPDATE offsets SET committed = ?2 + 1 WHERE feed = ?1 AND committed = ?2",
                params![feed, position],
            )?,
            Kind::Unpark => execute(
                "DELETE FROM parked WHERE feed = ?1 AND position = ?2",
                params![feed, position],
            )?,
        };
        match &self.kind {
            _ if happened => {
                let log = "INSERT INTO effects VALUES (?1, ?2, ?3, ?4, ?5)";
                let action = self.kind.action();
                execute(log, params![self.sequence, self.run, feed, position, action])
            }
            Kind::Token(_) => Ok(false),
            Kind::Lease | Kind::Settle { transport: Transport::LeaseQueue } => {
                Err(StoreError::LeaseLost)
            }
            _ => Err(StoreError::OutOfOrder),
        }
    }

    /// Undoes the effect, if it happened and has not been undone yet.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) fn undo(&self, connection: &Connection) -> Result<(), StoreError> {
        let Self { feed, position, .. } = *self;
        let execute = |sql, values: &[&dyn rusqlite::ToSql]| {
            Ok::<_, StoreError>(connection.prepare_cached(sql)?.execute(values)? == 1)
        };
        let to_do = execute(
            "INSERT INTO rollbacks(sequence, run, action)
                SELECT sequence, run, ?2 FROM effects WHERE sequence = ?1
                ON CONFLICT DO NOTHING",
            params![self.sequence, self.kind.undo_action()],
        )?;
        if !to_do {
            return Ok(());
        }
        let undone = match &self.kind {
            Kind::Lease => execute(
                "UPDATE leases SET state = 'available', owner = NULL, expires_at = NULL
                    WHERE feed = ?1 AND position = ?2 AND state = 'leased' AND owner = ?3",
                params![feed, position, WORKER],
            )?,
            Kind::Park => {
                park(connection, feed, position)?;
                execute(
                    "UPDATE offsets SET committed = ?2 + 1 WHERE feed = ?1 AND committed = ?2",
                    params![feed, position],
                )?;
                true
            }
            Kind::Token(token) => execute("DELETE FROM tokens WHERE token = ?1", params![token])?,
            Kind::Emit { token, .. } => {
                execute("DELETE FROM outbox WHERE token = ?1", params![token])?
            }
            Kind::Duplicate(_) => execute(
                "DELETE FROM duplicates WHERE feed = ?1 AND position = ?2",
                params![feed, position],
            )?,
            Kind::Settle { transport: Transport::LeaseQueue } => execute(
                "UPDATE leases SET state = 'leased', expires_at = ?3
                    WHERE feed = ?1 AND position = ?2 AND state = 'completed' AND owner = ?4",
                params![feed, position, lease_expiry(), WORKER],
            )?,
            Kind::Settle { transport: Transport::Log | Transport::Tcp } => execute(
                "UPDATE offsets SET committed = ?2 WHERE feed = ?1 AND committed = ?2 + 1",
                params![feed, position],
            )?,
            Kind::Unpark => park(connection, feed, position)?,
        };
        if undone { Ok(()) } else { Err(StoreError::NothingToUndo) }
    }
}

fn park(connection: &Connection, feed: u32, position: u32) -> Result<bool, StoreError> {
    let sql = "INSERT INTO parked(feed, position) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    Ok(connection.prepare_cached(sql)?.execute(params![feed, position])? == 1)
}
