//! How one item reaches every destination.
//!
//! It is offered to them in their order. Those that wait for room do so together, each with a copy,
//! while the item itself stays in hand: whatever ends the broadcast, it is known who has the item,
//! and the item is still there for the others.

use std::task::{Context, Poll};
use std::time::Duration;

use super::super::destination::{Destination, Undelivered, closed, full};
use super::super::merge::POLLS_AT_ONCE;
use super::leg::{ItemStanding, Leg, LegOffer, is_closed};
use super::running::{BroadcastDoing, RunningBroadcast};
use super::settings::{OnClosed, Overflow};
use crate::clock::{Alarm, Tick};
use crate::error::Error;
use crate::source::{Source, Unsettled};

impl<S, D, U> RunningBroadcast<S, D, U>
where
    S: Source<Receipt = Unsettled, Message = D::Message>,
    D: Destination<Message: Clone>,
    U: FnMut(Undelivered<D::Message>),
{
    /// Ready when an item may be taken. One whose delivery is limited in time is taken first, so
    /// that there is something to limit; so is one that is not waited for.
    pub(super) fn poll_ready(&mut self) -> Poll<Result<(), Error>> {
        let waits = self.options.overflow == Overflow::Wait && self.options.item_timeout.is_none();
        let mut poll = Poll::Ready(Ok(()));
        for index in 0..self.legs.len() {
            self.doing = BroadcastDoing::Destination(index);
            match self.legs[index].poll_ready() {
                Poll::Ready(Err(error)) => self.lose(index, error)?,
                Poll::Pending if waits => poll = Poll::Pending,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        poll
    }

    pub(super) fn begin(&mut self, item: D::Message) {
        self.item = Some(item);
        self.items += 1;
        self.begin_again();
    }

    /// Delivers the item in hand, from the start.
    pub(super) fn begin_again(&mut self) {
        self.doing = BroadcastDoing::Own;
        self.kept = false;
        self.delivering = true;
        self.legs.iter_mut().for_each(Leg::begin);
        let clock = &self.clock;
        self.deadline = self.options.item_timeout.map(|timeout| clock.now() + timeout);
    }

    /// Offers the item where it was not yet, and goes on where it waits for room.
    pub(super) fn deliver(&mut self) -> Poll<Result<(), Error>> {
        let mut poll = Poll::Ready(Ok(()));
        let mut open = self.legs.iter().filter(|leg| !leg.standing.is_settled()).count();
        for index in 0..self.legs.len() {
            let was_open = !self.legs[index].standing.is_settled();
            if self.legs[index].standing == ItemStanding::Unsent {
                self.offers = self.offers.saturating_sub(1);
                self.offer(index, open == 1)?;
            }
            self.doing = BroadcastDoing::Destination(index);
            match self.legs[index].poll_send() {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.lose(index, error)?,
                Poll::Pending => poll = Poll::Pending,
            }
            open -= usize::from(was_open && self.legs[index].standing.is_settled());
        }
        poll
    }

    /// Offers the item to one destination: the item itself if nobody else waits for it, nobody has missed
    /// it, and it comes back if it is not taken.
    fn offer(&mut self, index: usize, is_last: bool) -> Result<(), Error> {
        self.doing = BroadcastDoing::Item;
        let is_missed = || self.legs.iter().any(|leg| leg.standing == ItemStanding::Missed);
        let is_itself = is_last && self.legs[index].gives_back() && !is_missed();
        let offered = if is_itself { self.item.take() } else { self.item.clone() };
        let Some(offered) = offered else { return Ok(()) };
        self.doing = BroadcastDoing::Destination(index);
        let Err(offer) = self.legs[index].offer(self.options.overflow, offered) else {
            return Ok(());
        };
        self.doing = BroadcastDoing::Item;
        let (left, result) = match offer {
            LegOffer::Full(item) => {
                let copy = if is_itself { self.item.insert(item).clone() } else { item };
                self.legs[index].wait_with(copy);
                return Ok(());
            }
            LegOffer::Refused(item) => (Some(item), Ok(())),
            LegOffer::NoRoom(item) => {
                self.legs[index].report.failed = true;
                (Some(item), Err(full().with_metadata("destination", self.legs[index].position)))
            }
            LegOffer::Failed(error, item) => (item, self.lose(index, error)),
        };
        if is_itself {
            self.item = left;
        }
        result
    }

    /// Goes on without a destination, or says why not.
    fn lose(&mut self, index: usize, error: Error) -> Result<(), Error> {
        let leg = &mut self.legs[index];
        let position = leg.position;
        leg.detach();
        let was_removed = self.door.as_ref().is_some_and(|door| door.lose(position));
        if was_removed && is_closed(&error) {
            // It went before the broadcast heard that it was to go.
            leg.report.removed = true;
            return Ok(());
        }
        if self.options.on_closed == OnClosed::Detach && is_closed(&error) {
            leg.report.detached = true;
            let can_come = || self.door.as_ref().is_some_and(|door| door.is_open());
            if self.legs.iter().any(Leg::is_attached) || can_come() {
                return Ok(());
            }
        }
        self.legs[index].report.failed = true;
        Err(error.with_metadata("destination", position))
    }

    /// Waits for the end of the item's time, if it has one.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.doing = BroadcastDoing::Own;
        self.offers = POLLS_AT_ONCE;
        let Some(deadline) = self.deadline.filter(|deadline| *deadline != Tick::MAX) else {
            return Poll::Pending;
        };
        let clock = &self.clock;
        let sleep = self.sleep.get_or_insert_with(|| Alarm::at(clock, deadline));
        let timeout = self.options.item_timeout.unwrap_or(Duration::MAX);
        sleep.poll(cx).map(|()| Err(Error::timeout("the delivery of an item", timeout)))
    }

    /// Lets buffered items go on, whoever else has to wait; ready only with an error.
    pub(super) fn poll_flush(&mut self) -> Poll<Error> {
        for index in 0..self.legs.len() {
            self.doing = BroadcastDoing::Destination(index);
            if let Poll::Ready(Err(error)) = self.legs[index].poll_flush() {
                if let Err(error) = self.lose(index, error) {
                    return Poll::Ready(error);
                }
            }
        }
        Poll::Pending
    }

    /// Hears of destinations that nobody receives from any more; ready only with an error.
    pub(super) fn poll_closed(&mut self) -> Poll<Error> {
        for index in 0..self.legs.len() {
            self.doing = BroadcastDoing::Destination(index);
            if self.legs[index].poll_closed().is_ready() {
                if let Err(error) = self.lose(index, closed()) {
                    return Poll::Ready(error);
                }
            }
        }
        Poll::Pending
    }
}
