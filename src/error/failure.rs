//! An error together with what is known all the same.

use std::error::Error as StdError;
use std::fmt;

use super::{BoxError, Error};
use crate::channels::BroadcastReport;
use crate::drain::FanInReport;
use crate::group::GroupReport;
use crate::undo::RollbackReport;

/// An [`Error`] and the report of the operation that failed with it: of a drain, of a group, of a
/// broadcast, of a rollback.
///
/// It is one pointer, prints as its error does, also with `{:#}`, and becomes its error by `?`.
///
/// ```
/// use watershed::{Error, Failure};
///
/// /// An import that fails with the number of rows that were stored.
/// fn import() -> Result<(), Failure<u32>> {
///     Err(Failure::new(Error::validation("row 18 has no date").with_source("empty field"), 17))
/// }
/// fn nightly() -> Result<(), Error> {
///     Ok(import()?)
/// }
///
/// let failure = import().unwrap_err();
/// assert_eq!(*failure.report(), 17);
/// assert_eq!(format!("{failure:#}"), "row 18 has no date: empty field");
/// assert_eq!(nightly().unwrap_err().code(), failure.error().code());
/// ```
#[derive(Clone)]
pub struct Failure<R>(Box<Parts<R>>);

#[derive(Clone)]
struct Parts<R> {
    error: Error,
    report: R,
}

impl<R> Failure<R> {
    /// What went wrong, and what is known of the operation.
    #[must_use]
    pub fn new(error: Error, report: R) -> Self {
        Self(Box::new(Parts { error, report }))
    }

    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.0.error
    }

    /// What the operation did before it failed.
    #[must_use]
    pub fn report(&self) -> &R {
        &self.0.report
    }

    /// The error and the report, each by value.
    #[must_use]
    pub fn into_parts(self) -> (Error, R) {
        let Parts { error, report } = *self.0;
        (error, report)
    }

    /// The error alone.
    #[must_use]
    pub fn into_error(self) -> Error {
        self.0.error
    }
}

/// The library's own error that was boxed, by itself or with the report of an operation.
pub(super) fn own_error(cause: BoxError) -> Result<Error, BoxError> {
    let error = cause.downcast::<Error>().map(|error| *error);
    error
        .or_else(error_beside::<FanInReport>)
        .or_else(error_beside::<RollbackReport>)
        .or_else(error_beside::<GroupReport>)
        .or_else(error_beside::<BroadcastReport>)
}

fn error_beside<R: fmt::Debug + 'static>(cause: BoxError) -> Result<Error, BoxError> {
    cause.downcast::<Failure<R>>().map(|failure| failure.into_error())
}

/// Prints as its error does.
impl<R> fmt::Display for Failure<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.error(), f)
    }
}

impl<R: fmt::Debug> fmt::Debug for Failure<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("error", self.error())
            .field("report", self.report())
            .finish()
    }
}

/// Its cause is that of its error.
impl<R: fmt::Debug> StdError for Failure<R> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error().source()
    }
}

/// The error alone; the report is dropped.
impl<R> From<Failure<R>> for Error {
    fn from(failure: Failure<R>) -> Self {
        failure.into_error()
    }
}
