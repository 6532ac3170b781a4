//! One source and its message in flight.
//!
//! A lane is a stream without news: it yields `()` at the end of a turn, so that `select_all`
//! gives the next lane its turn, and ends with its source. What it has to say goes into the baton.
//! The whole turn runs inside one `catch_unwind`; `doing` tells whose code was running when it
//! panicked.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use pin_project_lite::pin_project;

use super::super::source::Source;
use super::baton::{Baton, Shared};
use super::report::FailedMessage;
use super::settings::{Commit, OnFailure};
use crate::cancellation::CancellationToken;
use crate::clock::{Sleep, Tick};
use crate::compensation::{CompensationScope, Rollback, kept};
use crate::context::{StepContext, loan};
use crate::error::{Error, Origin};
use crate::outcome::HandlerOutput;
use crate::panics;

pin_project! {
    pub(super) struct Lane<S, H, F, D> {
        #[pin]
        source: Option<S>,
        #[pin]
        handler: Option<F>,
        part: Part<H, D>,
    }

    impl<S, H, F, D> PinnedDrop for Lane<S, H, F, D> {
        fn drop(this: Pin<&mut Self>) {
            this.abandon();
        }
    }
}

/// What of a lane is not pinned.
struct Part<H, D> {
    shared: Arc<Shared<H, D>>,
    index: usize,
    name: Arc<str>,
    /// Messages handled since the report was last told.
    handled: u64,
    /// The number of the message taken last.
    number: u64,
    /// The context of the messages while it is not lent to a handler; reused from message to
    /// message unless somebody kept it.
    step: Option<StepContext>,
    /// The scope of that context, lent or not.
    scope: Option<CompensationScope>,
    /// What the context is expected back by.
    loan: u64,
    permit: bool,
    /// The handler in flight has been pending.
    suspended: bool,
    message_deadline: Option<MessageDeadline>,
    rollback: Option<Box<MessageRollback>>,
    doing: Doing,
}

struct MessageDeadline {
    at: Tick,
    sleep: Option<Sleep>,
}

/// A failed message whose compensations are running.
struct MessageRollback {
    error: Error,
    rollback: Rollback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Own,
    Source,
    Handler,
    DeadLetter,
}

type Turn = Poll<Option<()>>;

pub(super) fn destructor_panicked(message: &str) -> Error {
    Error::panic("the destructor of a compensation", message)
}

impl<S, H, F, D> Lane<S, H, F, D> {
    pub(super) fn new(
        shared: &Arc<Shared<H, D>>,
        index: usize,
        name: Arc<str>,
        source: S,
    ) -> Pin<Box<Self>> {
        let part = Part {
            shared: Arc::clone(shared),
            index,
            name,
            handled: 0,
            number: 0,
            step: None,
            scope: None,
            loan: 0,
            permit: false,
            suspended: false,
            message_deadline: None,
            rollback: None,
            doing: Doing::Own,
        };
        Box::pin(Self { source: Some(source), handler: None, part })
    }

    /// Drops what is in flight, wherever it is, and keeps every compensation.
    fn abandon(self: Pin<&mut Self>) {
        let mut this = self.project();
        let mut baton = this.part.shared.take();
        let mut panicked = Vec::new();
        let running = this.handler.is_some();
        let outer = loan::enter(this.part.loan);
        panicked.extend(panics::contain(|| this.handler.set(None)).err());
        loan::leave(&outer);
        if this.part.step.is_none() {
            this.part.recover();
        }
        panicked.extend(panics::contain(|| this.source.set(None)).err());
        let rollback = this.part.rollback.take();
        if let Some(baton) = &mut baton {
            baton.dropped += usize::from(running || rollback.is_some());
            baton.tally.failed += u64::from(running);
            let origin = || this.part.origin();
            let blame =
                |message: String| Error::panic("a destructor", &message).with_origin(origin());
            baton.failures.extend(panicked.into_iter().map(blame));
            baton.failures.extend(rollback.as_ref().map(|rollback| rollback.error.clone()));
        }
        // Dropping the rollback puts back what it was running, before the scope is handed over.
        drop(rollback);
        this.part.hand_over();
        if let Some(baton) = baton {
            this.part.shared.put(baton);
        }
    }
}

impl<H, D> Part<H, D> {
    fn origin(&self) -> Origin {
        Origin { index: self.index, name: Arc::clone(&self.name), message: self.number }
    }

    /// The context for the next message: the one of the last, unless somebody kept it.
    #[inline]
    fn lend(&mut self) -> StepContext {
        let step = self.step.take().unwrap_or_else(|| {
            let step = self.shared.context.for_messages(&self.name, &self.shared.token);
            self.scope = Some(step.scope().clone());
            self.loan = step.loan();
            step
        });
        step.set_message_number(self.number);
        loan::lend(self.loan);
        step
    }

    /// Takes the context back from a handler that is gone.
    #[inline]
    fn recover(&mut self) {
        self.step = StepContext::take_returned(self.loan);
    }

    /// Moves what the message staged to the drain's scope. Where its context or its scope was
    /// kept, what is staged there later goes to the drain's scope as well.
    fn hand_over(&mut self) {
        self.hand_over_as(self.shared.owner);
    }

    /// The same, marking the actions as staged by `owner`: 0 keeps them from every commit.
    fn hand_over_as(&mut self, owner: u64) {
        let Some(scope) = &self.scope else { return };
        let parent = self.shared.scope();
        // Asked first: whoever kept the context may stage an action until the moment it is gone.
        let kept = self.step.is_none() || !scope.is_at_home();
        if scope.is_touched() {
            scope.hand_over(parent, owner);
        }
        if kept {
            scope.forward_to(parent, owner);
            self.step = None;
            self.scope = None;
        }
    }

    /// Books the end of a handler. A message that is to be rolled back alone stays in flight.
    #[inline]
    fn end_message(&mut self, baton: &mut Baton<H, D>, mut result: Result<(), Error>) {
        if self.message_deadline.is_some() {
            self.message_deadline = None;
        }
        if result.is_ok() && self.is_plain() {
            if !kept::has_any() {
                return self.book_success(baton);
            }
            result = self.commit_kept(baton);
            if result.is_ok() {
                return self.book_success(baton);
            }
        }
        self.stage_kept();
        self.end_message_with_effects(baton, result);
    }

    /// Whether the message left nothing behind but what was kept on this thread: no compensation
    /// in its scope, and no handle of its context.
    #[inline]
    fn is_plain(&self) -> bool {
        let scope = self.scope.as_ref();
        self.step.is_some() && scope.is_some_and(|scope| scope.is_at_home() && !scope.is_touched())
    }

    /// Moves what was kept on this thread into the scope of the message.
    fn stage_kept(&self) {
        if let Some(scope) = &self.scope {
            kept::take(|actions| scope.receive(actions, None));
        }
    }

    /// Commits what a message that left nothing else behind has staged, without its scope.
    fn commit_kept(&self, baton: &mut Baton<H, D>) -> Result<(), Error> {
        if self.shared.settings.commit != Commit::Message {
            kept::end(self.shared.scope(), self.shared.owner);
            return Ok(());
        }
        let mut result = Ok(());
        kept::take(|actions| {
            let (cleared, panicked) = actions.clear();
            baton.tally.cleared += cleared;
            result = panicked.map_or(Ok(()), |message| Err(destructor_panicked(&message)));
        });
        result
    }

    #[inline]
    fn book_success(&mut self, baton: &mut Baton<H, D>) {
        baton.in_flight -= 1;
        baton.tally.succeeded += 1;
        self.handled += 1;
    }

    fn end_message_with_effects(&mut self, baton: &mut Baton<H, D>, result: Result<(), Error>) {
        let error = match result.and_then(|()| self.commit(baton)) {
            Ok(()) => return self.book_success(baton),
            Err(error) => error.with_origin(self.origin()),
        };
        baton.tally.failed += 1;
        match (&self.scope, self.shared.settings.on_failure) {
            (Some(scope), OnFailure::RollBackMessage) if !baton.stopping => {
                let policy =
                    self.shared.settings.policy.clone().clock_or(self.shared.context.clock());
                let rollback = scope.run_compensation(&policy, CancellationToken::never());
                self.rollback = Some(Box::new(MessageRollback { error, rollback }));
            }
            _ => {
                self.hand_over();
                baton.in_flight -= 1;
                baton.failures.push(error);
            }
        }
    }

    /// What success does to the compensations of a message.
    fn commit(&mut self, baton: &mut Baton<H, D>) -> Result<(), Error> {
        let Some(scope) = &self.scope else { return Ok(()) };
        let mut result = Ok(());
        if self.shared.settings.commit == Commit::Message && scope.is_touched() {
            let (cleared, panicked) = scope.commit();
            baton.tally.cleared += cleared;
            result = panicked.map_or(Ok(()), |message| Err(destructor_panicked(&message)));
        }
        if result.is_ok() {
            self.hand_over();
        }
        result
    }

    fn release(&mut self, baton: &mut Baton<H, D>) {
        if std::mem::take(&mut self.permit) {
            baton.permits.release();
        }
    }

    /// Polls the deadline of the message whose handler is pending.
    fn poll_message_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let Some(deadline) = &mut self.message_deadline else { return Poll::Pending };
        let clock = self.shared.context.clock();
        let sleep = deadline.sleep.get_or_insert_with(|| clock.sleep_until(deadline.at));
        ready!(sleep.as_mut().poll(cx));
        let timeout = self.shared.settings.message_timeout.unwrap_or_default();
        Poll::Ready(Error::timeout("the handler", timeout))
    }
}

impl<S, H, F, D> Lane<S, H, F, D>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    D: FnMut(FailedMessage),
{
    fn turn(mut self: Pin<&mut Self>, baton: &mut Baton<H, D>, cx: &mut Context<'_>) -> Turn {
        let mut left = self.part.shared.settings.quantum.get();
        let mut looked = false;
        loop {
            if self.part.rollback.is_some() {
                ready!(self.as_mut().poll_rollback(baton, cx));
            }
            if self.handler.is_some() {
                let suspended = self.part.suspended;
                ready!(self.as_mut().poll_handler(baton, cx));
                if self.part.rollback.is_some() {
                    continue;
                }
                // Waiting handlers share the permits message by message.
                left = if suspended && baton.permits.is_contended() { 0 } else { left };
            }
            let part = &mut *self.as_mut().project().part;
            if baton.stopping {
                part.release(baton);
                return Poll::Ready(None);
            }
            if left == 0 || baton.budget == 0 || !baton.failures.is_empty() {
                part.release(baton);
                return Poll::Ready(Some(()));
            }
            if !looked {
                looked = true;
                if baton.limits.exceeded().is_some() {
                    part.release(baton);
                    return Poll::Ready(Some(()));
                }
            }
            if !part.permit {
                part.permit = baton.permits.acquire(part.index, cx.waker());
                if !part.permit {
                    return Poll::Pending;
                }
            }
            match self.as_mut().take_message(baton, cx) {
                Poll::Ready(Some(())) => left -= 1,
                end => {
                    self.as_mut().project().part.release(baton);
                    return end;
                }
            }
        }
    }

    /// Takes the next message and calls its handler. A fault is booked like a message that failed.
    fn take_message(self: Pin<&mut Self>, baton: &mut Baton<H, D>, cx: &mut Context<'_>) -> Turn {
        let mut this = self.project();
        let part = this.part;
        let Some(source) = this.source.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        part.doing = Doing::Source;
        let item = ready!(source.poll_message(cx));
        let message = match item {
            Some(Ok(message)) => message,
            Some(Err(fault)) => {
                part.doing = Doing::Own;
                let origin = Origin { message: 0, ..part.origin() };
                baton.failures.push(fault.with_origin(origin));
                return Poll::Ready(Some(()));
            }
            None => {
                this.source.set(None);
                part.doing = Doing::Own;
                return Poll::Ready(None);
            }
        };
        part.number += 1;
        baton.budget -= 1;
        baton.in_flight += 1;
        part.suspended = false;
        if let Some(timeout) = part.shared.settings.message_timeout {
            let at = part.shared.context.clock().now() + timeout;
            part.message_deadline = Some(MessageDeadline { at, sleep: None });
        }
        part.doing = Doing::Handler;
        let step = part.lend();
        this.handler.set(Some((baton.handler)(message, step)));
        Poll::Ready(Some(()))
    }

    fn poll_handler(
        self: Pin<&mut Self>,
        baton: &mut Baton<H, D>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut this = self.project();
        let part = this.part;
        let Some(handler) = this.handler.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        part.doing = Doing::Handler;
        let result = match handler.poll(cx) {
            Poll::Ready(output) => {
                // Gone before its result counts: a destructor that panics fails the message.
                this.handler.set(None);
                part.recover();
                match &part.scope {
                    Some(scope) => output.settle(scope),
                    None => Ok(()),
                }
            }
            Poll::Pending => {
                part.suspended = true;
                part.stage_kept();
                let error = ready!(part.poll_message_deadline(cx));
                this.handler.set(None);
                part.recover();
                Err(error)
            }
        };
        part.doing = Doing::Own;
        part.end_message(baton, result);
        Poll::Ready(())
    }

    fn poll_rollback(
        self: Pin<&mut Self>,
        baton: &mut Baton<H, D>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let part = self.project().part;
        let Some(rollback) = &mut part.rollback else { return Poll::Ready(()) };
        let result = ready!(Pin::new(&mut rollback.rollback).poll(cx));
        if let Some(rollback) = part.rollback.take() {
            // What could not be undone stays staged, whatever becomes of the drain.
            part.hand_over_as(0);
            baton.in_flight -= 1;
            baton.reports[part.index].rolled_back += 1;
            part.doing = Doing::DeadLetter;
            (baton.dead_letter)(FailedMessage { error: rollback.error, rollback: result });
            part.doing = Doing::Own;
        }
        Poll::Ready(())
    }

    /// Books a panic on whoever caused it.
    fn blame(self: Pin<&mut Self>, baton: &mut Baton<H, D>, message: &str) {
        let mut this = self.project();
        let part = this.part;
        let failure =
            |whose, part: &Part<H, D>| Error::panic(whose, message).with_origin(part.origin());
        match std::mem::replace(&mut part.doing, Doing::Own) {
            Doing::Handler => {
                panics::drop_contained(|| this.handler.set(None));
                part.recover();
                part.end_message(baton, Err(failure("the handler", part)));
            }
            Doing::Source => {
                panics::drop_contained(|| this.source.set(None));
                baton.failures.push(failure("the source", part));
            }
            Doing::DeadLetter => baton.failures.push(failure("the dead-letter callback", part)),
            Doing::Own => baton.failures.push(failure("the drain", part)),
        }
    }
}

impl<S, H, F, D> Stream for Lane<S, H, F, D>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    D: FnMut(FailedMessage),
{
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Turn {
        let Some(mut baton) = self.part.shared.take() else { return Poll::Ready(None) };
        let outer = loan::enter(self.part.loan);
        let turn = match panics::contain(|| self.as_mut().turn(&mut baton, cx)) {
            Ok(turn) => turn,
            Err(message) => {
                self.as_mut().blame(&mut baton, &message);
                if self.part.rollback.is_none() {
                    self.as_mut().project().part.release(&mut baton);
                }
                Poll::Ready(Some(()))
            }
        };
        loan::leave(&outer);
        let part = &mut *self.as_mut().project().part;
        baton.reports[part.index].handled += std::mem::take(&mut part.handled);
        self.part.shared.put(baton);
        turn
    }
}
