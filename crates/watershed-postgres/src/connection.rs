//! Connections of the user's pool, and what their errors mean.
//!
//! Every statement is a transaction of its own, READ COMMITTED whatever the session does by default.

use sqlx::postgres::{
    PgArguments, PgConnection, PgDatabaseError, PgPool, PgRow, PgSeverity, Postgres,
};
use sqlx::query::Query;
use sqlx::{Connection, pool::PoolConnection};
use watershed::transport::{Settled, Trouble};
use watershed::{Error, ErrorCode};

/// A statement with its values.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A connection that goes back to its pool, unless something went wrong with it: then it is closed.
/// What is dropped in the middle of a transaction would take that along into the pool.
#[derive(Debug)]
pub(crate) struct Lent {
    connection: Option<PoolConnection<Postgres>>,
    is_sound: bool,
    /// Whether that is what the session does by default. `None`: not asked yet.
    reads_committed: Option<bool>,
}

impl Lent {
    pub(crate) async fn from(pool: &PgPool) -> Result<Self, Failed> {
        let connection = Some(pool.acquire().await.map_err(Failed::without_connection)?);
        Ok(Self { connection, is_sound: true, reads_committed: None })
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// Runs one statement between a `begin` and a `commit`: what fails before the commit is sent was
    /// certainly not applied, also where the connection breaks.
    pub(crate) async fn run(&mut self, statement: Statement<'_>) -> Result<Vec<PgRow>, Failed> {
        let connection = self.begin()?;
        let result = in_transaction(connection, statement).await;
        self.end(result)
    }

    /// Runs one statement in one round trip, where the session's default allows it. For what can be
    /// said again where an answer is missing.
    pub(crate) async fn run_bare(
        &mut self,
        statement: Statement<'_>,
    ) -> Result<Vec<PgRow>, Failed> {
        let known = self.reads_committed;
        let connection = self.begin()?;
        let asked = match known {
            Some(known) => Ok(known),
            None => reads_committed_by_default(connection).await,
        };
        let known = asked.as_ref().ok().copied();
        let result = match asked {
            Ok(true) => statement.fetch_all(connection).await.map_err(Failed::at_commit),
            Ok(false) => in_transaction(connection, statement).await,
            Err(failed) => Err(failed),
        };
        self.reads_committed = known;
        self.end(result)
    }

    /// Whoever is dropped between this and [`end`](Self::end) leaves it in the middle of something.
    fn begin(&mut self) -> Result<&mut PgConnection, Failed> {
        let closed = || Failed::before_commit(sqlx::Error::PoolClosed);
        self.is_sound = false;
        self.connection.as_deref_mut().ok_or_else(closed)
    }

    fn end<T>(&mut self, result: Result<T, Failed>) -> Result<T, Failed> {
        self.is_sound = result.as_ref().err().is_none_or(|failed| failed.leaves_a_connection);
        result
    }
}

async fn in_transaction(
    connection: &mut PgConnection,
    statement: Statement<'_>,
) -> Result<Vec<PgRow>, Failed> {
    let begin = "begin isolation level read committed";
    let mut transaction = connection.begin_with(begin).await.map_err(Failed::before_commit)?;
    let rows = statement.fetch_all(&mut *transaction).await.map_err(Failed::before_commit)?;
    transaction.commit().await.map_err(Failed::at_commit)?;
    Ok(rows)
}

async fn reads_committed_by_default(connection: &mut PgConnection) -> Result<bool, Failed> {
    let level = sqlx::query_scalar::<_, String>("show default_transaction_isolation");
    let level = level.fetch_one(connection).await.map_err(Failed::before_commit)?;
    Ok(level == "read committed")
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take_if(|_| !self.is_sound) {
            // Without a farewell: it may be one that does not answer.
            drop(connection.detach());
        }
    }
}

/// A statement that failed, and what that says.
#[derive(Debug)]
pub(crate) struct Failed {
    error: Error,
    /// It was certainly not applied.
    is_certain: bool,
    /// Another try fails in the same way.
    lasts: bool,
    leaves_a_connection: bool,
}

impl Failed {
    /// There was none to lose.
    fn without_connection(error: sqlx::Error) -> Self {
        Self { leaves_a_connection: true, ..Self::before_commit(error) }
    }

    /// Whatever it is: the server forgets a transaction that is not committed.
    pub(crate) fn before_commit(error: sqlx::Error) -> Self {
        Self::new(error, true)
    }

    /// It failed where the server commits.
    fn at_commit(error: sqlx::Error) -> Self {
        let is_certain = is_answered(&error);
        Self::new(error, is_certain)
    }

    /// It was applied, and its answer cannot be read.
    pub(crate) fn behind_commit(error: sqlx::Error) -> Self {
        Self::new(error, false)
    }

    /// It was about something else that was not applied.
    pub(crate) fn not_applied(self) -> Self {
        Self { is_certain: true, ..self }
    }

    fn new(error: sqlx::Error, is_certain: bool) -> Self {
        let (lasts, leaves_a_connection) = (lasts(&error), leaves_a_connection(&error));
        let error = Error::from_error(ErrorCode::Source, error);
        Self { error, is_certain, lasts, leaves_a_connection }
    }

    pub(crate) fn is_certain(&self) -> bool {
        self.is_certain
    }

    /// Its connection is gone: a new one may know better.
    pub(crate) fn broke_a_connection(&self) -> bool {
        !self.leaves_a_connection
    }

    pub(crate) fn error(&self) -> Error {
        self.error.clone()
    }

    pub(crate) fn settled(&self) -> Settled {
        let error = self.error();
        if self.is_certain { Settled::Refused(error) } else { Settled::Unknown(error) }
    }

    pub(crate) fn into_trouble(self) -> Trouble {
        if self.lasts { Trouble::Lasts(self.error) } else { Trouble::Passes(self.error) }
    }
}

/// What became of a transaction of the user's own, from the result of its commit.
pub(crate) fn committed(result: Result<(), sqlx::Error>) -> Settled {
    result.map_or_else(|error| Failed::at_commit(error).settled(), |()| Settled::Confirmed)
}

fn from_server(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// Whether the server itself answered a commit with no: it went on, and did not only say good-bye.
fn is_answered(error: &sqlx::Error) -> bool {
    from_server(error).is_some_and(|error| {
        // 40003: the server does not know itself; 08: a proxy in between says that it lost the server.
        let unsure = error.code() == "40003" || error.code().starts_with("08");
        error.severity() == PgSeverity::Error && !unsure
    })
}

/// 25006: the server writes nothing, since it is a standby, or became one. Its name may lead to the new
/// primary by now, but only a new connection goes there.
fn leaves_a_connection(error: &sqlx::Error) -> bool {
    from_server(error)
        .is_some_and(|error| error.severity() == PgSeverity::Error && error.code() != "25006")
}

/// What somebody has to mend first: no such table (42, 3F), database (3D), user (28); not allowed (42).
fn lasts(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Configuration(_)
        | sqlx::Error::PoolClosed
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_) => true,
        error => from_server(error).is_some_and(|error| {
            ["28", "3D", "3F", "42"].iter().any(|class| error.code().starts_with(class))
        }),
    }
}
