//! What an error of the database means for an order.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};

/// Why a database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the database did not do it")]
    Failed(#[from] sqlx::Error),
    #[error("PostgreSQL cannot be reached at {at}: start it, or mend the url in the configuration")]
    Unreached { at: String, source: sqlx::Error },
}

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl StoreError {
    fn cause(&self) -> &sqlx::Error {
        match self {
            Self::Failed(cause) | Self::Unreached { source: cause, .. } => cause,
        }
    }

    /// Whether it is the order itself that the store does not take: a value that is too long, say, or
    /// has a character that no text may have. Everything else is trouble that passes, or that
    /// somebody has to mend; the order is as good as before.
    pub(crate) fn is_about_the_order(&self) -> bool {
        // Classes of PostgreSQL: data exception, integrity constraint. SQLite: too big, constraint.
        code_of(self.cause()).is_some_and(|code| match &*code {
            code if code.len() == 5 => code.starts_with("22") || code.starts_with("23"),
            code => matches!(primary(code), Some(18 | 19)),
        })
    }

    /// Whether it is the configuration: no such database, user or schema.
    pub(crate) fn lasts(&self) -> bool {
        match self.cause() {
            sqlx::Error::Configuration(_) => true,
            error => code_of(error).is_some_and(|code| {
                let classes = ["28", "3D", "3F", "42"];
                code.len() == 5 && classes.iter().any(|class| code.starts_with(class))
            }),
        }
    }
}

fn code_of(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error()?.code()
}

/// The class of an error of `SQLite`'s.
fn primary(code: &str) -> Option<u32> {
    code.parse().ok().map(|code: u32| code & 0xff)
}

/// Whether it is that somebody else holds `SQLite`'s file.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    code_of(error).is_some_and(|code| primary(&code) == Some(5))
}

/// Tries a connection to PostgreSQL by itself: a pool that gives none does not say why.
///
/// # Errors
///
/// When there is none.
pub(crate) async fn reach(url: &str) -> Result<(), StoreError> {
    let options = PgConnectOptions::from_str(url)?;
    let at = format!("{}:{}", options.get_host(), options.get_port());
    let connected = async { PgConnection::connect_with(&options).await?.close().await };
    let late = async {
        smol::Timer::after(PATIENCE).await;
        Err(sqlx::Error::PoolTimedOut)
    };
    let reached = smol::future::or(connected, late).await;
    reached.map_err(|source| StoreError::Unreached { at, source })
}
