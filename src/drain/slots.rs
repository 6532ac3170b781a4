//! Who may run a handler: whoever has a slot.
//!
//! There are at most as many slots as handlers may run at once. They are made when first needed and
//! used again in place. Who finds none waits in a queue, and only the first in it may take a slot:
//! whoever makes one free has the first polled, in whatever bank that is, so that messages begin in
//! the order of the queue.

use super::queue::{NONE, Queue, Spot};
use super::rate::Rate;
use super::slot::{Slot, SlotBox};
use super::types::{DrainTypes, Drains};
use crate::clock::Tick;
use crate::panics;

/// Bytes of slots that are kept for later messages, where no more handlers run than that.
const SPARE_BYTES: usize = 256 << 10;

pub(super) struct Slots<C: DrainTypes> {
    limit: usize,
    /// How many there are: idle ones, and those in use.
    made: usize,
    idle: Vec<SlotBox<C>>,
    pub(super) queue: Queue,
    /// How many attempts may begin, where that is limited.
    pub(super) rate: Option<Rate>,
}

/// What a lane hears that asks for a slot.
pub(super) enum SlotAnswer<C: DrainTypes> {
    Slot(SlotBox<C>),
    /// There is room for another one.
    Make,
    Wait,
}

/// What a rate allows those who wait.
pub(super) enum Paced {
    /// The first may begin.
    Now(Spot),
    Until(Tick),
    Nothing,
}

impl<C: Drains> Slots<C> {
    pub(super) fn new(limit: usize, rate: Option<Rate>) -> Self {
        Self { limit, made: 0, idle: Vec::new(), queue: Queue::default(), rate }
    }

    /// Whether the rate lets another attempt begin.
    #[inline]
    pub(super) fn has_room(&mut self, now: impl FnOnce() -> Tick) -> bool {
        match &mut self.rate {
            Some(rate) => rate.room(now()) > 0,
            None => true,
        }
    }

    #[inline]
    pub(super) fn is_free(&self) -> bool {
        !self.idle.is_empty() || self.made < self.limit
    }

    /// Asks for a slot with the ticket of a lane, if it has one, or queues. `turn` is its last one.
    #[inline]
    pub(super) fn ask(
        &mut self,
        ticket: &mut u32,
        spot: Spot,
        turn: u64,
        now: impl FnOnce() -> Tick,
    ) -> SlotAnswer<C> {
        // Where nobody waits, nobody is the first.
        if self.queue.is_first(*ticket) && self.has_room(now) {
            if let Some(slot) = self.idle.pop() {
                return SlotAnswer::Slot(slot);
            }
            if self.made < self.limit {
                self.made += 1;
                return SlotAnswer::Make;
            }
        }
        if *ticket == NONE {
            *ticket = self.queue.push(spot, turn);
        }
        SlotAnswer::Wait
    }

    /// Somebody waits no longer.
    #[inline]
    #[must_use = "whoever may take a slot is to be polled"]
    pub(super) fn leave(&mut self, ticket: &mut u32) -> Option<Spot> {
        let ticket = std::mem::replace(ticket, NONE);
        if ticket == NONE {
            return None;
        }
        let was_first = self.queue.is_first(ticket);
        self.queue.leave(ticket);
        if was_first { self.first_served() } else { None }
    }

    /// The first in the queue, if there is a slot for it.
    #[inline]
    pub(super) fn first_served(&self) -> Option<Spot> {
        if self.is_free() { self.queue.first() } else { None }
    }

    /// Gives a slot back.
    #[inline]
    #[must_use = "whoever may take a slot is to be polled"]
    pub(super) fn give_back(&mut self, slot: SlotBox<C>) -> Option<Spot> {
        self.idle.push(slot);
        self.queue.first()
    }

    /// Where attempts are limited: whether the first in the queue may begin, or when it may.
    pub(super) fn pace(&mut self, now: Tick) -> Paced {
        let Some(first) = self.first_served() else { return Paced::Nothing };
        let Some(rate) = &mut self.rate else { return Paced::Nothing };
        if rate.room(now) > 0 { Paced::Now(first) } else { Paced::Until(rate.next()) }
    }

    /// Frees what few handlers do not need: what is kept is bounded, or as much as is in use.
    #[inline]
    pub(super) fn trim(&mut self) {
        let spare = (SPARE_BYTES / size_of::<Slot<C>>()).max(1);
        if self.idle.len() > spare && self.idle.len() > self.made - self.idle.len() {
            self.free_all_but(spare);
        }
    }

    #[cold]
    fn free_all_but(&mut self, spare: usize) {
        let freed = self.idle.split_off(spare.max(self.made - self.idle.len()));
        self.made -= freed.len();
        self.idle.shrink_to(2 * self.idle.len());
        panics::drop_each(freed);
    }

    /// Drops every slot that is not in use.
    pub(super) fn clear(&mut self) {
        panics::drop_each(self.idle.drain(..));
    }
}
