//! What a continuation returns.

use crate::error::{BoxError, Error, ErrorCode};
use crate::outcome::Compensated;
use crate::undo::CompensationScope;

/// What the continuation of a case may return where the select gives a `T`: `Result<T, E>` or
/// `Result<Compensated<T>, E>`, with any error `E` that converts into a [`BoxError`].
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::stream;
/// use watershed::{BoxError, Compensated, StepContext, channels};
///
/// let context = StepContext::new("worker");
/// let mut select = channels::select::<u32>(&context).case(stream::iter([17]), async |seat, _| {
///     Ok::<_, BoxError>(Compensated::new(seat).with_compensation(async || { /* free it */ }))
/// });
/// assert_eq!((select.run().await?, context.scope().clear()), (17, 1));
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub trait CaseOutput<T> {
    /// The result, its compensations staged on the scope of the run and its error wrapped.
    ///
    /// # Errors
    ///
    /// When the continuation failed.
    fn settle(self, scope: &CompensationScope) -> Result<T, Error>;
}

impl<T, E: Into<BoxError>> CaseOutput<T> for Result<T, E> {
    fn settle(self, _: &CompensationScope) -> Result<T, Error> {
        self.map_err(|error| Error::from_error(ErrorCode::Handler, error))
    }
}

impl<T, E: Into<BoxError>> CaseOutput<T> for Result<Compensated<T>, E> {
    fn settle(self, scope: &CompensationScope) -> Result<T, Error> {
        match self {
            Ok(compensated) => Ok(compensated.absorb_into(scope)),
            Err(error) => Err(Error::from_error(ErrorCode::Handler, error)),
        }
    }
}
