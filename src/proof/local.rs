//! What a thread of a model keeps for itself, with the methods that `std` has and the checkers lack.

use std::cell::{Cell, RefCell};

use crate::sync::checker::thread::{AccessError, LocalKey};

pub(crate) struct Local<T: 'static>(pub(crate) &'static LocalKey<T>);

impl<T> Local<T> {
    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        self.0.with(look)
    }

    pub(crate) fn try_with<R>(&self, look: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        self.0.try_with(look)
    }
}

impl<T> Local<Cell<T>> {
    pub(crate) fn get(&self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    pub(crate) fn set(&self, value: T) {
        self.with(|cell| cell.set(value));
    }

    pub(crate) fn replace(&self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T> Local<RefCell<T>> {
    pub(crate) fn set(&self, value: T) {
        self.with(|cell| drop(cell.replace(value)));
    }

    pub(crate) fn take(&self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    pub(crate) fn with_borrow_mut<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        self.with(|cell| change(&mut cell.borrow_mut()))
    }
}
