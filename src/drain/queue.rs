//! Who waits for a permit, in the order in which they came. Only the first may take one.
//!
//! A list in one block of memory, linked both ways: whoever waits has a ticket, and may leave from
//! the middle. Turns are numbered, and who has had one comes back in the order in which these
//! began: one whose handler took longer has not had its next turn after those that came later.

/// The ticket of nobody.
pub(super) const NONE: u32 = u32::MAX;

/// How many of those who wait one that comes back looks at to find its place.
const MOST_STEPS: usize = 64;

pub(super) struct Queue {
    entries: Vec<QueueEntry>,
    first: u32,
    last: u32,
    vacant: u32,
    waiting: usize,
    /// Turns that have begun.
    turns: u64,
}

/// A place of a bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) bank: u32,
    pub(super) place: u32,
}

struct QueueEntry {
    /// Who waits.
    spot: Spot,
    /// The number of its last turn.
    turn: u64,
    before: u32,
    /// Of an entry that is vacant: the next one that is.
    after: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self { entries: Vec::new(), first: NONE, last: NONE, vacant: NONE, waiting: 0, turns: 0 }
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

    /// Who has waited longest.
    #[inline]
    pub(super) fn first(&self) -> Option<Spot> {
        (self.first != NONE).then(|| self.entries[self.first as usize].spot)
    }

    /// Whether nobody has waited longer.
    #[inline]
    pub(super) fn is_first(&self, ticket: u32) -> bool {
        self.first == ticket
    }

    /// The number of the last turn that began.
    #[inline]
    pub(super) fn last_turn(&self) -> u64 {
        self.turns
    }

    /// A turn begins. Returns its number.
    #[inline]
    pub(super) fn begin_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// Lets somebody wait behind all others. `turn` is its last one.
    pub(super) fn push(&mut self, spot: Spot, turn: u64) -> u32 {
        self.insert(spot, turn, self.last)
    }

    /// Lets somebody wait who has just had its turn, behind all whose last turns began before that.
    pub(super) fn push_again(&mut self, spot: Spot, turn: u64) -> u32 {
        let mut before = self.last;
        for _ in 0..MOST_STEPS {
            match self.entries.get(before as usize) {
                Some(entry) if entry.turn > turn => before = entry.before,
                _ => break,
            }
        }
        self.insert(spot, turn, before)
    }

    fn insert(&mut self, spot: Spot, turn: u64, before: u32) -> u32 {
        let after = match before {
            NONE => self.first,
            before => self.entries[before as usize].after,
        };
        let entry = QueueEntry { spot, turn, before, after };
        let ticket = if self.vacant == NONE {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
        } else {
            let ticket = self.vacant;
            self.vacant = self.entries[ticket as usize].after;
            self.entries[ticket as usize] = entry;
            ticket
        };
        self.link(before, ticket, ticket, after);
        self.waiting += 1;
        ticket
    }

    /// Has `next` follow `before`, and `last` come before `after`.
    fn link(&mut self, before: u32, next: u32, last: u32, after: u32) {
        match before {
            NONE => self.first = next,
            before => self.entries[before as usize].after = next,
        }
        match after {
            NONE => self.last = last,
            after => self.entries[after as usize].before = last,
        }
    }

    /// Lets somebody who waits be the first.
    pub(super) fn move_to_front(&mut self, ticket: u32) {
        if self.first == ticket {
            return;
        }
        let QueueEntry { before, after, .. } = self.entries[ticket as usize];
        self.link(before, after, before, after);
        let first = self.first;
        self.entries[ticket as usize].before = NONE;
        self.entries[ticket as usize].after = first;
        self.link(NONE, ticket, ticket, first);
    }

    /// Somebody waits no longer.
    pub(super) fn leave(&mut self, ticket: u32) {
        let QueueEntry { before, after, .. } = self.entries[ticket as usize];
        self.link(before, after, before, after);
        self.waiting -= 1;
        self.entries[ticket as usize].after = self.vacant;
        self.vacant = ticket;
        if self.waiting == 0 && self.entries.len() > 1_024 {
            *self = Self { turns: self.turns, ..Self::default() };
        }
    }
}

#[cfg(all(test, not(any(watershed_loom, watershed_shuttle))))]
mod tests {
    use super::*;

    fn spot(place: u32) -> Spot {
        Spot { bank: 0, place }
    }

    #[test]
    fn those_who_leave_from_the_middle_hold_up_nobody() {
        let mut queue = Queue::default();
        let tickets: Vec<_> = (0..100).map(|place| queue.push(spot(place), 0)).collect();
        let (left, stayed): (Vec<_>, Vec<_>) =
            tickets.into_iter().partition(|ticket| ticket % 3 != 0);
        for ticket in left {
            queue.leave(ticket);
        }
        for (ticket, place) in stayed.into_iter().zip((0..100).step_by(3)) {
            assert_eq!(queue.first(), Some(spot(place)));
            assert!(queue.is_first(ticket));
            queue.leave(ticket);
        }
        assert!(queue.is_empty() && queue.first().is_none());
    }

    #[test]
    fn who_is_moved_to_the_front_is_the_first_and_nobody_is_lost() {
        let mut queue = Queue::default();
        let tickets = [0, 1, 2, 3].map(|place| queue.push(spot(place), 0));
        for place in [3, 1, 1, 0] {
            queue.move_to_front(tickets[place]);
        }
        for place in [0, 1, 3, 2] {
            assert_eq!(queue.first(), Some(spot(place)));
            queue.leave(tickets[place as usize]);
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn those_who_come_back_wait_in_the_order_in_which_their_turns_began() {
        let mut queue = Queue::default();
        let mut tickets = [NONE; 6];
        tickets[0] = queue.push(spot(0), 0);
        for place in [2, 4, 3, 1_u32] {
            // Each has had the turn of its own number.
            tickets[place as usize] = queue.push_again(spot(place), u64::from(place));
        }
        // Whoever comes now is overtaken only by those who had no turn since its own.
        tickets[5] = queue.push(spot(5), 0);
        tickets[3] = {
            queue.leave(tickets[3]);
            queue.push_again(spot(3), 3)
        };
        for place in [0, 1, 2, 4, 5, 3_u32] {
            assert_eq!(queue.first(), Some(spot(place)));
            queue.leave(tickets[place as usize]);
        }
        assert!(queue.is_empty());
    }
}
