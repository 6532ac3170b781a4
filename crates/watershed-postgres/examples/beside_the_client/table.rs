//! A queue's table with messages.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions};
use watershed::BoxError;
use watershed_postgres::{LeasedRows, NewRow};

pub(crate) struct Table {
    pub(crate) pool: PgPool,
    pub(crate) name: String,
    pub(crate) messages: u32,
}

impl Table {
    pub(crate) async fn open(url: &str, name: String) -> Result<Self, BoxError> {
        let pool = PgPoolOptions::new().max_connections(8).connect(url).await?;
        Ok(Self { pool, name, messages: 0 })
    }

    /// A new one without messages.
    pub(crate) async fn new(url: &str) -> Result<Self, BoxError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let table = Self::open(url, format!("measured_{}_{number}", std::process::id())).await?;
        table.queue().create().await?;
        Ok(table)
    }

    pub(crate) async fn filled(url: &str, messages: u32) -> Result<Self, BoxError> {
        let table = Self::new(url).await?;
        table.fill(messages).await?;
        Ok(Self { messages, ..table })
    }

    pub(crate) async fn fill(&self, messages: u32) -> Result<(), BoxError> {
        let mut transaction = self.pool.begin().await?;
        let bodies: Vec<_> = (0..messages).map(|number| number.to_string()).collect();
        // Whoever listens is told.
        let queue = self.queue().listen();
        queue.enqueue(&mut transaction, bodies.iter().map(NewRow::new)).await?;
        transaction.commit().await?;
        // What filled it is on the disk before anybody is measured.
        sqlx::query("checkpoint").execute(&self.pool).await?;
        Ok(())
    }

    pub(crate) fn queue(&self) -> LeasedRows {
        LeasedRows::new(self.pool.clone(), &self.name)
    }

    pub(crate) async fn is_empty(&self) -> Result<(), BoxError> {
        let count = AssertSqlSafe(format!("select count(*) from {}", self.name));
        match sqlx::query_scalar::<_, i64>(count).fetch_one(&self.pool).await? {
            0 => Ok(()),
            left => Err(format!("{left} rows are left").into()),
        }
    }

    pub(crate) async fn drop(&self) -> Result<(), BoxError> {
        for table in [self.name.clone(), format!("{}_dead", self.name)] {
            sqlx::query(AssertSqlSafe(format!("drop table {table}"))).execute(&self.pool).await?;
        }
        self.pool.close().await;
        Ok(())
    }
}
