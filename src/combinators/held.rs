//! What belongs to the user while a combinator holds it.

use crate::panics;

/// A value or an operation of the user's whose destructor cannot take the combinator along.
pub(super) struct Held<T>(Option<T>);

impl<T> Held<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// What was held; it is there until it is taken.
    pub(super) fn take(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if self.0.is_some() {
            panics::drop_each(self.0.take());
        }
    }
}
