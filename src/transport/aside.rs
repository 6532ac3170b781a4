//! Somebody else's code, put aside until the lock of a transport is free.

use std::task::Waker;

use super::Transport;
use super::entries::KeptReceipt;
use super::part::Part;
use crate::error::Error;

/// What is to be woken and dropped.
pub(super) struct Aside<T: Transport> {
    /// Those who are woken.
    pub(super) wakers: Vec<Waker>,
    /// Those in whose place another one waits.
    pub(super) old_wakers: Vec<Waker>,
    pub(super) messages: Vec<T::Message>,
    pub(super) receipts: Vec<KeptReceipt<T::Receipt>>,
    pub(super) parts: Vec<Part<T::Message>>,
    pub(super) errors: Vec<Error>,
}

impl<T: Transport> Default for Aside<T> {
    fn default() -> Self {
        Self {
            wakers: Vec::new(),
            old_wakers: Vec::new(),
            messages: Vec::new(),
            receipts: Vec::new(),
            parts: Vec::new(),
            errors: Vec::new(),
        }
    }
}

impl<T: Transport> Aside<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.wakers.is_empty()
            && self.old_wakers.is_empty()
            && self.messages.is_empty()
            && self.receipts.is_empty()
            && self.parts.is_empty()
            && self.errors.is_empty()
    }
}
