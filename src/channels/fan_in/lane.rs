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
use super::part::{Doing, MessageDeadline, Part, Seat};
use super::report::FailedMessage;
use crate::compensation::kept;
use crate::context::StepContext;
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

type Turn = Poll<Option<()>>;

impl<S, H, F, D> Lane<S, H, F, D> {
    pub(super) fn new(
        shared: &Arc<Shared<H, D>>,
        name: SourceName,
        seat: Seat,
        source: S,
    ) -> Pin<Box<Self>> {
        let part = Part::new(shared, name, seat);
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
        this.part.leave(outer);
        if let Some(baton) = baton {
            this.part.shared.put(baton);
        }
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
        if most == 0 || !baton.failures.is_empty() || part.shared.bounds.exceeded().is_some() {
            return Poll::Ready(Some(()));
        }
        part.permit = part.permit || baton.permits.acquire(number, cx.waker());
        if !part.permit {
            return self.poll_removed(baton, cx);
        }
        self.handle_messages(most, baton, cx)
    }

    /// A source that is removed while it waits for a permit leaves at once: it has no message in
    /// flight, and those of others are none of its business.
    fn poll_removed(self: Pin<&mut Self>, baton: &mut Baton<H, D>, cx: &mut Context<'_>) -> Turn {
        let mut this = self.project();
        let Some(source) = this.source.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        this.part.doing = Doing::Source;
        let removed = source.poll_removed(cx);
        if removed.is_ready() {
            this.source.set(None);
            baton.permits.leave(this.part.seat.number);
        }
        this.part.doing = Doing::Own;
        removed.map(|()| None)
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
            if ready!(self.as_mut().poll_handler(baton, cx)) {
                continue;
            }
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
            baton.spare.extend(part.context.take_if(|context| context.is_spare()));
        }
        baton.budget = baton.budget.saturating_sub(std::mem::take(&mut part.taken));
        baton.urgency.set_ready(part.seat.priority, &mut part.ready, ready && !in_flight);
        let handled = std::mem::take(&mut part.handled);
        baton.tally.succeeded += handled;
        baton.reports[part.name.index()].handled += handled;
        baton.tally.flush();
    }

    /// Goes on with the message that had to wait.
    fn poll_message_in_flight(
        mut self: Pin<&mut Self>,
        baton: &mut Baton<H, D>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.handler.is_some() {
            self.as_mut().project().part.doing = Doing::Handler;
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

    /// Ends with whether the message succeeded and left no trace, as nearly all do.
    fn poll_handler(
        self: Pin<&mut Self>,
        baton: &mut Baton<H, D>,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        let mut this = self.project();
        let part = this.part;
        let Some(handler) = this.handler.as_mut().as_pin_mut() else { return Poll::Ready(false) };
        let result = match part.span.in_scope(|| handler.poll(cx)) {
            Poll::Ready(output) => {
                // What the output brings is staged whatever the destructor of the handler does.
                let mut result = match &part.context {
                    Some(context) => output.settle(context.scope()),
                    None => Ok(()),
                };
                match result {
                    // Gone before its success counts: a destructor that panics fails the message.
                    Ok(()) => this.handler.set(None),
                    Err(error) => result = Err(drop_failed(this.handler, part, error)),
                }
                result
            }
            Poll::Pending => {
                if let Some(context) = &part.context {
                    context.stage_kept();
                }
                let error = ready!(part.poll_message_deadline(cx));
                Err(drop_failed(this.handler, part, error))
            }
        };
        part.doing = Doing::Own;
        match result {
            Ok(()) if part.is_plain() => {
                if kept::has_any() {
                    return Poll::Ready(part.end_kept(baton));
                }
                part.book_handled();
                Poll::Ready(true)
            }
            result => {
                part.end_message(baton, result);
                Poll::Ready(false)
            }
        }
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
        let this = self.project();
        let part = this.part;
        let failure =
            |whose, part: &Part<H, D>| Error::panic(whose, message).with_origin(part.origin());
        match std::mem::replace(&mut part.doing, Doing::Own) {
            Doing::Handler => {
                let error = failure("the handler", part);
                let error = drop_failed(this.handler, part, error);
                part.end_message(baton, Err(error));
            }
            Doing::Source => {
                let error = failure("the source", part);
                baton.failures.push(drop_failed(this.source, part, error));
            }
            Doing::DeadLetter => baton.failures.push(failure("the dead-letter callback", part)),
            Doing::Own => baton.failures.push(failure("the drain", part)),
        }
    }
}

/// Drops a handler or source that has failed; a panic of its destructor is attached to the failure.
#[cold]
fn drop_failed<H, D, T>(mut failed: Pin<&mut Option<T>>, part: &Part<H, D>, error: Error) -> Error {
    match panics::contain(|| failed.set(None)) {
        Ok(()) => error,
        Err(message) => {
            error.with_related([Error::panic("a destructor", &message).with_origin(part.origin())])
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
        let Some(mut baton) = self.part.shared.take_for_turn() else { return Poll::Ready(None) };
        let outer = self.as_mut().project().part.enter();
        let turn = match panics::contain(|| self.as_mut().turn(&mut baton, cx)) {
            Ok(turn) => turn,
            Err(message) => {
                self.as_mut().blame(&mut baton, &message);
                Poll::Ready(Some(()))
            }
        };
        self.as_mut().project().part.leave(outer);
        // A failure is never left behind without a word: the drain looks at the baton where a turn
        // has ended, and nowhere else.
        let failed = !baton.failures.is_empty() && !baton.stopping;
        let turn = if failed { Poll::Ready(Some(())) } else { turn };
        self.as_mut().end_turn(&mut baton, matches!(turn, Poll::Ready(Some(()))));
        self.part.shared.put(baton);
        turn
    }
}
