//! A step inside another step.

use super::StepContext;
use crate::cancellation::{CancellationSource, CancellationToken};
use crate::undo::CompensationScope;

/// The step of one operation inside a wider one: a context with the same clock, a token of its own
/// beside the outer one, and a scope of its own.
///
/// However the operation ends, a dropped future included, what it staged is in the outer scope as
/// soon as this is dropped, and what a kept context stages later goes there as well.
#[derive(Debug)]
pub(crate) struct ChildStep {
    step: StepContext,
    stop: CancellationSource,
    /// What ends it from outside.
    outer_token: CancellationToken,
    outer: CompensationScope,
}

impl ChildStep {
    /// A child that is called `name`, or like its parent, and ends with `token` as well.
    pub(crate) fn new(parent: &StepContext, name: Option<&str>, token: &CancellationToken) -> Self {
        let stop = CancellationSource::new();
        let outer_token = [parent.cancellation().clone(), token.clone()];
        let outer_token = CancellationToken::linked(outer_token);
        let mut child = parent.clone();
        let inner = child.edit();
        inner.cancellation = CancellationToken::linked([outer_token.clone(), stop.token()]);
        inner.scope = CompensationScope::child_of(parent.scope()).into();
        if let Some(name) = name {
            inner.setting().name = name.into();
        }
        Self { step: child, stop, outer_token, outer: parent.scope().clone() }
    }

    /// Whether it does for another operation of the same kind: nobody has kept its context or its
    /// scope, and it was not told to stop. What was staged is in the outer scope then.
    pub(crate) fn reopen(&mut self) -> bool {
        if !self.step.is_sole() || self.stop.is_cancelled() {
            return false;
        }
        if self.scope().is_touched() {
            self.scope().hand_over(&self.outer);
        }
        true
    }

    /// The context of the operation.
    pub(crate) fn context(&self) -> &StepContext {
        &self.step
    }

    /// The context to hand to the operation.
    pub(crate) fn step(&self) -> StepContext {
        self.step.clone()
    }

    /// The token that ends the operation from outside: without its own.
    pub(crate) fn outer_token(&self) -> &CancellationToken {
        &self.outer_token
    }

    /// What the operation has staged so far.
    pub(crate) fn scope(&self) -> &CompensationScope {
        self.step.scope()
    }

    /// Ends the step with what it has staged in another scope than the outer one.
    pub(crate) fn keep_in(mut self, scope: &CompensationScope) {
        self.outer = scope.clone();
    }

    /// Tells the operation to stop.
    pub(crate) fn cancel(&self) {
        self.stop.cancel();
    }
}

impl Drop for ChildStep {
    fn drop(&mut self) {
        self.scope().forward_to(&self.outer);
    }
}
