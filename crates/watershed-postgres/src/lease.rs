//! The receipt of a row, and its accept in a transaction of the user's own.

use std::fmt;
use std::sync::Arc;

use sqlx::postgres::{PgConnection, Postgres};
use sqlx::{AssertSqlSafe, Transaction};
use watershed::transport::{Event, Notices, Settled};
use watershed::{Error, ErrorCode, StepContext};

use crate::connection::committed;
use crate::statements::Statements;

/// A row that is leased: what a handler gets by
/// [`step.receipt::<Lease>(0)`](StepContext::receipt). It is ours as long as the row has its token, which
/// the next lease changes.
#[derive(Clone)]
pub struct Lease {
    pub(crate) id: i64,
    pub(crate) token: i64,
    pub(crate) statements: Arc<Statements>,
    /// Of a queue with keys: the drain, which may get the next row of this one's key.
    pub(crate) drain: Option<Notices>,
}

impl Lease {
    /// The id of the row.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Accepts the row as a part of the transaction that `connection` is in, and says whether it was
    /// still ours: `true` where the row goes with the commit. On `false` somebody else has it: roll back.
    ///
    /// [`commit`](Lease::commit) does this and what belongs around it.
    ///
    /// # Errors
    ///
    /// Those of the database. The transaction is to be rolled back then.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it is undone with the transaction.
    pub async fn accept_in(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let accept = AssertSqlSafe(Arc::clone(&self.statements.accept));
        let statement = sqlx::query(accept).bind(self.id).bind(self.token);
        Ok(!statement.fetch_all(connection).await?.is_empty())
    }

    /// Accepts the row in this transaction, commits it, and tells the drain how that went: the effect and
    /// the accept happen together or not at all, and there is no duplicate to be recognised. To be the
    /// last thing that a handler does; what the handler staged before stays.
    ///
    /// A commit without an answer is no error: the message counts as
    /// [unknown](watershed::FanInReport::unknown), and what was committed stays.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Source`] where the row is no longer ours or the database refused, and nothing was
    /// committed; [`ErrorCode::Validation`] where `step` is of no message of a transport.
    ///
    /// # Cancel safety
    ///
    /// Dropped before the commit is sent, everything is rolled back; behind that, the outcome is unknown.
    pub async fn commit(
        &self,
        mut transaction: Transaction<'_, Postgres>,
        step: &StepContext,
    ) -> Result<(), Error> {
        let from_database = |error| Error::from_error(ErrorCode::Source, error);
        if !self.accept_in(&mut transaction).await.map_err(from_database)? {
            return Err(self.lost());
        }
        let settling = step.settling()?;
        let outcome = committed(transaction.commit().await);
        let refused = match &outcome {
            Settled::Refused(error) => Err(error.clone()),
            _ => Ok(()),
        };
        settling.ended(outcome);
        self.is_gone();
        refused
    }

    pub(crate) fn is_gone(&self) {
        if let Some(drain) = &self.drain {
            drain.tell(Event::Ready);
        }
    }

    pub(crate) fn lost(&self) -> Error {
        Error::new(ErrorCode::Source, format!("row {} is no longer leased to us", self.id))
    }

    pub(crate) fn locked(&self) -> Error {
        Error::new(ErrorCode::Source, format!("row {} is locked by another transaction", self.id))
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, token) = (&self.id, &self.token);
        f.debug_struct("Lease").field("id", id).field("token", token).finish_non_exhaustive()
    }
}
