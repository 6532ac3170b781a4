//! Connections of the user's pool, and what their errors mean.
//!
//! Every statement is a transaction of its own, with its `begin` and its `commit`: then whatever fails
//! before the commit is sent was certainly not applied, also where the connection breaks.

use sqlx::postgres::{PgArguments, PgDatabaseError, PgPool, PgRow, PgSeverity, Postgres};
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
}

impl Lent {
    pub(crate) async fn from(pool: &PgPool) -> Result<Self, Failed> {
        let connection = Some(pool.acquire().await.map_err(Failed::before_commit)?);
        Ok(Self { connection, is_sound: true })
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// Runs one statement in a transaction of its own, whatever the session's isolation is.
    pub(crate) async fn run(&mut self, statement: Statement<'_>) -> Result<Vec<PgRow>, Failed> {
        self.is_sound = false;
        let result = self.transaction(statement).await;
        self.is_sound = result.as_ref().err().is_none_or(|failed| failed.leaves_a_connection);
        result
    }

    async fn transaction(&mut self, statement: Statement<'_>) -> Result<Vec<PgRow>, Failed> {
        let Some(connection) = &mut self.connection else {
            return Err(Failed::before_commit(sqlx::Error::PoolClosed));
        };
        let begin = "begin isolation level read committed";
        let mut transaction = connection.begin_with(begin).await.map_err(Failed::before_commit)?;
        let rows = statement.fetch_all(&mut *transaction).await.map_err(Failed::before_commit)?;
        transaction.commit().await.map_err(Failed::at_commit)?;
        Ok(rows)
    }
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
    /// Whatever it is: the server forgets a transaction that is not committed.
    pub(crate) fn before_commit(error: sqlx::Error) -> Self {
        Self::new(error, true)
    }

    fn at_commit(error: sqlx::Error) -> Self {
        let is_certain = is_answered(&error);
        Self::new(error, is_certain)
    }

    /// It was applied, and its answer cannot be read.
    pub(crate) fn behind_commit(error: sqlx::Error) -> Self {
        Self::new(error, false)
    }

    fn new(error: sqlx::Error, is_certain: bool) -> Self {
        let (lasts, leaves_a_connection) = (lasts(&error), leaves_a_connection(&error));
        let error = Error::from_error(ErrorCode::Source, error);
        Self { error, is_certain, lasts, leaves_a_connection }
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
