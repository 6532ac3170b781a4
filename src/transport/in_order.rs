//! Prefix order, as verdicts come in: what is committed next, what goes back, and where the next drain
//! goes on.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::Transport;
use super::ends::End;
use super::entries::{self, KeptReceipt};
use super::prefix::{Prefix, PutBackInOrder};
use super::state::TransportState;
use crate::settlement::{Key, News, Verdict};

impl<T: Transport> TransportState<T> {
    /// Where the verdict goes.
    pub(super) fn decide(&mut self, key: Key, verdict: Verdict) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let (part, place, tag) = (entry.part, entry.place, entry.tag);
        let is_release = matches!(verdict, Verdict::Release { .. });
        entry.verdict = verdict.fit(&self.able).into();
        if !self.able.prefix {
            if is_release {
                self.goes_back(key);
                if self.waits_for_group(key) {
                    return;
                }
            }
            return self.outbox.push_back(key);
        }
        let prefix = self.parts.get_mut(&part).and_then(|part| part.prefix.as_mut());
        let Some(prefix) = prefix else { return };
        let waits = prefix.len() > self.options.max_ahead;
        if is_release {
            match prefix.back(place) {
                PutBackInOrder::Behind => self.conclude(key, End::Settled),
                PutBackInOrder::First { behind: Some(behind) } => {
                    self.conclude(behind, End::Settled);
                }
                PutBackInOrder::First { behind: None } => {}
            }
            self.move_back(part);
        } else if prefix.is_voided(place, tag) {
            // The verdict on a window comes message by message.
            self.take_back(key);
            self.news.push_back(News::Voided(key, tag));
        } else {
            prefix.done(place);
        }
        self.go_on_in_order(part);
        if waits {
            self.wake_part(part);
        }
    }

    /// Something of a partition in prefix order has changed.
    pub(super) fn go_on_in_order(&mut self, id: u64) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        let (ends, prefix) = (part.ended || part.left, part.prefix.as_mut());
        let ends = ends || prefix.as_ref().is_some_and(|prefix| prefix.is_stuck());
        if let Some(key) = prefix.and_then(Prefix::next_void) {
            self.void(id, key);
        }
        self.commits.push_back(id);
        self.wake_driver();
        if ends {
            // Its source waits for the last of them.
            self.wake_part(id);
        }
    }

    /// A message that was done is to be undone: with a window, all of it.
    fn void(&mut self, id: u64, key: Key) {
        let tag = self.take_back(key);
        self.news.push_back(News::Voided(key, tag));
        let entries = &self.entries;
        let window = |other| entries.get(other).and_then(|entry| entry.tag);
        let prefix = self.parts.get_mut(&id).and_then(|part| part.prefix.as_mut());
        // Numbers of windows are used again: also where it is none, the last one is over.
        let others = prefix.and_then(|prefix| {
            prefix.voids(tag);
            tag.map(|tag| prefix.void_with(tag, window))
        });
        for other in others.into_iter().flatten() {
            self.take_back(other);
            self.news.push_back(News::Voided(other, tag));
        }
    }

    /// The position of a partition goes back: nothing that was fetched is taken.
    pub(super) fn move_back(&mut self, id: u64) {
        self.give_buffer_back(id);
        if let Some(part) = self.parts.get_mut(&id) {
            part.stop_fetch();
        }
    }

    /// A partition was read further than it is to go on from. What is in front of that was noted
    /// before.
    pub(super) fn rewind(&mut self, id: u64, receipt: Arc<T::Receipt>) {
        if let Some(part) = self.parts.get(&id).filter(|part| !part.lost) {
            match self.rewinds.entry(part.assignment) {
                Entry::Vacant(place) => drop(place.insert(receipt)),
                Entry::Occupied(_) => self.aside.receipts.push(KeptReceipt::Shared(receipt)),
            }
        }
    }

    /// The same, from in front of whatever was noted.
    pub(super) fn rewind_to(&mut self, id: u64, receipt: Arc<T::Receipt>) {
        if let Some(part) = self.parts.get(&id).filter(|part| !part.lost) {
            let earlier = self.rewinds.insert(part.assignment, receipt).map(KeptReceipt::Shared);
            self.aside.receipts.extend(earlier);
        }
    }

    /// What was fetched behind a position that moves back comes again.
    pub(super) fn give_buffer_back(&mut self, part: u64) {
        let Some(part) = self.parts.get_mut(&part) else { return };
        for (message, key) in std::mem::take(&mut part.buffer) {
            self.aside.messages.push(message);
            self.conclude(key, End::Settled);
        }
    }

    /// In prefix order the next drain goes on from the first message that is not committed.
    pub(super) fn note_rewinds(&mut self) {
        let mut rewinds = Vec::new();
        for part in self.parts.values().filter(|part| !part.lost && part.revoking.is_none()) {
            let Some(prefix) = &part.prefix else { continue };
            let keys = prefix.keys_before_stuck();
            let buffered = part.buffer.iter().map(|(_, key)| *key).filter(|_| !prefix.is_stuck());
            let is_first = |key: &Key| self.entries.get(*key).is_some_and(|entry| !entry.maybe);
            let first = keys.chain(buffered).find(is_first);
            rewinds.extend(first.map(|key| (part.assignment, key)));
        }
        for (assignment, key) in rewinds {
            let receipt = self.entries.get_mut(key).and_then(entries::OpenReceipt::share);
            let earlier = receipt.and_then(|receipt| self.rewinds.insert(assignment, receipt));
            self.aside.receipts.extend(earlier.map(KeptReceipt::Shared));
        }
    }
}
