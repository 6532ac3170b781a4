//! Who may run a handler: whoever has a slot.
//!
//! There are at most as many slots as handlers may run at once. They are made when first needed and
//! used again in place; those that nobody has needed for a while are freed. Who finds none waits in
//! a queue, and a slot that is given back is the next one's.

use super::queue::{NONE, Queue, Spot, Standing};
use super::rate::Rate;
use super::slot::SlotBox;
use super::types::{DrainTypes, Drains};
use crate::clock::Tick;
use crate::panics;

/// Polls of a drain after which slots that were not needed in any of them are freed.
const PATIENCE: u32 = 64;

pub(super) struct Slots<C: DrainTypes> {
    limit: usize,
    /// How many there are: idle ones, granted ones, and those in use.
    made: usize,
    idle: Vec<SlotBox<C>>,
    /// For those who were granted one.
    reserved: Vec<SlotBox<C>>,
    pub(super) queue: Queue,
    /// How many attempts may begin, where that is limited.
    pub(super) rate: Option<Rate>,
    polls: u32,
    /// The fewest that were idle since slots were last freed.
    spare: usize,
}

/// What a lane hears that asks for a slot.
pub(super) enum Asked<C: DrainTypes> {
    Slot(SlotBox<C>),
    /// There is room for another one.
    Make,
    Wait,
}

/// What a rate allows those who wait.
pub(super) enum Paced {
    Granted(Spot),
    Until(Tick),
    Nothing,
}

impl<C: Drains> Slots<C> {
    pub(super) fn new(limit: usize, rate: Option<Rate>) -> Self {
        Self {
            limit,
            made: 0,
            idle: Vec::new(),
            reserved: Vec::new(),
            queue: Queue::default(),
            rate,
            polls: 0,
            spare: 0,
        }
    }

    /// Whether another attempt may begin, those not counted that were granted a slot.
    #[inline]
    pub(super) fn has_room(&mut self, now: impl FnOnce() -> Tick) -> bool {
        match &mut self.rate {
            Some(rate) => rate.room(now()) > self.queue.granted(),
            None => true,
        }
    }

    /// Asks for a slot with the ticket of a lane, if it has one, or queues.
    #[inline]
    pub(super) fn ask(
        &mut self,
        ticket: &mut u32,
        spot: Spot,
        now: impl FnOnce() -> Tick,
    ) -> Asked<C> {
        if *ticket != NONE {
            return self.come(ticket);
        }
        if self.queue.is_empty() && self.has_room(now) {
            if let Some(slot) = self.idle.pop() {
                self.spare = self.spare.min(self.idle.len());
                return Asked::Slot(slot);
            }
            if self.made < self.limit {
                self.made += 1;
                return Asked::Make;
            }
        }
        *ticket = self.queue.push(spot);
        Asked::Wait
    }

    /// Somebody who waits looks whether its slot is there.
    fn come(&mut self, ticket: &mut u32) -> Asked<C> {
        if self.queue.standing(*ticket) == Standing::Waiting {
            return Asked::Wait;
        }
        self.queue.leave(*ticket);
        *ticket = NONE;
        match self.reserved.pop() {
            Some(slot) => Asked::Slot(slot),
            None => Asked::Make,
        }
    }

    /// Somebody who waits, or was granted a slot and has not come for it, goes away.
    #[must_use = "whoever is granted a slot is to be polled"]
    pub(super) fn leave(&mut self, ticket: &mut u32) -> Option<Spot> {
        let ticket = std::mem::replace(ticket, NONE);
        if ticket == NONE || !self.queue.leave(ticket) {
            return None;
        }
        match self.reserved.pop() {
            Some(slot) => self.give_back(slot),
            None => self.forget(),
        }
    }

    /// Gives a slot back, or on to the one that has waited longest.
    #[inline]
    #[must_use = "whoever is granted a slot is to be polled"]
    pub(super) fn give_back(&mut self, slot: SlotBox<C>) -> Option<Spot> {
        let granted = self.grant_next();
        match granted {
            Some(_) => self.reserved.push(slot),
            None => self.idle.push(slot),
        }
        granted
    }

    /// Grants a slot that has become free to the one that has waited longest; where attempts are
    /// limited, that is for the rate to say.
    #[inline]
    fn grant_next(&mut self) -> Option<Spot> {
        if self.rate.is_none() { self.queue.grant_first() } else { None }
    }

    /// A slot that was to be made was not.
    fn forget(&mut self) -> Option<Spot> {
        let granted = self.grant_next();
        if granted.is_none() {
            self.made -= 1;
        }
        granted
    }

    /// Where attempts are limited: grants a slot to the first in the queue, if slots and the rate
    /// allow it, or tells when the rate will.
    pub(super) fn pace(&mut self, now: Tick) -> Paced {
        let Some(rate) = self.rate.as_mut().filter(|_| !self.queue.is_empty()) else {
            return Paced::Nothing;
        };
        if rate.room(now) <= self.queue.granted() {
            return Paced::Until(rate.next());
        }
        if let Some(slot) = self.idle.pop() {
            self.reserved.push(slot);
        } else if self.made < self.limit {
            self.made += 1;
        } else {
            return Paced::Nothing;
        }
        self.queue.grant_first().map_or(Paced::Nothing, Paced::Granted)
    }

    /// At the end of a poll: frees what was not needed for a while.
    pub(super) fn trim(&mut self) {
        self.polls += 1;
        if self.polls >= PATIENCE {
            let freed = self.idle.split_off(self.idle.len() - self.spare.min(self.idle.len()));
            self.made -= freed.len();
            self.polls = 0;
            self.spare = self.idle.len();
            if !freed.is_empty() {
                self.idle.shrink_to(2 * self.idle.len());
                panics::drop_each(freed);
            }
        }
    }

    /// Drops every slot that is not in use.
    pub(super) fn clear(&mut self) {
        panics::drop_each(self.idle.drain(..));
        panics::drop_each(self.reserved.drain(..));
    }
}
