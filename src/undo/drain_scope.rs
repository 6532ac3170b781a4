//! The scope of one run of a drain, between the scopes of its messages and that of its context.
//!
//! What the messages have staged is here while the drain runs. Success drops it, and any other end,
//! a dropped drain included, moves it to the scope of the context. A drain on the step of another
//! drain's message is nested in it: its success belongs to that message, so what it staged goes up
//! to where the message's own actions are, unless that message, and with it everything that was
//! done for it, is final already.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::moves::Ending;
use super::scope::CompensationScope;
use super::state::Forward;

/// The scope of one run of a drain, a child of its context's scope. Dropping it is to
/// [`keep`](DrainScope::keep) what it has.
#[derive(Debug)]
pub(crate) struct DrainScope {
    ways: Arc<Ways>,
    open: bool,
}

/// Where the scopes of a drain's messages may end.
#[derive(Debug)]
pub(super) struct Ways {
    /// The drain's own scope.
    pub(super) drain: CompensationScope,
    /// The scope of the context.
    pub(super) context: CompensationScope,
    /// How many actions were registered after their message had ended. Goes on when the drain has.
    pub(super) late: Arc<AtomicU64>,
}

impl DrainScope {
    pub(crate) fn open(parent: &CompensationScope) -> Self {
        let (drain, context) = (CompensationScope::child_of(parent), parent.clone());
        Self { ways: Arc::new(Ways { drain, context, late: Arc::default() }), open: true }
    }

    /// The drain's own scope.
    pub(crate) fn scope(&self) -> &CompensationScope {
        &self.ways.drain
    }

    pub(super) fn ways(&self) -> &Arc<Ways> {
        &self.ways
    }

    /// How many actions were registered after their message had ended.
    pub(crate) fn late(&self) -> u64 {
        self.ways.late.load(Ordering::Relaxed)
    }

    /// The counter of these.
    pub(crate) fn late_counter(&self) -> &Arc<AtomicU64> {
        &self.ways.late
    }

    /// The drain has succeeded, and what it staged is done with: dropped, or the message's that the
    /// drain is nested in.
    pub(crate) fn commit(mut self) {
        self.open = false;
        // What is nested in a message that is final is final, too.
        let nested = self.ways.context.is_nested();
        let ending = if nested { Ending::DroppedIfFinal } else { Ending::Dropped };
        self.scope().end(self.forward(), &ending).clear();
    }

    /// Moves everything to the scope of the context. What is registered late follows.
    pub(crate) fn keep(self) {
        drop(self);
    }

    fn forward(&self) -> Forward {
        Forward { to: self.ways.context.clone(), is_final: false, late: None }
    }
}

impl Drop for DrainScope {
    fn drop(&mut self) {
        if std::mem::replace(&mut self.open, false) {
            drop(self.scope().end(self.forward(), &Ending::Moved));
        }
    }
}
