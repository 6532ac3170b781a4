//! Messages that were handled and are not settled, where there is something to undo, or an order by key.
//!
//! Each keeps its step until every receipt of it has its outcome, or until it is
//! [taken back](super::taken_back).
//!
//! A step that is home when its message is settled goes on with another one: to make it, with its scope,
//! and to take them apart is most of the 12,400 instructions that a message which stages an action cost
//! before that, and 7,600 after it (callgrind; tokens became cheaper, too).

use std::collections::{BTreeSet, HashMap};

use futures::stream::FuturesUnordered;

use super::order::Order;
use super::settling::is_lost;
use super::slot::Job;
use super::state::State;
use super::taken_back::{TakenBack, TakingBack};
use super::types::{DrainTypes, Drains};
use crate::origin::SourceRef;
use crate::panics;
use crate::settlement::{Delivered, Key, Tag};
use crate::step::LentStep;

/// How many steps are kept for further messages.
const MOST_SPARE: usize = 256;

/// Messages whose handler has ended and that are not settled, where that matters.
pub(super) struct UnsettledMessages<C: DrainTypes> {
    records: Vec<Option<Record<C>>>,
    vacant: Vec<Tag>,
    /// Where messages go in order by key: by source and key, the last one.
    by_key: HashMap<(u32, u64), Tag>,
    /// The last one that was added.
    added: Option<Tag>,
    /// Receipts of messages in work that are no longer ours.
    pub(super) lost: BTreeSet<Key>,
    /// Those of them that are taken back, where there are any.
    pub(super) undoing: Option<FuturesUnordered<TakingBack<C>>>,
    /// Steps of messages that are settled: nobody has them, and nothing is staged there.
    pub(super) spare: Vec<LentStep>,
}

/// A message that was handled, and what it staged.
pub(super) struct Record<C: DrainTypes> {
    /// Where there is something to undo.
    pub(super) step: Option<LentStep>,
    pub(super) delivered: Delivered,
    /// Receipts without an outcome, and those of them that were refused.
    pub(super) left: usize,
    pub(super) refused: Vec<Key>,
    /// Where messages go in order by key: that of this one, and whether another one of it has begun.
    pub(super) key: Option<(u32, u64)>,
    pub(super) has_followers: bool,
    /// It is taken back, and that goes on.
    pub(super) back: Option<TakenBack>,
    /// What its letter would be made of, where there are dead letters.
    pub(super) kept: Option<Box<KeptMessage<C::Message>>>,
}

/// A message that may yet be given up.
pub(super) struct KeptMessage<M> {
    pub(super) message: M,
    pub(super) source: SourceRef,
    pub(super) number: u64,
    pub(super) attempts: u32,
}

impl<C: DrainTypes> Default for UnsettledMessages<C> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            vacant: Vec::new(),
            by_key: HashMap::new(),
            added: None,
            lost: BTreeSet::new(),
            undoing: None,
            spare: Vec::new(),
        }
    }
}

impl<C: DrainTypes> UnsettledMessages<C> {
    pub(super) fn is_empty(&self) -> bool {
        self.records.len() == self.vacant.len()
    }

    pub(super) fn add(
        &mut self,
        step: Option<LentStep>,
        delivered: Delivered,
        kept: Option<Box<KeptMessage<C::Message>>>,
    ) -> Tag {
        let left = delivered.receipts().len();
        let refused = Vec::new();
        let (key, has_followers, back) = (None, false, None);
        let record = Record { step, delivered, left, refused, key, has_followers, back, kept };
        let tag = self.vacant.pop().unwrap_or_else(|| {
            self.records.push(None);
            u32::try_from(self.records.len() - 1).unwrap_or(u32::MAX)
        });
        self.records[tag as usize] = Some(record);
        self.added = Some(tag);
        tag
    }

    pub(super) fn get(&mut self, tag: Tag) -> Option<&mut Record<C>> {
        self.records.get_mut(tag as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, tag: Tag) -> Option<Record<C>> {
        let record = self.records.get_mut(tag as usize)?.take()?;
        self.vacant.push(tag);
        if let Some(key) = record.key.filter(|key| self.by_key.get(key) == Some(&tag)) {
            self.by_key.remove(&key);
        }
        if self.vacant.len() == self.records.len() {
            // It grew with what was open at once.
            (self.records, self.vacant) = (Vec::new(), Vec::new());
        }
        Some(record)
    }

    /// What a message has staged is done with, now that it is settled.
    fn is_settled(&mut self, step: Option<LentStep>) {
        let Some(mut step) = step else { return };
        if self.spare.len() >= MOST_SPARE || !step.is_home() {
            return step.let_go(true);
        }
        step.commit_later();
        step.flush();
        self.spare.push(step);
    }

    pub(super) fn tags(&self) -> Vec<Tag> {
        let tags = self.records.iter().zip(0_u32..);
        tags.filter(|(record, _)| record.is_some()).map(|(_, tag)| tag).collect()
    }

    /// Whether the message in work is no longer ours.
    #[inline]
    pub(super) fn has_lost(&self, job: Option<&Job<C>>) -> bool
    where
        C: Drains,
    {
        !self.lost.is_empty() && is_lost(job)
    }
}

impl<C: Drains> State<C> {
    /// Where a key is: in its source, or over all of them.
    fn place_of_key(row: u32, key: &C::Key) -> (u32, u64) {
        let row = if <C::Order as Order<C::Message>>::ACROSS { 0 } else { row };
        (row, <C::Order as Order<C::Message>>::hash_of(key))
    }

    /// A message has ended that had a key: if it is not settled, those behind it are watched.
    #[inline]
    pub(super) fn note_key(&mut self, row: u32, key: Option<&C::Key>) {
        let Some(tag) = self.settling.added.take() else { return };
        let keyed = <C::Order as Order<C::Message>>::KEYED;
        let Some(key) = key.filter(|_| keyed) else { return };
        let key = Self::place_of_key(row, key);
        if let Some(record) = self.settling.get(tag) {
            record.key = Some(key);
            self.settling.by_key.insert(key, tag);
        }
    }

    /// A message begins: one of its key that is not settled can no longer be taken back.
    #[inline]
    pub(super) fn begins(&mut self, row: u32, key: &C::Key) {
        if !self.settling.by_key.is_empty() {
            let before = self.settling.by_key.remove(&Self::place_of_key(row, key));
            if let Some(record) = before.and_then(|tag| self.settling.get(tag)) {
                record.has_followers = true;
            }
        }
    }

    /// A receipt of a message that was handled has its outcome: what the message did stays.
    pub(super) fn concluded(&mut self, tag: Tag) {
        let Some(record) = self.settling.get(tag) else { return };
        record.left -= 1;
        if record.left > 0 {
            return self.look_at_refusals(tag);
        }
        if let Some(record) = self.settling.remove(tag) {
            self.settling.is_settled(record.step);
        }
    }

    /// The drain is over before these are settled: `not_sent` has those whose accept nobody has.
    pub(super) fn abandon_unsettled(&mut self, not_sent: &BTreeSet<Key>) {
        // A rollback puts back what it was running.
        panics::drop_each(self.settling.undoing.take());
        for tag in self.settling.tags() {
            let Some(mut record) = self.settling.remove(tag) else { continue };
            let is_storing = record.back == Some(TakenBack::Storing);
            let is_back = |key: &Key| not_sent.contains(key) || record.refused.contains(key);
            // Of a window, all of them: whatever was accepted, or may have been, is not undone. Nor is
            // what could not be.
            let back =
                !is_storing && record.delivered.receipts().iter().all(|(_, key)| is_back(key));
            if back {
                let number = record.delivered.order();
                let release =
                    crate::settlement::Release::new(std::mem::take(&mut record.delivered));
                let scope = record.step.as_ref().map_or(self.scope.scope(), |step| step.scope());
                scope.stage_behind(number, release);
            } else {
                for (desk, key) in record.delivered.receipts() {
                    desk.abandon(*key);
                }
            }
            if let Some(step) = record.step {
                step.let_go(!back);
            }
        }
    }
}
