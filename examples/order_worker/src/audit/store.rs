//! What the store has: the orders that were produced, and what they left.

use std::collections::BTreeMap;

use crate::store::{Store, StoreError};

/// All of it, as it was at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) produced: Vec<Produced>,
    /// By the order's id.
    pub(super) tokens: BTreeMap<String, Token>,
    pub(super) events: BTreeMap<String, Vec<Vec<u8>>>,
}

/// An order that was produced.
#[derive(Clone, Debug)]
pub(super) struct Produced {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) body: Vec<u8>,
    pub(super) is_sent: bool,
}

/// The token of an order.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) source: String,
    pub(super) is_done: bool,
}

/// Reads it.
///
/// # Errors
///
/// When the store fails.
pub(super) async fn read(store: &Store) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    let mut look = store.look().await?;
    let sql = "select message, source, body, sent from produced order by message";
    for row in look.rows(sql, &[]).await? {
        let (id, source, body) = (row.text(0)?, row.text(1)?, row.bytes(2)?);
        kept.produced.push(Produced { id, source, body, is_sent: row.number(3)? != 0 });
    }
    for row in look.rows("select message, source, state from tokens", &[]).await? {
        let token = Token { source: row.text(1)?, is_done: row.text(2)? == "done" };
        kept.tokens.insert(row.text(0)?, token);
    }
    for row in look.rows("select message, body from outbox", &[]).await? {
        kept.events.entry(row.text(0)?).or_default().push(row.bytes(1)?);
    }
    look.commit().await?;
    Ok(kept)
}
