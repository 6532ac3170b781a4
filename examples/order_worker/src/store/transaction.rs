//! A transaction, and the few things that are done in one.
//!
//! An attempt that has taken too long is dropped wherever it is, and what it did is undone by another
//! transaction. That one must not overtake it: a `commit` that is still on its way would come behind its
//! own undo. So every transaction about an order first takes the order's lock, and sends its `commit`
//! only after that was answered. An undo waits for the lock, so whatever it does not see was not, and
//! never will be, committed.
//!
//! A connection that is dropped in the middle is closed, and not given back to the pool: the server
//! rolls back when it hears of that, or when it has heard nothing for too long.

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr, SqlStr};

use super::{Store, StoreError};

/// A transaction. Dropped, it is rolled back.
#[derive(Debug)]
pub(crate) enum Transaction {
    Postgres(Session),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

/// A connection in a transaction.
#[derive(Debug)]
pub(crate) struct Session(Option<PoolConnection<Postgres>>);

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Number(i64),
}

/// A row of an answer.
pub(crate) enum Row {
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

impl Transaction {
    pub(super) async fn begin(store: &Store) -> Result<Self, StoreError> {
        match store {
            Store::Postgres(pool, _) => {
                let begin = "begin isolation level read committed";
                Ok(Self::Postgres(Session::begin(pool, begin).await?))
            }
            // Nobody else writes from here on: there is no other lock to take.
            Store::Sqlite(pool) => Ok(Self::Sqlite(pool.begin_with("begin immediate").await?)),
        }
    }

    pub(super) async fn begin_look(store: &Store) -> Result<Self, StoreError> {
        match store {
            Store::Postgres(pool, _) => {
                let begin = "begin isolation level repeatable read read only";
                Ok(Self::Postgres(Session::begin(pool, begin).await?))
            }
            // It sees the database as it is at the first look.
            Store::Sqlite(pool) => Ok(Self::Sqlite(pool.begin().await?)),
        }
    }

    pub(super) async fn lock(&mut self, name: &str) -> Result<(), StoreError> {
        if let Self::Postgres(_) = self {
            let lock = "select pg_advisory_xact_lock(hashtextextended($1, 0))";
            self.rows(lock, &[Value::Text(name)]).await?;
        }
        Ok(())
    }

    /// Runs a statement, and returns how many rows it has written.
    ///
    /// # Errors
    ///
    /// When the database fails. There is nothing to be done with the transaction then but to drop it.
    pub(crate) async fn run(
        &mut self,
        sql: impl Into<String>,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let sql = AssertSqlSafe(sql.into()).into_sql_str();
        Ok(match self {
            Self::Postgres(session) => {
                postgres(sql, values).execute(session.connection()?).await?.rows_affected()
            }
            Self::Sqlite(transaction) => {
                sqlite(sql, values).execute(&mut **transaction).await?.rows_affected()
            }
        })
    }

    /// Runs a statement, and returns its rows.
    ///
    /// # Errors
    ///
    /// When the database fails. There is nothing to be done with the transaction then but to drop it.
    pub(crate) async fn rows(
        &mut self,
        sql: impl Into<String>,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let sql = AssertSqlSafe(sql.into()).into_sql_str();
        Ok(match self {
            Self::Postgres(session) => {
                let rows = postgres(sql, values).fetch_all(session.connection()?).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
            Self::Sqlite(transaction) => {
                let rows = sqlite(sql, values).fetch_all(&mut **transaction).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
        })
    }

    /// Commits it.
    ///
    /// # Errors
    ///
    /// When the database fails: it may have been committed all the same.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(mut session) => {
                sqlx::query("commit").execute(session.connection()?).await?;
                // Sound again: back to the pool.
                drop(session.0.take());
            }
            Self::Sqlite(transaction) => transaction.commit().await?,
        }
        Ok(())
    }
}

impl Session {
    async fn begin(pool: &PgPool, begin: &'static str) -> Result<Self, StoreError> {
        let mut session = Self(Some(pool.acquire().await?));
        sqlx::query(begin).execute(session.connection()?).await?;
        Ok(session)
    }

    fn connection(&mut self) -> Result<&mut sqlx::PgConnection, StoreError> {
        Ok(self.0.as_deref_mut().ok_or(sqlx::Error::PoolClosed)?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            // Without a farewell: it may be one that does not answer.
            drop(connection.detach());
        }
    }
}

impl Row {
    /// The text in a column.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) fn text(&self, column: usize) -> Result<String, StoreError> {
        Ok(match self {
            Self::Postgres(row) => row.try_get(column)?,
            Self::Sqlite(row) => row.try_get(column)?,
        })
    }

    /// The bytes in a column.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub(crate) fn bytes(&self, column: usize) -> Result<Vec<u8>, StoreError> {
        Ok(match self {
            Self::Postgres(row) => row.try_get(column)?,
            Self::Sqlite(row) => row.try_get(column)?,
        })
    }

    /// The number in a column.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) fn number(&self, column: usize) -> Result<i64, StoreError> {
        Ok(match self {
            Self::Postgres(row) => row.try_get(column)?,
            Self::Sqlite(row) => row.try_get(column)?,
        })
    }
}

/// The same for the two databases, whose types have nothing in common.
macro_rules! statement {
    ($name:ident, $database:ty, $arguments:ty) => {
        fn $name<'q>(sql: SqlStr, values: &[Value<'q>]) -> Query<'q, $database, $arguments> {
            let query = sqlx::query::<$database>(sql);
            values.iter().fold(query, |query, value| match *value {
                Value::Text(text) => query.bind(text),
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Number(number) => query.bind(number),
            })
        }
    };
}

statement!(postgres, Postgres, PgArguments);
statement!(sqlite, Sqlite, SqliteArguments);
