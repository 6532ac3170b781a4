//! What becomes of messages that have a transport, from the end of their handler on.
//!
//! A message that was handled and has staged something keeps its step until it is settled: the slot
//! goes on with another one. One that has failed is undone in its slot and then given its verdict. What
//! a drain that is dropped has not settled is staged to be released, below what its handler staged.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::after::Then;
use super::letters::DeadLetters;
use super::order::Order;
use super::slot::{Job, Slot, SlotEnded, Work, book};
use super::state::{Info, Shared, State};
use super::types::Drains;
use super::unsettled::KeptMessage;
use crate::error::Error;
use crate::panics;
use crate::settlement::{Delivered, Given, Handled, Key, Settled, Ticket, Verdict};
use crate::source::Receipt;
use crate::step::LentStep;

/// Whether a message is no longer ours.
pub(super) fn is_lost<C: Drains>(job: Option<&Job<C>>) -> bool {
    let delivered = job.and_then(|job| job.receipt.delivered());
    delivered.is_some_and(|it| it.is_lost() && !it.is_by_hand())
}

impl<C: Drains> Job<C> {
    /// Whether it is one of these messages.
    pub(super) fn is_settled_by(&self, keys: &BTreeSet<Key>) -> bool {
        let delivered = self.receipt.delivered();
        delivered.is_some_and(|it| it.receipts().iter().any(|(_, key)| keys.contains(key)))
    }

    /// Whether its transport wants the message back: it is not tried again.
    pub(super) fn is_asked_back(&self) -> bool {
        C::Receipt::SETTLES && self.receipt.delivered().is_some_and(Delivered::is_asked_back)
    }

    /// Whether it is settled by whoever has its step.
    pub(super) fn is_by_hand(&self) -> bool {
        C::Receipt::SETTLES && self.receipt.delivered().is_some_and(Delivered::is_by_hand)
    }

    /// Gives the verdict on the message, if it has a transport.
    pub(super) fn settle(&mut self, verdict: &Verdict) {
        let handled = if self.failed > 0 && self.begun > 0 { Handled::Badly } else { Handled::No };
        let receipt = std::mem::take(&mut self.receipt);
        receipt.into_ticket().give(verdict, Given { tag: None, handled });
    }
}

/// Where a message went that was given up and nobody has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// Back to its transport, or it has none.
    Back,
    /// The transport keeps it, or puts it aside when it has come too often: nobody has to end for it.
    Aside,
    /// Nobody takes it.
    Nowhere,
}

/// The verdict on a message that was given up without a letter.
pub(super) fn settle_failed<C: Drains>(
    job: &mut Job<C>,
    error: &Error,
    undone: bool,
    interrupted: bool,
    is_message: bool,
    shared: &Shared<C>,
) -> Gone {
    let Some(delivered) = job.receipt.delivered().filter(|_| C::Receipt::SETTLES) else {
        return Gone::Back;
    };
    let deliveries = delivered.facts().iter().filter_map(|facts| facts.deliveries).max();
    let retry = shared.settings.retry.as_ref().filter(|_| !interrupted);
    let after = retry.map(|retry| retry.delay_after(deliveries.unwrap_or(1)));
    if undone && (interrupted || is_message) {
        if !interrupted {
            // A key function has panicked, say: that is a delivery like any other.
            job.begun = job.begun.max(1);
        }
        job.settle(&Verdict::Release { after, begun: job.begun > 0 });
        return Gone::Back;
    }
    // It cannot be handled, or cannot be undone: to come again does not help it.
    match put_aside(delivered, error, after) {
        Some(verdict) => {
            job.settle(&verdict);
            Gone::Aside
        }
        None => Gone::Nowhere,
    }
}

/// The verdict on a message that is to come to no handler again, where its transport keeps such, or puts
/// them aside when they have come too often.
pub(super) fn put_aside(
    delivered: &Delivered,
    error: &Error,
    after: Option<Duration>,
) -> Option<Verdict> {
    let able = delivered.receipts().first().map(|(desk, _)| desk.able())?;
    if able.rejects {
        return Some(Verdict::Reject { error: error.clone() });
    }
    // It counts as begun, or it would never have come too often.
    able.redrives.then_some(Verdict::Release { after, begun: true })
}

/// The message of a drain that is over: it is released by whoever undoes what its handler did, which
/// is staged by now.
pub(super) fn abandon_ticket<C: Drains>(
    ticket: Ticket,
    step: &mut Option<LentStep>,
    state: &mut State<C>,
) {
    let Some(delivered) = ticket.delivered() else { return };
    if let Some(outcome) = delivered.take_by_hand() {
        // The handler was about to settle it, or has: what it did stays.
        ticket.settled_by_hand(&outcome);
        if let Some(lent) = step.take() {
            lent.let_go(true);
        }
        return;
    }
    let number = delivered.order();
    let scope = step.as_ref().map_or(state.scope.scope(), |lent| lent.scope());
    if let Some(release) = ticket.into_release() {
        scope.stage_behind(number, release);
    }
}

impl<C: Drains> Slot<C> {
    /// The message was handled: its transport is told, and its step waits for the answer if anything
    /// was staged.
    #[inline]
    pub(super) fn accept(mut self: Pin<&mut Self>, info: &Info, state: &mut State<C>) {
        let this = self.as_mut().project();
        let step = this.step.as_ref();
        let is_touched = step.is_some_and(|lent| lent.is_touched() || !lent.is_home());
        // What is next of its key is watched as long as it may be refused.
        let is_watched = is_touched || <C::Order as Order<C::Message>>::KEYED;
        if is_watched || !this.job.as_mut().is_some_and(|job| job.receipt.accept()) {
            self.give_accept(info, state);
        }
    }

    #[inline(never)]
    fn give_accept(self: Pin<&mut Self>, info: &Info, state: &mut State<C>) {
        let this = self.project();
        let Some(job) = this.job.as_mut() else { return };
        let ticket = std::mem::take(&mut job.receipt).into_ticket();
        let Some(delivered) = ticket.delivered() else { return };
        if let Some(outcome) = delivered.take_by_hand() {
            return ticket.settled_by_hand(&outcome);
        }
        let touched = this.step.take_if(|lent| lent.is_touched() || !lent.is_home());
        let mut kept = None;
        if touched.is_some() {
            *this.stop = None;
            let message = job.message.take().filter(|_| C::Letters::GIVEN);
            let (number, attempts) = (job.number, job.begun);
            kept = message.map(|message| {
                Box::new(KeptMessage { message, source: info.origin.clone(), number, attempts })
            });
        }
        let is_watched = touched.is_some() || <C::Order as Order<C::Message>>::KEYED;
        let tag = is_watched.then(|| state.settling.add(touched, delivered.clone(), kept));
        ticket.give(&Verdict::Accept, Given { tag, handled: Handled::Well });
    }

    /// Whoever has a step of the message has settled it, while it was undone or waited: there is nothing
    /// to come again.
    #[cold]
    pub(super) fn settled_meanwhile(
        mut self: Pin<&mut Self>,
        work: &mut Work<'_, '_, C>,
    ) -> SlotEnded<C> {
        if let Some(job) = self.as_mut().project().job {
            job.settle(&Verdict::UNDONE);
        }
        self.failed(work)
    }

    /// What becomes of a message that comes from somewhere else where that took too long: it is no longer
    /// ours, or will not be for as long as a handler may take.
    #[inline(never)]
    pub(super) fn waited_in_vain(
        mut self: Pin<&mut Self>,
        work: &mut Work<'_, '_, C>,
    ) -> Option<Poll<SlotEnded<C>>> {
        let this = self.as_mut().project();
        let job = this.job.as_mut()?;
        let is_lost = is_lost(Some(job));
        if !is_lost && job.is_by_hand() {
            return Some(Poll::Ready(self.settled_meanwhile(work)));
        }
        let is_timed = work.shared.settings.message_timeout.is_some();
        let has_time = || job.receipt.delivered().is_none_or(Delivered::has_time);
        if !is_lost && (!is_timed || has_time()) {
            return None;
        }
        job.begun -= 1;
        *this.booked = true;
        Some(self.lost(work))
    }

    /// The message is no longer ours: its handler is dropped, and what it did is undone.
    #[cold]
    pub(super) fn lost(mut self: Pin<&mut Self>, work: &mut Work<'_, '_, C>) -> Poll<SlotEnded<C>> {
        let mut this = self.as_mut().project();
        if let Some(stop) = this.stop.take() {
            stop.cancel();
        }
        book(this.booked, work.info, work.state);
        let number = this.job.as_ref().map_or(0, |job| job.number);
        if let Err(text) = panics::contain(|| this.handler.set(None)) {
            work.state
                .fail(Error::panic("a destructor", &text).with_origin(work.info.message(number)));
        }
        self.undo(Then::Lost, work)
    }

    /// What a message did that is no longer ours is undone, as far as it could be.
    pub(super) fn forget_loss(self: Pin<&mut Self>, state: &mut State<C>) {
        let delivered = self.project().job.as_ref().and_then(|job| job.receipt.delivered());
        for (_, key) in delivered.iter().flat_map(|it| it.receipts()) {
            state.settling.lost.remove(key);
        }
    }

    /// What a message did that is no longer ours is undone.
    pub(super) fn lost_and_undone(
        mut self: Pin<&mut Self>,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        self.as_mut().forget_loss(work.state);
        let this = self.as_mut().project();
        this.span.end_dropped();
        *this.booked = false;
        if let Some(mut job) = this.job.take() {
            // Where it is still ours, or some of its window.
            let begun = job.begun > 0;
            job.settle(&Verdict::Release { after: None, begun });
            panics::drop_contained(|| drop(job));
        }
        work.state.accounts.change(work.info.row, |n| {
            n.in_flight -= 1;
            n.unfinished += 1;
        });
        Poll::Ready(SlotEnded::Booked)
    }

    /// The handler has failed behind a settlement of its own: what it did stays with that.
    #[cold]
    pub(super) fn failed_behind_its_settlement(
        mut self: Pin<&mut Self>,
        outcome: &Settled,
        error: Error,
        work: &mut Work<'_, '_, C>,
    ) -> Poll<SlotEnded<C>> {
        let this = self.as_mut().project();
        this.span.end(Err(&error));
        if let Some(job) = this.job.as_mut() {
            std::mem::take(&mut job.receipt).into_ticket().settled_by_hand(outcome);
        }
        self.as_mut().let_go(true);
        if !work.shared.settings.goes_on() {
            work.state.fail(error);
        }
        Poll::Ready(self.failed(work))
    }
}
