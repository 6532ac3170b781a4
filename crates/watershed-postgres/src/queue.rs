//! A queue of leased rows: its options, its tables, and what is put into it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Row as _};
use watershed::transport::Notices;
use watershed::{Error, ErrorCode};

use crate::held::Held;
use crate::hint::Hints;
use crate::statements::{Names, Statements};

/// A table of messages, each leased to one process at a time: a
/// [`Transport`](watershed::transport::Transport).
///
/// | option | default |
/// | --- | --- |
/// | [`lease`](LeasedRows::lease) | 30 seconds |
/// | [`key_column`](LeasedRows::key_column) | none: no order |
/// | [`dead_letters_in`](LeasedRows::dead_letters_in) | the table's name with `_dead` behind it |
/// | [`prefetch`](LeasedRows::prefetch) | 16 rows |
/// | [`batch`](LeasedRows::batch) | 100 settlements |
/// | [`asks_every`](LeasedRows::asks_every) | 1 second |
/// | [`listen`](LeasedRows::listen) | no |
///
/// An option that cannot be, a name that cannot be one, and a pool that is too small are
/// [`ErrorCode::Validation`], before anything is fetched.
///
/// ```no_run
/// # async fn run(pool: sqlx::PgPool) -> Result<(), watershed::BoxError> {
/// use std::time::Duration;
/// use watershed::transport::Link;
/// use watershed::{BoxError, StepContext, fan_in};
/// use watershed_postgres::LeasedRows;
///
/// let queue = LeasedRows::new(pool, "orders").lease(Duration::from_secs(30)).key_column("customer");
/// queue.create().await?;
/// let link = Link::new(queue);
/// fan_in(&StepContext::new("orders"), [link.source()], async |body: Vec<u8>, _| {
///     println!("{}", String::from_utf8(body)?);
///     Ok::<_, BoxError>(())
/// })
/// .await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct LeasedRows {
    pub(crate) pool: PgPool,
    pub(crate) options: Options,
    statements: Result<Arc<Statements>, Error>,
    pub(crate) held: Held,
    pub(crate) hints: Hints,
    pub(crate) notices: Notices,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) names: Names,
    pub(crate) lease: Duration,
    pub(crate) prefetch: usize,
    pub(crate) batch: usize,
    pub(crate) asks_every: Duration,
    pub(crate) listens: bool,
}

impl LeasedRows {
    /// The table of this name, `orders` or `shop.orders`, in the database that the pool leads to.
    #[must_use]
    pub fn new(pool: PgPool, table: impl Into<String>) -> Self {
        let names = Names { table: table.into(), dead: None, key: None };
        let statements = Statements::new(&names).map(Arc::new);
        let options = Options {
            names,
            lease: Duration::from_secs(30),
            prefetch: 16,
            batch: 100,
            asks_every: Duration::from_secs(1),
            listens: false,
        };
        let (held, hints, notices) = (Held::default(), Hints::default(), Notices::new());
        Self { pool, options, statements, held, hints, notices }
    }

    /// How long a row is ours. It is renewed from a third of that on: what counts is how long a process
    /// may be away before others get what it had.
    #[must_use]
    pub fn lease(self, term: Duration) -> Self {
        self.with(|options| options.lease = term)
    }

    /// The column (of type `text`) whose values are keys: rows of one key are handled one after another,
    /// in the order of their ids, over all processes; those of different keys at once, without being
    /// asked ([`Able::groups`](watershed::transport::Able::groups)). A row without a key waits for none.
    #[must_use]
    pub fn key_column(self, column: impl Into<String>) -> Self {
        self.with(|options| options.names.key = Some(column.into()))
    }

    /// The table that rejected rows are moved to.
    #[must_use]
    pub fn dead_letters_in(self, table: impl Into<String>) -> Self {
        self.with(|options| options.names.dead = Some(table.into()))
    }

    /// The most rows of one source that are leased and not handed to a handler.
    #[must_use]
    pub fn prefetch(self, rows: usize) -> Self {
        self.with(|options| options.prefetch = rows)
    }

    /// The most rows that are settled or renewed in one statement.
    #[must_use]
    pub fn batch(self, rows: usize) -> Self {
        self.with(|options| options.batch = rows)
    }

    /// How soon an empty queue is asked again: for what nobody gives a hint of, such as a lease that
    /// runs out or a delay that is over.
    #[must_use]
    pub fn asks_every(self, interval: Duration) -> Self {
        self.with(|options| options.asks_every = interval)
    }

    /// [Enqueueing](LeasedRows::enqueue) sends a `NOTIFY` whose channel is the table's name, and whoever
    /// waits for rows listens for it, on one more connection of the pool. To be said on both sides.
    #[must_use]
    pub fn listen(self) -> Self {
        self.with(|options| options.listens = true)
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self.statements = Statements::new(&self.options.names).map(Arc::new);
        self
    }

    pub(crate) fn statements(&self) -> Result<&Arc<Statements>, Error> {
        self.statements.as_ref().map_err(Clone::clone)
    }

    /// The tables of the queue, as SQL: for a migration. All of it is `if not exists`.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Validation`] for a name that cannot be one.
    pub fn schema(&self) -> Result<String, Error> {
        Ok(self.statements()?.schema.clone())
    }

    /// Makes the tables of the queue where there are none.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Validation`] for a name that cannot be one, and for one that something else has: a
    /// table without the columns of a queue. [`ErrorCode::Source`] from the database. Nothing was made then.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has made all of them or none.
    pub async fn create(&self) -> Result<(), Error> {
        let Statements { schema, check, .. } = &**self.statements()?;
        // Without parameters all of it is one transaction.
        let made = sqlx::raw_sql(AssertSqlSafe(format!("{schema}{check}")));
        made.execute(&self.pool).await.map(drop).map_err(|cause| match cause.as_database_error() {
            Some(error) if error.code().as_deref() == Some(UNDEFINED_COLUMN) => {
                let table = &self.options.names.table;
                let text =
                    format!("a table that is no queue is there already: `{table}`, or its letters");
                Error::validation(text).with_source(cause)
            }
            _ => from_database(cause),
        })
    }

    /// Puts rows into the queue, as a part of the transaction that `connection` is in: they are there
    /// when it commits, in this order. Returns their ids.
    ///
    /// Whoever enqueues a row of a key holds that key until the transaction ends; others that enqueue
    /// rows of it wait.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Validation`] for a row with a key where there is no
    /// [key column](LeasedRows::key_column), [`ErrorCode::Source`] from the database: the transaction is
    /// to be rolled back then.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it is undone with the transaction.
    pub async fn enqueue<'a>(
        &self,
        connection: &mut PgConnection,
        rows: impl IntoIterator<Item = NewRow<'a>>,
    ) -> Result<Vec<i64>, Error> {
        let statements = self.statements()?;
        let (mut keys, mut bodies, mut delays) = (Vec::new(), Vec::new(), Vec::new());
        for NewRow { body, key, after } in rows {
            if key.is_some() && self.options.names.key.is_none() {
                let text = "a row has a key, and the queue has no `key_column`";
                return Err(Error::validation(text));
            }
            keys.push(key);
            bodies.push(body);
            delays.push(after.as_secs_f64());
        }
        let table = &self.options.names.table;
        let statement = sqlx::query(AssertSqlSafe(Arc::clone(&statements.enqueue)));
        let statement = statement.bind(keys).bind(bodies).bind(delays).bind(table);
        let rows = statement.fetch_all(&mut *connection).await.map_err(from_database)?;
        if self.options.listens {
            let notify = sqlx::query("select pg_notify($1, '')").bind(table);
            notify.fetch_all(connection).await.map_err(from_database)?;
        }
        rows.iter().map(|row| row.try_get("id").map_err(from_database)).collect()
    }
}

const UNDEFINED_COLUMN: &str = "42703";

fn from_database(error: sqlx::Error) -> Error {
    Error::from_error(ErrorCode::Source, error)
}

/// A row to be [enqueued](LeasedRows::enqueue).
///
/// ```
/// use std::time::Duration;
/// use watershed_postgres::NewRow;
///
/// let order = NewRow::new(b"{}").key("customer-7").after(Duration::from_secs(60));
/// # drop(order);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct NewRow<'a> {
    body: &'a [u8],
    key: Option<&'a str>,
    after: Duration,
}

impl<'a> NewRow<'a> {
    /// A message, which is handed on byte for byte.
    pub fn new<B: AsRef<[u8]> + ?Sized>(body: &'a B) -> Self {
        Self { body: body.as_ref(), key: None, after: Duration::ZERO }
    }

    /// It waits for the rows of this key that were enqueued before.
    pub fn key(mut self, key: &'a str) -> Self {
        self.key = Some(key);
        self
    }

    /// It is not leased before so long from now.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }
}
