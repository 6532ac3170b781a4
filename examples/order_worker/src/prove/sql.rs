//! What the driver itself asks of `PostgreSQL`.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use watershed::BoxError;

use super::faults::Locked;

/// A table that nobody else reads or writes until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    /// The lock is its transaction's, which ends with it.
    _connection: PgConnection,
}

impl Lock {
    /// Waits until the table is free, and takes it.
    ///
    /// # Errors
    ///
    /// When the server does not let it.
    pub(crate) fn take(database: &str, table: Locked) -> Result<Self, BoxError> {
        let table = match table {
            Locked::Tokens => "tokens",
            Locked::Outbox => "outbox",
        };
        smol::block_on(async {
            let mut connection = PgConnection::connect(database).await?;
            connection.execute("set lock_timeout = '5s'").await?;
            connection.execute("begin").await?;
            let lock = format!("lock table {table} in access exclusive mode");
            connection.execute(AssertSqlSafe(lock)).await?;
            Ok(Self { _connection: connection })
        })
    }
}

/// Carries out a statement.
///
/// # Errors
///
/// When the server refuses it.
pub(crate) fn execute(database: &str, statement: &str) -> Result<(), BoxError> {
    smol::block_on(async {
        let mut connection = PgConnection::connect(database).await?;
        connection.execute(AssertSqlSafe(statement.to_owned())).await?;
        connection.close().await?;
        Ok(())
    })
}

/// Whether a statement finds anything; not, either, where its table is missing as yet.
pub(crate) fn finds(database: &str, statement: &'static str) -> bool {
    smol::block_on(async {
        let mut connection = PgConnection::connect(database).await.ok()?;
        connection.fetch_optional(statement).await.ok()?
    })
    .is_some()
}
