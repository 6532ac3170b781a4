//! What a drain does with the scope of its messages.

use std::sync::Arc;

use super::columns::Columns;
use super::drain_scope::{DrainScope, Ways};
use super::moves::Ending;
use super::scope::CompensationScope;
use super::state::Forward;

/// The drain's side of the scope that serves one message after another in a slot.
pub(crate) struct MessageScope {
    ways: Arc<Ways>,
    /// What becomes of the actions below the mark, while there is one.
    ended: Option<EndedMessage>,
    /// Columns without actions, to be exchanged for those of the scope.
    spare: Option<Box<Columns>>,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndedMessage {
    Committed,
    Kept,
}

impl MessageScope {
    pub(crate) fn new(drain: &DrainScope) -> Self {
        Self { ways: Arc::clone(drain.ways()), ended: None, spare: None, over: false }
    }

    /// Whether the scope was let go.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Marks everything in the scope as that of messages which have ended.
    #[inline]
    pub(crate) fn end_later(&mut self, scope: &CompensationScope, committed: bool) {
        let ended = if committed { EndedMessage::Committed } else { EndedMessage::Kept };
        if self.ended != Some(ended) {
            self.change(scope, ended);
        }
        scope.inner.set_mark();
    }

    /// What is below the mark has one destination at a time.
    #[cold]
    fn change(&mut self, scope: &CompensationScope, ended: EndedMessage) {
        let drain = (ended == EndedMessage::Kept).then(|| self.ways.drain.clone());
        let old = scope.inner.look(|state| std::mem::replace(&mut state.below_to, drain));
        drop(old);
        self.ended = Some(ended);
    }

    /// Drops or moves what is below the mark. `begun`: a message is running, and what is above the
    /// mark is its own.
    pub(crate) fn flush(&mut self, scope: &CompensationScope, begun: bool) {
        if begun {
            return scope.inner.look(|_| ());
        }
        if self.ended != Some(EndedMessage::Committed) {
            return self.hand_over(scope);
        }
        // Everything is committed. The columns go back and forth, so that they grow once.
        scope.inner.untouch();
        let spare = self.spare.get_or_insert_default();
        let place = {
            let mut state = scope.inner.lock();
            scope.inner.forget_mark();
            std::mem::swap(&mut state.staged, spare);
            state.place.take()
        };
        drop(place);
        spare.clear();
    }

    /// Moves everything that is not dropped to the drain's scope.
    pub(crate) fn hand_over(&mut self, scope: &CompensationScope) {
        if self.ended == Some(EndedMessage::Kept) {
            scope.inner.forget_mark();
        }
        scope.hand_over(&self.ways.drain);
    }

    /// Moves what the last message has staged to the scope of the drain's context.
    pub(crate) fn hand_over_to_context(&mut self, scope: &CompensationScope) {
        scope.hand_over(&self.ways.context);
    }

    /// The slot goes on with a new scope.
    pub(crate) fn reopen(&mut self) {
        (self.ended, self.over) = (None, false);
    }

    /// Ends the scope, which somebody has kept.
    pub(crate) fn let_go(&mut self, scope: &CompensationScope, committed: bool) {
        self.over = true;
        let forward = Forward {
            to: self.ways.drain.clone(),
            is_final: committed,
            late: Some(Arc::clone(&self.ways.late)),
        };
        let ending = if committed { Ending::Dropped } else { Ending::Moved };
        scope.end(forward, &ending).clear();
    }
}
