//! What a thread of a model keeps for itself, with what the library uses of `std`.

use crate::sync::checker::thread::{AccessError, LocalKey};

pub(crate) struct Local<T: 'static>(pub(crate) &'static LocalKey<T>);

impl<T> Local<T> {
    pub(crate) fn try_with<R>(&self, look: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        self.0.try_with(look)
    }
}
