//! The context of messages, lent to one handler after another.
//!
//! A context that comes back with nobody else holding it or its scope serves the next message, of
//! this lane or, between two turns, of another one. One that was kept stays with whoever has it:
//! what is staged there later goes to the scope of the drain.

use crate::cancellation::CancellationToken;
use crate::compensation::{CompensationPolicy, CompensationScope, Rollback, kept};
use crate::context::{StepContext, loan};
use crate::origin::SourceName;

pub(super) struct MessageStep {
    /// The context while it is not lent.
    step: Option<StepContext>,
    /// Its scope, lent or not.
    scope: CompensationScope,
    /// What it is expected back by.
    loan: u64,
}

impl MessageStep {
    /// A context for the messages of a source, lent at once.
    pub(super) fn new(
        context: &StepContext,
        token: &CancellationToken,
        source: &SourceName,
        number: u64,
    ) -> (Self, StepContext) {
        let step = context.for_messages(source, token);
        let scope = step.scope().clone();
        let own = Self { loan: step.loan(), step: None, scope };
        own.prepare(&step, number);
        (own, step)
    }

    #[inline]
    fn prepare(&self, step: &StepContext, number: u64) {
        step.set_message_number(number);
        loan::lend(self.loan);
    }

    /// The context for the next message of the same source, if it is there.
    #[inline]
    pub(super) fn lend(&mut self, number: u64) -> Option<StepContext> {
        let step = self.step.take()?;
        self.prepare(&step, number);
        Some(step)
    }

    /// The context for a message of another source, if it is there.
    pub(super) fn lend_to(&mut self, source: &SourceName, number: u64) -> Option<StepContext> {
        self.step.as_mut()?.set_source(source);
        self.lend(number)
    }

    pub(super) fn loan(&self) -> u64 {
        self.loan
    }

    /// Takes the context back from a handler that is gone.
    #[inline]
    pub(super) fn recover(&mut self) {
        if self.step.is_none() {
            self.step = StepContext::take_returned(self.loan);
        }
    }

    /// Whether nobody else has the context or its scope.
    #[inline]
    pub(super) fn is_home(&self) -> bool {
        self.step.is_some() && self.scope.is_at_home()
    }

    /// Whether the message left nothing behind but what was kept on this thread.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.is_home() && !self.scope.is_touched()
    }

    pub(super) fn scope(&self) -> &CompensationScope {
        &self.scope
    }

    /// Moves what was kept on this thread into the scope of the message.
    pub(super) fn stage_kept(&self) {
        kept::take(|actions| self.scope.receive(actions, None));
    }

    /// Clears what the message staged. Returns how much that was, and the first panic of a
    /// destructor.
    pub(super) fn clear(&self) -> (usize, Option<String>) {
        if self.scope.is_touched() { self.scope.commit() } else { (0, None) }
    }

    /// Starts to undo what the message staged.
    pub(super) fn roll_back(&self, policy: &CompensationPolicy) -> Rollback {
        self.scope.run_compensation(policy, CancellationToken::never())
    }

    /// Moves what the message staged to the scope of its drain, under this owner. Hands itself back
    /// if it can serve another message.
    pub(super) fn hand_over(self, drain: &CompensationScope, owner: u64) -> Option<Self> {
        // Asked first: whoever kept the context may stage an action until the moment it is gone.
        let home = self.is_home();
        if self.scope.is_touched() {
            self.scope.hand_over(drain, owner);
        }
        if !home {
            self.scope.forward_to(drain, owner);
        }
        home.then_some(self)
    }
}
