//! What an order does to the store, step by step, and what undoes it.
//!
//! Each step is a transaction of its own, so a worker that is killed leaves what its last step left: a
//! token that is `begun`, perhaps an event that nobody may publish yet. Its message comes again, to
//! some worker, and that *finishes* it, because each step is idempotent under the message's token:
//!
//! 1. `Token` writes the token with the delivery's undo key. One that an earlier delivery has begun is
//!    taken over, with the event that it may have: both bear the later delivery's key from then on.
//! 2. `Event` puts the domain event into the outbox, or finds the one that was taken over.
//! 3. `Done` turns the token from `begun` into `done`, and with it the event into one that is to be
//!    published. This one statement is the point of no return: before it the order has had no effect
//!    that anybody acts on, behind it nothing of the order is undone, whatever becomes of its message.
//!    A message whose token is `done` is accepted without effect.
//!
//! An undo deletes only rows that bear its own delivery's key and are not `done`: what a later delivery
//! has taken over is not the earlier one's any more. That one notices at its next step, which finds
//! another key, and does nothing. All steps and undos of an order take turns (see `store::transaction`).

use crate::store::{Store, StoreError, Value};

use Value::{Bytes, Text};

/// Whose the rows are that a delivery writes, and of which order.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// The order's id: its idempotency token.
    pub(crate) message: String,
    /// No other delivery has it.
    pub(crate) undo_key: String,
}

/// One of the steps.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Persists the token of an order from this source.
    Token(String),
    /// Puts this domain event into the outbox.
    Event(Vec<u8>),
    /// Makes both final.
    Done,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is done, and ours.
    Ours,
    /// The order has had its effect before: there is nothing to do.
    Before,
    /// A later delivery is at it, and this one is not to go on.
    Overtaken,
}

/// The token of a message, as it is in the store.
struct Token {
    is_done: bool,
    undo_key: String,
}

impl Mark {
    async fn token(
        &self,
        transaction: &mut crate::store::Transaction,
    ) -> Result<Option<Token>, StoreError> {
        let sql = "select state, undo_key from tokens where message = $1";
        let rows = transaction.rows(sql, &[Text(&self.message)]).await?;
        let token = rows
            .first()
            .map(|row| Ok(Token { is_done: row.text(0)? == "done", undo_key: row.text(1)? }));
        token.transpose()
    }

    /// Takes the step.
    ///
    /// # Errors
    ///
    /// When the store fails: the step may have been taken all the same.
    ///
    /// # Cancel safety
    ///
    /// The step may have been taken, or be about to be: an undo waits for that.
    pub(crate) async fn take(&self, store: &Store, step: &Step) -> Result<Taken, StoreError> {
        let (message, key) = (Text(&self.message), Text(&self.undo_key));
        let mut transaction = store.begin(&self.message).await?;
        let token = self.token(&mut transaction).await?;
        let is_ours = token.as_ref().is_some_and(|token| token.undo_key == self.undo_key);
        let is_done = token.as_ref().is_some_and(|token| token.is_done);
        match step {
            Step::Token(source) if token.is_none() => {
                let sql = "insert into tokens (message, source, state, undo_key)
                    values ($1, $3, 'begun', $2)";
                transaction.run(sql, &[message, key, Text(source)]).await?;
            }
            // What an earlier delivery has left, or has finished.
            Step::Token(_) => {
                for table in ["tokens", "outbox"] {
                    let sql = format!("update {table} set undo_key = $2 where message = $1");
                    transaction.run(sql, &[message, key]).await?;
                }
            }
            _ if is_done => return Ok(Taken::Before),
            _ if !is_ours => return Ok(Taken::Overtaken),
            Step::Event(body) => {
                let sql = "insert into outbox (message, undo_key, body) select $1, $2, $3
                    where not exists (select 1 from outbox where message = $1)";
                transaction.run(sql, &[message, key, Bytes(body)]).await?;
            }
            Step::Done => {
                let sql = "update tokens set state = 'done' where message = $1";
                transaction.run(sql, &[message]).await?;
            }
        }
        transaction.commit().await?;
        Ok(if is_done { Taken::Before } else { Taken::Ours })
    }

    /// Undoes the step, where it is still this delivery's and the order is not done.
    ///
    /// # Errors
    ///
    /// When the store fails.
    ///
    /// # Cancel safety
    ///
    /// It may have been undone; to undo it again does no harm.
    pub(crate) async fn undo(&self, store: &Store, step: &Step) -> Result<(), StoreError> {
        let tables: &[&str] = match step {
            // With the event that was taken over with it.
            Step::Token(_) => &["outbox", "tokens"],
            Step::Event(_) => &["outbox"],
            // Behind it nothing is undone.
            Step::Done => &[],
        };
        let mut transaction = store.begin(&self.message).await?;
        let token = self.token(&mut transaction).await?;
        if token.is_none_or(|token| !token.is_done) {
            for table in tables {
                let sql = format!("delete from {table} where message = $1 and undo_key = $2");
                transaction.run(sql, &[Text(&self.message), Text(&self.undo_key)]).await?;
            }
        }
        transaction.commit().await
    }
}

/// Deletes what the deliveries of a message have left that is to be a dead letter, which has no effect.
/// `ours` is the key of the delivery that was given up, where its handler was called. Returns whether an
/// effect stays: another delivery has finished the order meanwhile.
///
/// # Errors
///
/// When the store fails.
///
/// # Cancel safety
///
/// It may have been deleted.
pub(crate) async fn bury(
    store: &Store,
    message: &str,
    ours: Option<&str>,
) -> Result<bool, StoreError> {
    let ours = ours.unwrap_or_default();
    let mark = Mark { message: message.to_owned(), undo_key: ours.to_owned() };
    let mut transaction = store.begin(message).await?;
    let token = mark.token(&mut transaction).await?;
    let stays = token.is_some_and(|token| token.is_done && token.undo_key != ours);
    if !stays {
        for table in ["outbox", "tokens"] {
            let sql = format!("delete from {table} where message = $1");
            transaction.run(sql, &[Text(message)]).await?;
        }
    }
    transaction.commit().await?;
    Ok(stays)
}

#[cfg(test)]
mod tests;
