//! Messages that end without a verdict: what is no longer ours, and what nobody will settle.

use super::Transport;
use super::ends::End;
use super::entries::{KeptReceipt, MessagePhase, OpenReceipt};
use super::lost::Where;
use super::part::Part;
use super::state::TransportState;
use crate::settlement::{Assignment, Key, News};

impl<T: Transport> TransportState<T> {
    /// The receipt is no longer ours.
    pub(super) fn lose(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let (phase, id, place) = (entry.phase, entry.part, entry.place);
        match phase {
            // Its own answer counts.
            MessagePhase::Sending => return,
            MessagePhase::ByHand if !self.able.prefix => {
                entry.lost_by_hand = true;
                return;
            }
            MessagePhase::Taken => {
                self.tell_loss(key);
                self.recalls += 1;
                // It may be in an open window.
                self.wake_part(id);
            }
            MessagePhase::Buffered => self.take_from_buffer(id, key),
            MessagePhase::Decided | MessagePhase::ByHand => {}
        }
        let prefix = self.parts.get_mut(&id).and_then(|part| part.prefix.as_mut());
        if let (Some(prefix), true) = (prefix, phase != MessagePhase::Buffered) {
            prefix.mark_back(place);
            prefix.ready.retain(|ready| *ready != key);
        }
        self.conclude(key, End::Lost);
    }

    /// Whoever works on it hears of that.
    pub(super) fn tell_loss(&mut self, key: Key) {
        match self.news.back_mut() {
            Some(News::Lost(keys)) => keys.push(key),
            _ => self.news.push_back(News::Lost(vec![key])),
        }
        self.wake_driver();
    }

    /// A whole partition is no longer ours.
    pub(super) fn lose_part(&mut self, id: u64) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        part.end();
        (part.left, part.lost) = (true, true);
        let assignment = part.assignment;
        let keys: Vec<_> = self.entries.of(&part.open).map(|(key, _)| key).collect();
        self.forget_assignment(assignment);
        self.partitions.remove_source(assignment, id);
        self.wake_part(id);
        for key in keys {
            self.lose(key);
        }
        self.end_part(id);
    }

    /// A partition is not ours any more.
    pub(super) fn forget_assignment(&mut self, assignment: Assignment) {
        self.partitions.forget(assignment);
        let rewind = self.rewinds.remove(&assignment).map(KeptReceipt::Shared);
        self.aside.receipts.extend(rewind);
    }

    /// There is no verdict, and there will be none. In prefix order nothing behind it is settled.
    pub(super) fn abandon(&mut self, key: Key) {
        let in_order = self.able.prefix;
        let Some(entry) = self.entries.get_mut(key) else { return self.is_undone(key) };
        let (id, phase, place) = (entry.part, entry.phase, entry.place);
        if phase == MessagePhase::Sending {
            return;
        }
        let receipt = if in_order { entry.share() } else { None };
        self.conclude(key, End::Abandoned);
        let is_driven = !self.detached;
        let part = self.parts.get_mut(&id).filter(|part| is_driven && !part.lost);
        let Some(Part { prefix: Some(prefix), .. }) = part else { return };
        let behind = prefix.stick(place);
        if let Some(receipt) = receipt.filter(|_| prefix.is_first(place)) {
            self.rewind_to(id, receipt);
        }
        if let Some((other, in_front)) = behind {
            let receipt = self.entries.get_mut(other).and_then(OpenReceipt::share);
            if let Some(receipt) = receipt.filter(|_| in_front) {
                self.rewind_to(id, receipt);
            }
            self.conclude(other, if in_front { End::Abandoned } else { End::Settled });
        }
        self.move_back(id);
        self.go_on_in_order(id);
    }

    /// What was lost is undone: it may be begun once more.
    pub(super) fn is_undone(&mut self, key: Key) {
        let Some((place, facts)) = self.lost_in_work.remove(key) else { return };
        if let Some(facts) = facts {
            if let Some(id) = &facts.id {
                self.forget_name(key, id);
            }
            if let Some(group) = &facts.group {
                self.is_undone_in_group(group);
            }
        }
        match place {
            Where::Source(id) => self.has_left(id),
            Where::Partition(partition) => {
                for id in self.partitions.sources_of(partition) {
                    self.wake_part(id);
                }
            }
        }
    }

    /// Where nothing is taken before what a message of this source did is undone.
    pub(super) fn where_undone(&self, id: u64) -> Where {
        match self.parts.get(&id).filter(|_| self.able.prefix) {
            Some(part) => Where::Partition(part.assignment.partition),
            None => Where::Source(id),
        }
    }
}
