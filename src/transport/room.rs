//! Who may take a message while many verdicts have no outcome: whoever has waited for that longest.
//!
//! Sources that have a message and find no room wait in a line. When there is room again all of them are
//! woken, and one that comes before its turn lets the others go first, once: some of them may not be
//! able to take anything now, and nobody waits for those.

use std::collections::VecDeque;

use super::Transport;
use super::state::TransportState;

/// The sources that wait, and how often there was room again.
#[derive(Default)]
pub(super) struct Room {
    /// With their tickets, in the order in which they came; among them some that wait no longer.
    line: VecDeque<(u64, u64)>,
    tickets: u64,
    epoch: u64,
    /// How many wait.
    pub(super) waiting: usize,
}

impl<T: Transport> TransportState<T> {
    /// Whether messages may be taken at all.
    pub(super) fn has_room(&self) -> bool {
        self.unsettled < self.options.max_unsettled
    }

    /// Whether this source may take one. Whoever has waited for room longest is first, and who comes before
    /// its turn lets the others go first once. `asks`: it is woken when it may be its turn.
    pub(super) fn has_room_for(&mut self, id: u64, asks: bool) -> bool {
        let (has_room, epoch) = (self.has_room(), self.room.epoch);
        let is_first = has_room && self.is_first_in_line(id);
        let Some(part) = self.parts.get_mut(&id) else { return has_room };
        if is_first || has_room && part.let_others_go == Some(epoch) {
            self.leave_room_line(id);
            return true;
        }
        if !asks {
            return false;
        }
        part.let_others_go = Some(epoch);
        if part.waits_for_room.is_none() {
            self.room.tickets += 1;
            self.room.waiting += 1;
            part.waits_for_room = Some(self.room.tickets);
            self.room.line.push_back((id, self.room.tickets));
        }
        false
    }

    /// Whether no more wait in front of it than there is room for.
    fn is_first_in_line(&self, id: u64) -> bool {
        let ticket = self.parts.get(&id).and_then(|part| part.waits_for_room).unwrap_or(u64::MAX);
        let in_front = self.room.line.iter().filter(|(other, theirs)| {
            let waits = self.parts.get(other).and_then(|part| part.waits_for_room);
            *theirs < ticket && waits == Some(*theirs)
        });
        let free = self.options.max_unsettled - self.unsettled;
        self.room.waiting == 0 || in_front.take(free).count() < free
    }

    pub(super) fn leave_room_line(&mut self, id: u64) {
        if let Some(part) = self.parts.get_mut(&id) {
            self.room.waiting -= usize::from(part.waits_for_room.take().is_some());
        }
    }

    /// A verdict is no longer without an outcome: it has one, or is taken back.
    pub(super) fn makes_room(&mut self) {
        let was_full = !self.has_room();
        self.unsettled -= 1;
        if was_full {
            self.room.epoch += 1;
            self.wake_room_line();
        }
    }

    /// One that let others go first is behind them.
    pub(super) fn lets_others_go(&mut self) {
        if self.has_room() {
            self.wake_room_line();
        }
    }

    /// There is room again: those who wait are woken in their order.
    fn wake_room_line(&mut self) {
        let parts = &mut self.parts;
        let waits = |(id, ticket): &(u64, u64)| {
            parts.get(id).is_some_and(|part| part.waits_for_room == Some(*ticket))
        };
        self.room.line.retain(waits);
        let line = self.room.line.iter();
        let wakers = line.filter_map(|(id, _)| parts.get_mut(id)?.waker.take());
        self.aside.wakers.extend(wakers);
    }
}
