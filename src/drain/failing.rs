//! A message whose attempt fails, is to come later, or is dropped with its drain.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::after::{After, Then};
use super::settling::abandon_ticket;
use super::slot::{Job, Slot, SlotEnded, Work, book};
use super::state::{Info, State};
use super::types::Drains;
use crate::clock::Tick;
use crate::diagnostics::COUNTERS;
use crate::error::Error;
use crate::panics;
use crate::settlement::Delivered;
use crate::source::Receipt;

impl<C: Drains> Slot<C> {
    #[cold]
    pub(super) fn timed_out(
        mut self: Pin<&mut Self>,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        let this = self.as_mut().project();
        let timeout = work.shared.settings.message_timeout.unwrap_or_default();
        let error = Error::timeout("the handler", timeout);
        if let Some(stop) = this.stop {
            stop.cancel();
        }
        self.drop_handler_and_fail(error, work)
    }

    /// The handler, or the code that made it, has panicked.
    #[cold]
    pub(super) fn panicked(
        mut self: Pin<&mut Self>,
        message: &str,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        if let Some(lent) = self.as_mut().project().step {
            lent.disarm();
        }
        if let Some(after) = &self.after {
            let is_letter = matches!(**after, After::Letter { .. });
            let whose = if is_letter { "the dead letters" } else { "the clock" };
            return self.letter_failed(Error::panic(whose, message), work);
        }
        let error = Error::panic("the handler", message);
        self.drop_handler_and_fail(error, work)
    }

    /// Drops the handler that has failed; a panic of its destructor is attached to the failure.
    #[cold]
    pub(super) fn drop_handler_and_fail(
        mut self: Pin<&mut Self>,
        mut error: Error,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        let mut this = self.as_mut().project();
        if let Err(message) = panics::contain(|| this.handler.set(None)) {
            let number = this.job.as_ref().map_or(0, |job| job.number);
            let panicked = Error::panic("a destructor", &message);
            error = error.with_related([panicked.with_origin(work.info.message(number))]);
        }
        self.fail(error, work)
    }

    /// The handler wants the message again after a while.
    #[cold]
    pub(super) fn come_later(
        mut self: Pin<&mut Self>,
        wait: Duration,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        if self.job.as_ref().is_some_and(Job::is_by_hand) {
            // It has settled the message by itself: there is nothing to come again.
            return Poll::Ready(self.succeed(work));
        }
        if !work.shared.keeps_messages() {
            let text = "a handler may answer `Later` only where `retry` keeps the message for it";
            return self.fail(Error::validation(text), work);
        }
        let this = self.as_mut().project();
        book(this.booked, work.info, work.state);
        COUNTERS.messages_later.add(1);
        self.undo(Then::Again(wait, None), work)
    }

    /// An attempt has failed.
    #[cold]
    pub(super) fn fail(
        mut self: Pin<&mut Self>,
        error: Error,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        let this = self.as_mut().project();
        book(this.booked, work.info, work.state);
        *this.deadline = Tick::MAX;
        *this.stop = None;
        let Some(job) = this.job else { return Poll::Ready(SlotEnded::Booked) };
        job.failed += 1;
        let error = error.with_origin(work.info.message(job.number));
        let cancelled = work.shared.outer.is_cancelled();
        if cancelled {
            work.state.ask_to_look();
        }
        let settles = C::Receipt::SETTLES && job.receipt.delivered().is_some();
        if let Some(outcome) = job.receipt.delivered().and_then(Delivered::take_by_hand) {
            return self.failed_behind_its_settlement(&outcome, error, work);
        }
        let last = cancelled || work.info.leaving || !work.state.is_running() || work.state.hold;
        // A message that could not be cloned is not there for another attempt.
        let retry = work.shared.settings.retry.as_ref().filter(|_| !last && job.message.is_some());
        let then = match retry.and_then(|retry| retry.wait_after_error(job.failed, &error)) {
            Some(wait) => Then::Again(wait, Some(error)),
            None if settles => Then::GiveUp { error, interrupted: last },
            None if work.shared.settings.goes_on() => {
                Then::GiveUp { error, interrupted: cancelled }
            }
            None => {
                this.span.end(Err(&error));
                self.as_mut().end_staged();
                work.state.fail(error);
                return Poll::Ready(self.failed(work));
            }
        };
        self.undo(then, work)
    }

    /// The message has ended; what it staged is the drain's.
    pub(super) fn end_staged(mut self: Pin<&mut Self>) {
        let this = self.as_mut().project();
        *this.booked = false;
        *this.deadline = Tick::MAX;
        match this.step {
            Some(lent) if lent.is_home() => lent.hand_over(),
            _ => self.let_go(false),
        }
    }

    /// Drops what is in flight, wherever it is, and keeps every compensation.
    pub(super) fn abandon(mut self: Pin<&mut Self>, info: &mut Info, state: &mut State<C>) {
        let mut this = self.as_mut().project();
        let Some(mut job) = this.job.take() else { return };
        this.span.end_dropped();
        let ticket = std::mem::take(&mut job.receipt).into_ticket();
        if ticket.delivered().is_some() {
            // It goes back to its transport, and nowhere else.
            panics::drop_each(job.message.take());
        }
        if let Some(after) = this.after.take() {
            after.abandon(job, info, state);
        } else {
            book(this.booked, info, state);
            if let Err(message) = panics::contain(|| this.handler.set(None)) {
                let error = Error::panic("a destructor", &message);
                state.fail(error.with_origin(info.message(job.number)));
            }
            state.accounts.dropped.handlers += 1;
            state.accounts.change(info.row, |n| {
                n.in_flight -= 1;
                n.unfinished += 1;
            });
            panics::drop_contained(|| drop(job));
        }
        abandon_ticket(ticket, self.as_mut().project().step, state);
        self.end_staged();
    }
}
