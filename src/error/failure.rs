//! An error together with what is known all the same.
//!
//! A failure that was boxed has to tell its error, whatever its report is, and a box can be asked for
//! a type only by its full name. So each failure keeps its error in a type without parameters, and
//! answers with that where it is asked for its `cause`: the old name of `source`, by which chains are
//! not followed any more.

use std::error::Error as StdError;
use std::fmt;

use super::{BoxError, Error};
use crate::panics;

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
pub struct Failure<R>(Box<FailureParts<R>>);

#[derive(Clone)]
struct FailureParts<R> {
    error: Beside,
    report: R,
}

/// The answer of a failure whose report is not known: its source is what was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct Beside(#[source] Own);

#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
struct Own(Error);

impl<R> Failure<R> {
    /// What went wrong, and what is known of the operation.
    #[must_use]
    pub fn new(error: Error, report: R) -> Self {
        Self(Box::new(FailureParts { error: Beside(Own(error)), report }))
    }

    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.0.error.0.0
    }

    /// What the operation did before it failed.
    #[must_use]
    pub fn report(&self) -> &R {
        &self.0.report
    }

    /// The error and the report, each by value.
    #[must_use]
    pub fn into_parts(self) -> (Error, R) {
        let FailureParts { error: Beside(Own(error)), report } = *self.0;
        (error, report)
    }

    /// The error alone.
    #[must_use]
    pub fn into_error(self) -> Error {
        self.into_parts().0
    }
}

/// The library's own error that was boxed, by itself or with the report of an operation.
pub(super) fn own_error(cause: BoxError) -> Result<Error, BoxError> {
    let cause = match cause.downcast::<Error>() {
        Ok(error) => return Ok(*error),
        Err(cause) => cause,
    };
    let Some(error) = error_beside(&*cause).cloned() else { return Err(cause) };
    panics::drop_each([cause]);
    Ok(error)
}

#[expect(deprecated, reason = "no other question leads to a type that can be named")]
fn error_beside<'a>(failure: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let own = failure.cause()?.source()?.downcast_ref::<Own>()?;
    Some(&own.0)
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

    fn cause(&self) -> Option<&dyn StdError> {
        Some(&self.0.error)
    }
}

/// The error alone; the report is dropped.
impl<R> From<Failure<R>> for Error {
    fn from(failure: Failure<R>) -> Self {
        failure.into_error()
    }
}
