//! What of a lane is not pinned: its place in the drain, and the message it is working at.
//!
//! A message begins with the loan of a context and ends with what becomes of its compensations:
//! committed, handed over to the drain, or undone at once.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::baton::{Baton, Shared};
use super::message_step::MessageStep;
use super::settings::{Commit, OnFailure};
use crate::clock::{Sleep, Tick};
use crate::compensation::{Rollback, kept};
use crate::context::{StepContext, loan};
use crate::diagnostics::trace::MessageSpan;
use crate::error::Error;
use crate::origin::{Origin, SourceName};
use crate::panics;

/// What of a lane is not pinned.
pub(super) struct Part<H, D> {
    pub(super) shared: Arc<Shared<H, D>>,
    pub(super) name: SourceName,
    pub(super) seat: Seat,
    /// The last turn ended before the source did.
    pub(super) ready: bool,
    /// Messages taken in this turn.
    pub(super) taken: usize,
    /// Messages handled since the report was last told.
    pub(super) handled: u64,
    /// The number of the message taken last.
    pub(super) number: u64,
    pub(super) span: MessageSpan,
    /// The context of the message in flight, or of the next one in this turn.
    pub(super) context: Option<MessageStep>,
    pub(super) permit: bool,
    /// The message had to wait: its handler, or its rollback.
    pub(super) in_flight: bool,
    pub(super) message_deadline: Option<MessageDeadline>,
    pub(super) rollback: Option<Box<MessageRollback>>,
    pub(super) doing: Doing,
}

/// What a lane may have, and is known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// Its number in the queue for permits.
    pub(super) number: usize,
    /// Messages in one turn.
    pub(super) turn: usize,
    pub(super) priority: u32,
}

pub(super) struct MessageDeadline {
    pub(super) at: Tick,
    pub(super) sleep: Option<Sleep>,
}

/// A failed message whose compensations are running.
pub(super) struct MessageRollback {
    pub(super) error: Error,
    pub(super) rollback: Rollback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Own,
    Source,
    Handler,
    DeadLetter,
}

impl<H, D> Part<H, D> {
    pub(super) fn new(shared: &Arc<Shared<H, D>>, name: SourceName, seat: Seat) -> Self {
        Self {
            shared: Arc::clone(shared),
            name,
            seat,
            ready: false,
            taken: 0,
            handled: 0,
            number: 0,
            span: MessageSpan::none(),
            context: None,
            permit: false,
            in_flight: false,
            message_deadline: None,
            rollback: None,
            doing: Doing::Own,
        }
    }

    pub(super) fn origin(&self) -> Origin {
        Origin { source: self.name.clone(), message: self.number }
    }

    /// Begins a turn.
    #[inline]
    pub(super) fn enter(&mut self) -> loan::Outer {
        self.context.as_mut().map_or_else(|| loan::enter(None, 0), MessageStep::enter)
    }

    /// Ends a turn.
    #[inline]
    pub(super) fn leave(&mut self, outer: loan::Outer) {
        let Some(step) = loan::leave(outer) else { return };
        let stray = match &mut self.context {
            Some(context) => context.leave(step),
            None => Some(step),
        };
        if stray.is_some() {
            panics::drop_contained(|| drop(stray));
        }
    }

    /// The context for the next message: the one of the last, unless somebody kept it.
    #[inline]
    pub(super) fn lend(&mut self, baton: &mut Baton<H, D>) -> StepContext {
        let step = self.context.as_ref().and_then(|context| context.lend(self.number));
        step.unwrap_or_else(|| self.lend_another(baton))
    }

    fn lend_another(&mut self, baton: &mut Baton<H, D>) -> StepContext {
        if let Some(mut spare) = baton.spare.pop() {
            if let Some(step) = spare.lend_to(&self.name, self.number) {
                self.context = Some(spare);
                return step;
            }
        }
        let Shared { context, token, .. } = &*self.shared;
        let (own, step) = MessageStep::new(context, token, &self.name, self.number);
        self.context = Some(own);
        step
    }

    /// Moves what the message staged to the drain's scope, marked as staged by `owner`: 0 keeps it
    /// from every commit.
    pub(super) fn hand_over(&mut self, owner: u64) {
        let context = self.context.take();
        self.context = context.and_then(|context| context.hand_over(self.shared.scope(), owner));
    }

    /// Whether the message left nothing behind but what was kept on this thread.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.context.as_ref().is_some_and(MessageStep::is_plain)
    }

    /// Books a message that succeeded.
    #[inline]
    pub(super) fn book_handled(&mut self) {
        if self.message_deadline.is_some() {
            self.drop_deadline();
        }
        self.handled += 1;
        self.span.end(Ok(()));
    }

    #[cold]
    fn drop_deadline(&mut self) {
        self.message_deadline = None;
    }

    /// Books the end of a handler. A message that is to be rolled back alone stays in flight.
    pub(super) fn end_message(&mut self, baton: &mut Baton<H, D>, result: Result<(), Error>) {
        self.message_deadline = None;
        if let Some(context) = &self.context {
            context.stage_kept();
        }
        match result.and_then(|()| self.commit(baton)) {
            Ok(()) => self.book_handled(),
            Err(error) => self.fail_message(baton, error.with_origin(self.origin())),
        }
    }

    /// Books the end of a handler that left nothing but what was kept, without its scope. Returns
    /// whether the message succeeded.
    pub(super) fn end_kept(&mut self, baton: &mut Baton<H, D>) -> bool {
        if self.shared.settings.commit == Commit::Message {
            let mut result = Ok(());
            kept::take(|actions| result = book_cleared(baton, actions.clear()));
            if result.is_err() {
                self.end_message(baton, result);
                return false;
            }
        } else {
            kept::end(|| (self.shared.scope().clone(), self.shared.owner));
        }
        self.book_handled();
        true
    }

    fn fail_message(&mut self, baton: &mut Baton<H, D>, error: Error) {
        baton.tally.failed += 1;
        match (&self.context, self.shared.settings.on_failure) {
            (Some(context), OnFailure::RollBackMessage) if !baton.stopping => {
                let policy =
                    self.shared.settings.policy.clone().clock_or(self.shared.context.clock());
                let rollback = context.roll_back(&policy);
                self.rollback = Some(Box::new(MessageRollback { error, rollback }));
            }
            _ => {
                self.span.end(Err(&error));
                self.hand_over(self.shared.owner);
                baton.failures.push(error);
            }
        }
    }

    /// What success does to the compensations of a message.
    fn commit(&mut self, baton: &mut Baton<H, D>) -> Result<(), Error> {
        if self.shared.settings.commit == Commit::Message {
            if let Some(context) = &self.context {
                book_cleared(baton, context.clear())?;
            }
        }
        self.hand_over(self.shared.owner);
        Ok(())
    }

    /// Polls the deadline of the message whose handler is pending.
    pub(super) fn poll_message_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let Some(deadline) = &mut self.message_deadline else { return Poll::Pending };
        let clock = self.shared.context.clock();
        let sleep = deadline.sleep.get_or_insert_with(|| clock.sleep_until(deadline.at));
        ready!(sleep.as_mut().poll(cx));
        let timeout = self.shared.settings.message_timeout.unwrap_or_default();
        Poll::Ready(Error::timeout("the handler", timeout))
    }
}

/// Books compensations that were cleared; a destructor that panicked fails the message.
fn book_cleared<H, D>(
    baton: &mut Baton<H, D>,
    (count, panicked): (usize, Option<String>),
) -> Result<(), Error> {
    baton.tally.cleared += count;
    panicked.map_or(Ok(()), |message| Err(destructor_panicked(&message)))
}

pub(super) fn destructor_panicked(message: &str) -> Error {
    Error::panic("the destructor of a compensation", message)
}
