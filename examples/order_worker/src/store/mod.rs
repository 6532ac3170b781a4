//! The database in which orders take effect: PostgreSQL or `SQLite`, by the same statements.
//!
//! - here: which one it is, and how it is reached
//! - `transaction`: transactions that end for certain when their handler is dropped
//! - `schema`: the tables
//! - `trouble`: what an error of it means

mod schema;
#[cfg(test)]
mod tests;
mod transaction;
mod trouble;

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};

pub(crate) use transaction::{Transaction, Value};
pub(crate) use trouble::{StoreError, reach};

/// How long another one's transaction on a file of `SQLite`'s is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// The database. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    /// With its URL.
    Postgres(PgPool, Arc<str>),
    Sqlite(SqlitePool),
}

impl Store {
    /// The database at `url`, which is not reached yet. So many use it at once, and none of them waits
    /// longer than `patience` for a connection, nor the server for a statement or for the next one of a
    /// transaction.
    ///
    /// # Errors
    ///
    /// When the URL is none of a database.
    pub(crate) fn open(url: &str, users: usize, patience: Duration) -> Result<Self, StoreError> {
        let most = u32::try_from(users).unwrap_or(u32::MAX).saturating_add(2);
        if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url)?
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .busy_timeout(BUSY);
            // One connection: one writes at a time anyway, and what is in memory is that connection's.
            let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None);
            let pool = pool.max_lifetime(None).acquire_timeout(patience.max(BUSY));
            return Ok(Self::Sqlite(pool.connect_lazy_with(options)));
        }
        let limit = format!("{}ms", patience.as_millis());
        let options = PgConnectOptions::from_str(url)?.application_name("order_worker").options([
            ("statement_timeout", &limit),
            ("idle_in_transaction_session_timeout", &limit),
        ]);
        let pool = PgPoolOptions::new().max_connections(most).acquire_timeout(patience / 2);
        Ok(Self::Postgres(pool.connect_lazy_with(options), url.into()))
    }

    /// Whether it is there.
    ///
    /// # Errors
    ///
    /// When it is not, with the reason.
    pub(crate) async fn reach(&self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(_, url) => reach(url).await,
            Self::Sqlite(pool) => reach_file(pool).await,
        }
    }

    /// Makes the tables that are missing.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) async fn create_tables(&self) -> Result<(), StoreError> {
        self.reach().await?;
        let mut transaction = self.begin("the tables of the order worker").await?;
        for statement in schema::statements(self) {
            transaction.run(statement, &[]).await?;
        }
        transaction.commit().await
    }

    /// Begins a transaction that is alone with what `lock` names: another one with the same name begins
    /// when this one has ended.
    ///
    /// # Errors
    ///
    /// When the database fails.
    ///
    /// # Cancel safety
    ///
    /// Dropped, here or later, it is rolled back.
    pub(crate) async fn begin(&self, lock: &str) -> Result<Transaction, StoreError> {
        let mut transaction = Transaction::begin(self).await?;
        transaction.lock(lock).await?;
        Ok(transaction)
    }

    /// Begins a transaction that sees all as it is at one moment, and writes nothing.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) async fn look(&self) -> Result<Transaction, StoreError> {
        Transaction::begin_look(self).await
    }

    /// Gives back what is open.
    pub(crate) async fn close(&self) {
        match self {
            Self::Postgres(pool, _) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}

/// Of several that begin at once on a new file, one makes its write-ahead log. The others are told at
/// once that it is busy, whatever `busy_timeout` is: they ask again.
async fn reach_file(pool: &SqlitePool) -> Result<(), StoreError> {
    let began = Instant::now();
    loop {
        match pool.acquire().await {
            Ok(_) => return Ok(()),
            Err(error) if trouble::is_busy(&error) && began.elapsed() < BUSY => {
                smol::Timer::after(Duration::from_millis(5)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
