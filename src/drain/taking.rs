//! What a lane takes from its source, and what that gives back.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::lane::Lane;
use super::slot::Job;
use super::state::State;
use super::types::{DrainTypes, Drains};
use crate::error::Error;
use crate::panics;
use crate::settlement::{Given, Verdict};
use crate::source::{Body, Delivery, Raw, Receipt, Source};

/// What a source had.
pub(super) enum Taken<C: DrainTypes> {
    /// Whether it is booked as being in flight: it was held.
    Message(C::Message, C::Receipt, bool),
    /// It cannot be decoded; what it was, and whether it is booked.
    Failed(Error, Option<Raw>, C::Receipt, bool),
    /// Something that needs no handler.
    Other,
    Nothing,
    End,
}

impl<C: Drains> Lane<C> {
    /// Takes what the source has. A fault, or its end, is booked.
    #[inline]
    pub(super) fn take(
        self: Pin<&mut Self>,
        state: &mut State<C>,
        cx: &mut Context<'_>,
    ) -> Taken<C> {
        let mut this = self.project();
        let Some(mut source) = this.source.as_mut().as_pin_mut().filter(|_| !*this.ended) else {
            return Taken::End;
        };
        state.banks.new -= usize::from(std::mem::take(this.new));
        state.in_source = true;
        let polled = source.as_mut().poll_delivery(cx);
        let holds = source.holds();
        state.in_source = false;
        let held = std::mem::replace(this.held, holds);
        // Whether a window that was counted is out, and whether it is in flight now.
        let (is_out, booked) = match &polled {
            Poll::Ready(Some(Ok(delivery))) if held => match delivery.body {
                Body::Message(_) => (true, true),
                Body::Failed(..) => (!holds, !holds),
                Body::Skipped => (!holds, false),
                Body::Held => (false, false),
            },
            _ => (false, false),
        };
        if held != holds || is_out {
            let (before, now) = (u64::from(held), u64::from(holds));
            state.accounts.change(this.info.row, |n| {
                n.held = n.held + now - before;
                n.in_flight += u64::from(booked);
                // All that was in a window is lost.
                n.unfinished += u64::from(held && !holds && !is_out);
            });
        }
        let ready = matches!(polled, Poll::Ready(Some(Ok(_))));
        state.urgency.set_ready(*this.priority, this.ready, ready);
        match polled {
            Poll::Pending => Taken::Nothing,
            Poll::Ready(Some(Ok(delivery))) => match delivery.body {
                Body::Message(message) => {
                    this.info.number += 1;
                    Taken::Message(message, delivery.receipt, booked)
                }
                Body::Failed(error, raw) => {
                    this.info.number += 1;
                    Taken::Failed(error, raw, delivery.receipt, booked)
                }
                Body::Skipped => {
                    this.info.number += 1;
                    // No handler was called: it is no attempt.
                    state.accounts.change(this.info.row, |n| n.handled += 1);
                    delivery.receipt.into_ticket().give(&Verdict::Accept, Given::default());
                    Taken::Other
                }
                Body::Held => Taken::Other,
            },
            Poll::Ready(Some(Err(fault))) => {
                state.fail(fault.with_origin(this.info.message(0)));
                Taken::Nothing
            }
            Poll::Ready(None) => {
                *this.ended = true;
                if !*this.gated || this.many.as_ref().is_none_or(|many| many.is_empty()) {
                    state.in_source = true;
                    this.source.set(None);
                    state.in_source = false;
                }
                Taken::End
            }
        }
    }

    /// The source has panicked.
    #[cold]
    pub(super) fn blame_source(mut self: Pin<&mut Self>, message: &str, state: &mut State<C>) {
        state.in_source = false;
        // What it had taken is not its own.
        self.as_mut().give_back_of_source(state);
        let mut this = self.project();
        let mut error = Error::panic("the source", message).with_origin(this.info.message(0));
        if let Err(second) = panics::contain(|| this.source.set(None)) {
            error = error.with_related([Error::panic("a destructor", &second)]);
        }
        state.fail(error);
    }

    /// Puts back what the source has taken and not yielded: one by one, so a window that was one
    /// message is as many as were in it.
    pub(super) fn give_back_of_source(self: Pin<&mut Self>, state: &mut State<C>) {
        let mut this = self.project();
        let mut held = u64::from(std::mem::take(this.held));
        while let Some(mut source) = this.source.as_mut().as_pin_mut() {
            let taken = panics::contain(|| source.as_mut().take_held());
            match taken {
                Ok(Some(Delivery { body: Body::Message(message), receipt })) => {
                    let first = std::mem::take(&mut held);
                    let job = Job { receipt, message: Some(message), ..Job::new(0) };
                    state.give_back(this.info, job, |n| n.held -= first);
                }
                Ok(Some(Delivery { receipt, .. })) => {
                    receipt.into_ticket().give(&Verdict::UNTOUCHED, Given::default());
                }
                Ok(None) => break,
                Err(message) => {
                    state.fail(Error::panic("the source", &message));
                    break;
                }
            }
        }
        if held > 0 {
            state.give_back(this.info, Job::new(0), |n| n.held -= held);
        }
    }
}
