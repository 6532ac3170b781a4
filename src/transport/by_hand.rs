//! Messages that their handlers settle themselves: how that goes, as long as the drain has them.

use super::Transport;
use super::ends::End;
use super::entries::{MessagePhase, Said};
use super::state::TransportState;
use crate::settlement::{Key, Settled};

impl<T: Transport> TransportState<T> {
    /// The handler settles by itself, or has not after all. Returns what is not known any more.
    pub(super) fn set_by_hand(&mut self, key: Key, outcome: Option<Settled>) -> Option<Settled> {
        let Some(outcome) = outcome else {
            let entry =
                self.entries.get_mut(key).filter(|entry| entry.phase == MessagePhase::ByHand);
            // A loss that came meanwhile was not told, and is one all the same.
            match entry {
                Some(entry) if entry.lost_by_hand => {
                    entry.phase = MessagePhase::Taken;
                    self.lose(key);
                }
                Some(entry) => {
                    entry.phase = MessagePhase::Taken;
                    self.mind_lease(key);
                    self.wake_driver();
                }
                None if self.lost_in_work.contains(key) => self.tell_loss(key),
                None => {}
            }
            return self.by_hand.remove(&key);
        };
        // What is lost is with the drain until it is undone.
        let mut is_with_the_drain =
            self.lost_in_work.contains(key) || self.by_hand.contains_key(&key);
        if let Some(entry) = self.entries.get_mut(key) {
            is_with_the_drain |= matches!(entry.phase, MessagePhase::Taken | MessagePhase::ByHand);
            if entry.phase == MessagePhase::Taken {
                entry.phase = MessagePhase::ByHand;
            }
        }
        if is_with_the_drain { self.by_hand.insert(key, outcome) } else { Some(outcome) }
    }

    /// The handler has settled by itself.
    pub(super) fn settled_by_hand(&mut self, key: Key, end: End) {
        let Some(entry) = self.entries.get_mut(key) else { return self.is_undone(key) };
        if !matches!(entry.phase, MessagePhase::Taken | MessagePhase::ByHand) {
            return;
        }
        entry.verdict = Said::Accept;
        let (part, place) = (entry.part, entry.place);
        let prefix = self.parts.get_mut(&part).and_then(|part| part.prefix.as_mut());
        if let Some(prefix) = prefix {
            // The position still has to pass it.
            entry.phase = MessagePhase::Decided;
            self.unsettled += 1;
            prefix.done(place);
            return self.go_on_in_order(part);
        }
        self.conclude(key, end);
    }
}
