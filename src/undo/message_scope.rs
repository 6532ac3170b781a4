//! What a drain does with the scope of its messages.

use std::sync::Arc;

use super::columns::Columns;
use super::drain_scope::{DrainScope, Ways};
use super::moves::Ending;
use super::scope::CompensationScope;
use super::state::Forward;
use crate::diagnostics::COUNTERS;
use crate::sync::atomic::Ordering;

/// The drain's side of the scope that serves one message after another in a slot.
pub(crate) struct MessageScope {
    ways: Arc<Ways>,
    /// What becomes of the actions below the mark, while there is one.
    ended: Option<Ended>,
    /// Columns without actions, to be exchanged for those of the scope.
    spare: Option<Box<Columns>>,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
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
        let ended = if committed { Ended::Committed } else { Ended::Kept };
        if self.ended != Some(ended) {
            self.change(scope, ended);
        }
        scope.inner.set_mark();
    }

    /// What is below the mark has one destination at a time.
    #[cold]
    fn change(&mut self, scope: &CompensationScope, ended: Ended) {
        let drain = (ended == Ended::Kept).then(|| self.ways.drain.clone());
        let old = scope.inner.look(|state| std::mem::replace(&mut state.below_to, drain));
        drop(old);
        self.ended = Some(ended);
    }

    /// Drops or moves what is below the mark. `begun`: a message is running, and what is above the
    /// mark is its own.
    pub(crate) fn flush(
        &mut self,
        scope: &CompensationScope,
        begun: bool,
    ) -> (usize, Option<String>) {
        if begun {
            return Self::told(scope);
        }
        if self.ended != Some(Ended::Committed) {
            return self.move_all(scope);
        }
        // Everything is committed. The columns go back and forth, so that they grow once.
        scope.inner.touched.store(false, Ordering::Relaxed);
        let spare = self.spare.get_or_insert_default();
        let (mut dropped, place) = {
            let mut state = scope.inner.lock();
            scope.inner.forget_mark();
            std::mem::swap(&mut state.staged, spare);
            (std::mem::take(&mut state.dropped), state.place.take())
        };
        drop(place);
        let (count, panicked) = spare.clear_for_more();
        COUNTERS.compensations_cleared.add(count as u64);
        dropped.count += count;
        dropped.note(panicked);
        dropped.into()
    }

    /// Moves everything that is not dropped to the drain's scope. What was dropped is told by the
    /// next flush.
    pub(crate) fn hand_over(&mut self, scope: &CompensationScope) {
        let (count, panicked) = self.move_all(scope);
        Self::tell_later(scope, count, panicked);
    }

    fn move_all(&mut self, scope: &CompensationScope) -> (usize, Option<String>) {
        if self.ended == Some(Ended::Kept) {
            scope.inner.forget_mark();
        }
        Self::move_to(&self.ways.drain, scope)
    }

    /// Moves what the last message has staged to the scope of the drain's context.
    pub(crate) fn hand_over_to_context(&mut self, scope: &CompensationScope) {
        let (count, panicked) = Self::move_to(&self.ways.context, scope);
        Self::tell_later(scope, count, panicked);
    }

    /// Keeps what was dropped for the next flush.
    fn tell_later(scope: &CompensationScope, count: usize, panicked: Option<String>) {
        if count > 0 {
            scope.inner.touched.store(true, Ordering::Relaxed);
            let mut state = scope.inner.lock();
            state.dropped.count += count;
            state.dropped.note(panicked);
        }
    }

    fn move_to(to: &CompensationScope, scope: &CompensationScope) -> (usize, Option<String>) {
        if scope.hand_over(to) { Self::told(scope) } else { (0, None) }
    }

    /// What was dropped since this was asked last.
    fn told(scope: &CompensationScope) -> (usize, Option<String>) {
        // Behind a look of its own: what that finds below the mark is dropped by then.
        scope.inner.look(|_| ());
        std::mem::take(&mut scope.inner.lock().dropped).into()
    }

    /// The slot goes on with a new scope.
    pub(crate) fn reopen(&mut self) {
        (self.ended, self.over) = (None, false);
    }

    /// Ends the scope, which somebody has kept.
    pub(crate) fn let_go(
        &mut self,
        scope: &CompensationScope,
        committed: bool,
    ) -> (usize, Option<String>) {
        self.over = true;
        let forward = Forward {
            to: self.ways.drain.clone(),
            is_final: committed,
            late: Some(Arc::clone(&self.ways.late)),
        };
        let ending = if committed { Ending::Dropped } else { Ending::Moved };
        let mut actions = scope.end(forward, &ending);
        let mut dropped = std::mem::take(&mut scope.inner.lock().dropped);
        let (count, panicked) = actions.clear();
        COUNTERS.compensations_cleared.add(count as u64);
        dropped.count += count;
        dropped.note(panicked);
        dropped.into()
    }
}
