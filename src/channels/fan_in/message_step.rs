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
    /// The context between two turns, if it is not lent.
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
        step.set_message_number(number);
        loan::lend_another(own.loan);
        (own, step)
    }

    /// The context for the next message of the same source, if it is there.
    #[inline]
    pub(super) fn lend(&self, number: u64) -> Option<StepContext> {
        let step = loan::lend(self.loan)?;
        step.set_message_number(number);
        Some(step)
    }

    /// The context for a message of another source.
    pub(super) fn lend_to(&mut self, source: &SourceName, number: u64) -> Option<StepContext> {
        let mut step = self.step.take()?;
        step.set_source(source);
        step.set_message_number(number);
        loan::lend_another(self.loan);
        Some(step)
    }

    /// Begins a turn.
    #[inline]
    pub(super) fn enter(&mut self) -> loan::Outer {
        loan::enter(self.step.take(), self.loan)
    }

    /// Ends a turn with what came back, and hands that out if it is another context.
    #[inline]
    pub(super) fn leave(&mut self, step: StepContext) -> Option<StepContext> {
        if step.loan() != self.loan {
            return Some(step);
        }
        self.step = Some(step);
        None
    }

    /// Whether nobody else has the context or its scope, between two turns.
    pub(super) fn is_spare(&self) -> bool {
        self.step.is_some() && self.scope.is_at_home()
    }

    /// Whether nobody else has the context or its scope, within a turn.
    #[inline]
    fn is_home(&self) -> bool {
        loan::is_back() && self.scope.is_at_home()
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
