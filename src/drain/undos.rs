//! What a message is undone with: its scope alone, or local state beside it.

use std::future::Future;
use std::sync::Arc;

use crate::clock::Clock;
use crate::error::Failure;
use crate::undo::{
    CompensationPolicy, CompensationScope, LocalRollback, LocalUndos, Rollback, RollbackReport,
};

/// How a rollback has ended.
pub(super) type Undone = Result<RollbackReport, Failure<RollbackReport>>;

/// The type that goes with [`UndoWith`].
pub trait UndoTypes {
    /// A running rollback.
    type Rollback;
}

/// What a message of a drain is undone with, see [`FanIn::local_undos`](crate::FanIn::local_undos).
pub trait UndoWith: UndoTypes<Rollback: Future<Output = Undone> + Unpin> {
    /// Starts to undo what was staged on a scope.
    fn roll_back(
        &self,
        scope: &CompensationScope,
        policy: &CompensationPolicy,
        clock: &Arc<dyn Clock>,
    ) -> Self::Rollback;
}

/// The scope alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLocal;

impl UndoTypes for NoLocal {
    type Rollback = Rollback;
}

impl UndoWith for NoLocal {
    fn roll_back(
        &self,
        scope: &CompensationScope,
        policy: &CompensationPolicy,
        clock: &Arc<dyn Clock>,
    ) -> Rollback {
        scope.roll_back(policy).clock(clock)
    }
}

impl UndoTypes for LocalUndos {
    type Rollback = LocalRollback;
}

impl UndoWith for LocalUndos {
    fn roll_back(
        &self,
        scope: &CompensationScope,
        policy: &CompensationPolicy,
        clock: &Arc<dyn Clock>,
    ) -> LocalRollback {
        scope.roll_back(policy).clock(clock).local(self)
    }
}
