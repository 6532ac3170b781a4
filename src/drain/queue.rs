//! Who waits for a permit, in the order in which they came.
//!
//! A list in one block of memory, linked both ways: whoever waits has a ticket, and may leave from
//! the middle. A permit that is given back goes to the first, which finds it when its turn comes.

/// The ticket of nobody.
pub(super) const NONE: u32 = u32::MAX;

pub(super) struct Queue {
    entries: Vec<Entry>,
    first: u32,
    last: u32,
    vacant: u32,
    waiting: usize,
    granted: usize,
}

/// A place of a bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) bank: u32,
    pub(super) place: u32,
}

struct Entry {
    /// Who waits; none once it was granted, or if the entry is vacant.
    spot: Option<Spot>,
    before: u32,
    after: u32,
}

/// What became of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    Granted,
}

impl Default for Queue {
    fn default() -> Self {
        Self { entries: Vec::new(), first: NONE, last: NONE, vacant: NONE, waiting: 0, granted: 0 }
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many wait.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many have a permit and have not come for it.
    pub(super) fn granted(&self) -> usize {
        self.granted
    }

    /// Lets somebody wait behind all others.
    pub(super) fn push(&mut self, spot: Spot) -> u32 {
        let entry = Entry { spot: Some(spot), before: self.last, after: NONE };
        let ticket = if self.vacant == NONE {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
        } else {
            let ticket = self.vacant;
            self.vacant = self.entries[ticket as usize].after;
            self.entries[ticket as usize] = entry;
            ticket
        };
        match self.last {
            NONE => self.first = ticket,
            last => self.entries[last as usize].after = ticket,
        }
        self.last = ticket;
        self.waiting += 1;
        ticket
    }

    /// Grants a permit to the first in the queue, who is to be polled.
    #[must_use = "it does not know yet"]
    pub(super) fn grant_first(&mut self) -> Option<Spot> {
        let ticket = self.first;
        if ticket == NONE {
            return None;
        }
        self.unlink(ticket);
        self.granted += 1;
        self.entries[ticket as usize].spot.take()
    }

    pub(super) fn standing(&self, ticket: u32) -> Standing {
        match self.entries[ticket as usize].spot {
            Some(_) => Standing::Waiting,
            None => Standing::Granted,
        }
    }

    /// Somebody comes for the permit, or goes away. Returns whether it had been granted.
    pub(super) fn leave(&mut self, ticket: u32) -> bool {
        let granted = self.entries[ticket as usize].spot.take().is_none();
        if granted {
            self.granted -= 1;
        } else {
            self.unlink(ticket);
        }
        self.entries[ticket as usize].after = self.vacant;
        self.vacant = ticket;
        if self.waiting == 0 && self.granted == 0 && self.entries.len() > 1_024 {
            *self = Self::default();
        }
        granted
    }

    fn unlink(&mut self, ticket: u32) {
        let Entry { before, after, .. } = self.entries[ticket as usize];
        match before {
            NONE => self.first = after,
            before => self.entries[before as usize].after = after,
        }
        match after {
            NONE => self.last = before,
            after => self.entries[after as usize].before = before,
        }
        self.waiting -= 1;
    }
}

#[cfg(all(test, not(any(watershed_loom, watershed_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn those_who_leave_from_the_middle_hold_up_nobody() {
        let mut queue = Queue::default();
        let tickets: Vec<_> = (0..100).map(|place| queue.push(Spot { bank: 0, place })).collect();
        for ticket in tickets.iter().filter(|ticket| *ticket % 3 != 0) {
            assert!(!queue.leave(*ticket), "it was not granted");
        }
        let granted: Vec<_> = std::iter::from_fn(|| queue.grant_first()).collect();
        let places: Vec<_> = granted.iter().map(|spot| spot.place).collect();
        assert_eq!(places, (0..100).step_by(3).collect::<Vec<_>>());
        for ticket in tickets.into_iter().step_by(3) {
            assert_eq!(queue.standing(ticket), Standing::Granted);
            assert!(queue.leave(ticket));
        }
        assert!(queue.is_empty() && queue.granted() == 0);
    }
}
