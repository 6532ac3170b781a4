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
use super::message_step::MessageStep;
use super::report::FailedMessage;
use super::settings::{Commit, OnFailure};
use crate::clock::{Sleep, Tick};
use crate::compensation::{Rollback, kept};
use crate::context::{StepContext, loan};
use crate::diagnostics::trace::MessageSpan;
use crate::error::Error;
use crate::origin::{Origin, SourceName};
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
    name: SourceName,
    seat: Seat,
    /// The last turn ended before the source did.
    ready: bool,
    /// Messages taken in this turn.
    taken: usize,
    /// Messages handled since the report was last told.
    handled: u64,
    /// The number of the message taken last.
    number: u64,
    span: MessageSpan,
    /// The context of the message in flight, or of the next one in this turn.
    context: Option<MessageStep>,
    permit: bool,
    /// The message had to wait: its handler, or its rollback.
    in_flight: bool,
    message_deadline: Option<MessageDeadline>,
    rollback: Option<Box<MessageRollback>>,
    doing: Doing,
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

impl<S, H, F, D> Lane<S, H, F, D> {
    pub(super) fn new(
        shared: &Arc<Shared<H, D>>,
        name: SourceName,
        seat: Seat,
        source: S,
    ) -> Pin<Box<Self>> {
        let part = Part {
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
        };
        Box::pin(Self { source: Some(source), handler: None, part })
    }

    /// Drops what is in flight, wherever it is, and keeps every compensation.
    fn abandon(self: Pin<&mut Self>) {
        let mut this = self.project();
        let mut baton = this.part.shared.take();
        let mut panicked = Vec::new();
        let running = this.handler.is_some();
        if running || this.part.rollback.is_some() {
            this.part.span.end_dropped();
        }
        let outer = this.part.enter();
        panicked.extend(panics::contain(|| this.handler.set(None)).err());
        loan::leave(&outer);
        this.part.recover();
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
        this.part.hand_over(this.part.shared.owner);
        if let Some(baton) = baton {
            this.part.shared.put(baton);
        }
    }
}

impl<H, D> Part<H, D> {
    fn origin(&self) -> Origin {
        Origin { source: self.name.clone(), message: self.number }
    }

    /// Begins a turn.
    fn enter(&self) -> loan::Outer {
        loan::enter(self.context.as_ref().map_or(0, MessageStep::loan))
    }

    /// The context for the next message: the one of the last, unless somebody kept it.
    #[inline]
    fn lend(&mut self, baton: &mut Baton<H, D>) -> StepContext {
        let step = self.context.as_mut().and_then(|context| context.lend(self.number));
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

    /// Takes the context back from a handler that is gone.
    #[inline]
    fn recover(&mut self) {
        if let Some(context) = &mut self.context {
            context.recover();
        }
    }

    /// Moves what the message staged to the drain's scope, marked as staged by `owner`: 0 keeps it
    /// from every commit.
    fn hand_over(&mut self, owner: u64) {
        let context = self.context.take();
        self.context = context.and_then(|context| context.hand_over(self.shared.scope(), owner));
    }

    /// Whether the message left nothing behind: no compensation, no handle of its context.
    #[inline]
    fn is_traceless(&self) -> bool {
        let plain = self.context.as_ref().is_some_and(MessageStep::is_plain);
        plain && !kept::has_any() && self.message_deadline.is_none()
    }

    /// Books the end of a handler. A message that is to be rolled back alone stays in flight.
    fn end_message(&mut self, baton: &mut Baton<H, D>, mut result: Result<(), Error>) {
        self.message_deadline = None;
        if result.is_ok() && self.context.as_ref().is_some_and(MessageStep::is_plain) {
            result = self.commit_kept(baton);
            if result.is_ok() {
                self.handled += 1;
                self.span.end(Ok(()));
                return;
            }
        }
        if let Some(context) = &self.context {
            context.stage_kept();
        }
        match result.and_then(|()| self.commit(baton)) {
            Ok(()) => {
                self.handled += 1;
                self.span.end(Ok(()));
            }
            Err(error) => self.fail_message(baton, error.with_origin(self.origin())),
        }
    }

    /// Commits what a message that left nothing else behind has staged, without its scope.
    fn commit_kept(&self, baton: &mut Baton<H, D>) -> Result<(), Error> {
        if !kept::has_any() {
            return Ok(());
        }
        if self.shared.settings.commit != Commit::Message {
            kept::end(self.shared.scope(), self.shared.owner);
            return Ok(());
        }
        let mut result = Ok(());
        kept::take(|actions| result = book_cleared(baton, actions.clear()));
        result
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
        let Seat { number, turn, priority } = self.part.seat;
        let mut most = if baton.budget == 0 { 0 } else { turn };
        if self.part.in_flight {
            ready!(self.as_mut().poll_message_in_flight(baton, cx));
            // Waiting handlers share the permits message by message.
            most = if baton.permits.is_contended() { 0 } else { most };
        }
        if baton.urgency.is_outranked(priority) {
            most = most.min(1);
        }
        let part = &mut *self.as_mut().project().part;
        if baton.stopping {
            return Poll::Ready(None);
        }
        if most == 0 || !baton.failures.is_empty() || baton.limits.exceeded().is_some() {
            return Poll::Ready(Some(()));
        }
        part.permit = part.permit || baton.permits.acquire(number, cx.waker());
        if !part.permit {
            return Poll::Pending;
        }
        self.handle_messages(most, baton, cx)
    }

    /// Takes and handles messages, one after another, as long as none has to wait.
    fn handle_messages(
        mut self: Pin<&mut Self>,
        most: usize,
        baton: &mut Baton<H, D>,
        cx: &mut Context<'_>,
    ) -> Turn {
        for _ in 0..most {
            match self.as_mut().take_message(baton, cx) {
                Poll::Ready(Some(())) => {}
                end => return end,
            }
            ready!(self.as_mut().poll_handler(baton, cx));
            if !baton.failures.is_empty() {
                break;
            }
            if self.part.rollback.is_some() {
                ready!(self.as_mut().poll_rollback(baton, cx));
            }
        }
        Poll::Ready(Some(()))
    }

    /// Books what the turn has done, and gives up what is only needed while a message is handled.
    fn end_turn(self: Pin<&mut Self>, baton: &mut Baton<H, D>, ready: bool) {
        let this = self.project();
        let part = this.part;
        let in_flight = this.handler.is_some() || part.rollback.is_some();
        baton.in_flight += usize::from(in_flight);
        baton.in_flight -= usize::from(std::mem::replace(&mut part.in_flight, in_flight));
        if !in_flight {
            if std::mem::take(&mut part.permit) {
                baton.permits.release();
            }
            baton.spare.extend(part.context.take_if(|context| context.is_home()));
        }
        baton.budget = baton.budget.saturating_sub(std::mem::take(&mut part.taken));
        baton.urgency.set_ready(part.seat.priority, &mut part.ready, ready && !in_flight);
        let handled = std::mem::take(&mut part.handled);
        baton.tally.succeeded += handled;
        baton.reports[part.name.index()].handled += handled;
    }

    /// Goes on with the message that had to wait.
    fn poll_message_in_flight(
        mut self: Pin<&mut Self>,
        baton: &mut Baton<H, D>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.handler.is_some() {
            ready!(self.as_mut().poll_handler(baton, cx));
        }
        if self.part.rollback.is_some() {
            ready!(self.poll_rollback(baton, cx));
        }
        Poll::Ready(())
    }

    /// Takes the next message and calls its handler. A fault is booked like a message that failed.
    fn take_message(self: Pin<&mut Self>, baton: &mut Baton<H, D>, cx: &mut Context<'_>) -> Turn {
        let mut this = self.project();
        let part = this.part;
        let Some(mut source) = this.source.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        part.doing = Doing::Source;
        let item = ready!(source.as_mut().poll_message(cx));
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
        part.taken += 1;
        part.number = source.as_ref().number().unwrap_or(part.number + 1);
        if let Some(timeout) = part.shared.settings.message_timeout {
            let at = part.shared.context.clock().now() + timeout;
            part.message_deadline = Some(MessageDeadline { at, sleep: None });
        }
        part.doing = Doing::Handler;
        let step = part.lend(baton);
        part.span = MessageSpan::new(&part.name, part.number);
        let called = part.span.in_scope(|| (baton.handler)(message, step));
        this.handler.set(Some(called));
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
        let result = match part.span.in_scope(|| handler.poll(cx)) {
            Poll::Ready(output) => {
                // Gone before its result counts: a destructor that panics fails the message.
                this.handler.set(None);
                part.recover();
                match &part.context {
                    Some(context) => output.settle(context.scope()),
                    None => Ok(()),
                }
            }
            Poll::Pending => {
                if let Some(context) = &part.context {
                    context.stage_kept();
                }
                let error = ready!(part.poll_message_deadline(cx));
                this.handler.set(None);
                part.recover();
                Err(error)
            }
        };
        part.doing = Doing::Own;
        // What nearly every message comes to, without a call.
        if result.is_ok() && part.is_traceless() {
            part.handled += 1;
            part.span.end(Ok(()));
        } else {
            part.end_message(baton, result);
        }
        Poll::Ready(())
    }

    fn poll_rollback(
        self: Pin<&mut Self>,
        baton: &mut Baton<H, D>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let part = self.project().part;
        let Some(rollback) = &mut part.rollback else { return Poll::Ready(()) };
        let polled = part.span.in_scope(|| Pin::new(&mut rollback.rollback).poll(cx));
        let result = ready!(polled);
        if let Some(rollback) = part.rollback.take() {
            // What could not be undone stays staged, whatever becomes of the drain.
            part.hand_over(0);
            baton.reports[part.name.index()].rolled_back += 1;
            part.span.end(Err(&rollback.error));
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
        let outer = self.part.enter();
        let turn = match panics::contain(|| self.as_mut().turn(&mut baton, cx)) {
            Ok(turn) => turn,
            Err(message) => {
                self.as_mut().blame(&mut baton, &message);
                Poll::Ready(Some(()))
            }
        };
        loan::leave(&outer);
        self.as_mut().end_turn(&mut baton, matches!(turn, Poll::Ready(Some(()))));
        self.part.shared.put(baton);
        turn
    }
}
