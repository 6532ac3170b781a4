//! What a drain says to a source that it cannot settle with.

use crate::error::Error;
use crate::lock::Lock;
use crate::panics;

/// Shared by all that add to one drain: the first that is refused goes back by its handle, and the next
/// ones are not added.
#[derive(Debug, Default)]
pub struct Refusal(Lock<Option<Error>>);

impl Refusal {
    pub(crate) fn refuse(&self, error: Error) {
        let old = self.0.lock().replace(error);
        panics::drop_each(old);
    }

    pub(super) fn error(&self) -> Option<Error> {
        self.0.lock().clone()
    }
}
