//! Accepts on their way to the state of a transport, without its lock.
//!
//! Nearly every message is handled, has nothing to undo, and is accepted; the next thing that happens at
//! its transport is that another message is taken, under the lock. So its number is left here, which is
//! two stores, and whoever has the lock next takes it in first: nobody ever sees a state without it, and
//! a message has one lock in all instead of two. (A lock that nobody waits for is 12 to 14 ns.)
//!
//! Only the drain that drives the transport leaves anything here, while it is polled, and it drives its
//! transports behind that: so there is one writer at a time, and nobody has to be woken.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Transport;
use super::entries::{MessagePhase, Said};
use super::state::TransportState;
use crate::settlement::{Given, Handled, Key, Verdict};

/// How many there is room for. Between two messages there is one.
const ROOM: usize = 32;

pub(super) struct Accepts {
    ring: [AtomicU64; ROOM],
    /// How many were left here so far, and how many of them were taken in.
    left: AtomicUsize,
    taken: AtomicUsize,
}

impl Default for Accepts {
    fn default() -> Self {
        let (left, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { ring: [const { AtomicU64::new(0) }; ROOM], left, taken }
    }
}

impl Accepts {
    /// Leaves one here, if there is room.
    #[inline]
    pub(super) fn leave(&self, key: Key) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left.wrapping_sub(self.taken.load(Ordering::Acquire)) >= ROOM {
            return false;
        }
        self.ring[left % ROOM].store(key.number(), Ordering::Relaxed);
        self.left.store(left.wrapping_add(1), Ordering::Release);
        true
    }

    /// Takes in what is here. For whoever has the lock.
    #[inline]
    pub(super) fn take_each(&self, mut take: impl FnMut(u64)) {
        let left = self.left.load(Ordering::Acquire);
        let mut taken = self.taken.load(Ordering::Relaxed);
        if taken == left {
            return;
        }
        while taken != left {
            take(self.ring[taken % ROOM].load(Ordering::Relaxed));
            taken = taken.wrapping_add(1);
        }
        self.taken.store(taken, Ordering::Release);
    }
}

impl<T: Transport> TransportState<T> {
    /// The message with this number was handled, and there is nothing to be undone: the same as
    /// [`give`](Self::give) says, in the fewest steps where nobody waits for it. The drain does not have
    /// to be woken.
    #[inline]
    pub(super) fn accept(&mut self, number: u64) {
        let key = self.entries.key(number);
        let is_usual =
            !self.able.prefix && self.failing == 0 && self.options.max_deliveries.is_none();
        let entry = self
            .entries
            .get_mut(key)
            .filter(|entry| is_usual && entry.phase == MessagePhase::Taken && !entry.in_hand);
        let Some(entry) = entry else {
            let given = Given { tag: None, handled: Handled::Well };
            self.give(key, Verdict::Accept, given);
            return;
        };
        entry.phase = MessagePhase::Decided;
        entry.verdict = Said::Accept;
        self.unsettled += 1;
        self.outbox.push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(place: u32) -> Key {
        Key { desk: 0, place, turn: place + 7 }
    }

    fn take(accepts: &Accepts) -> Vec<Key> {
        let mut taken = Vec::new();
        accepts.take_each(|number| taken.push(Key::at_desk(0, number)));
        taken
    }

    #[test]
    fn what_is_left_is_taken_once_and_in_order_round_and_round() {
        let accepts = Accepts::default();
        for first in (0..10 * 20).step_by(20) {
            assert!((first..first + 20).all(|place| accepts.leave(key(place))));
            let left: Vec<_> = (first..first + 20).map(key).collect();
            assert_eq!(take(&accepts), left);
            assert_eq!(take(&accepts), []);
        }
    }

    #[test]
    fn nothing_is_left_where_there_is_no_room() {
        let accepts = Accepts::default();
        let left = (0..100).take_while(|place| accepts.leave(key(*place))).count();
        assert_eq!((left, take(&accepts).len()), (ROOM, ROOM));
        assert!(accepts.leave(key(1)));
    }
}
