//! The step of one item.

use crate::cancellation::CancellationToken;
use crate::step::{ChildStep, StepContext};

/// A child of the stream's step. When it is dropped, whoever still works for the item hears that
/// it is over, and what was staged is in the stream's scope.
pub(super) struct ItemStep(ChildStep);

impl ItemStep {
    pub(super) fn new(context: &StepContext) -> Self {
        Self(ChildStep::new(context, None, &CancellationToken::never()))
    }

    /// The context to hand to the operation.
    pub(super) fn step(&self) -> StepContext {
        self.0.step()
    }
}

impl Drop for ItemStep {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
