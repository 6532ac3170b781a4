//! Prefix order: what was taken of a partition, and how far it is done.
//!
//! An accept covers what was taken before, so only the front that is done is committed. A release
//! moves the position back: it waits until nothing behind it is open, and what was done there is
//! undone. Positions are those in the order of taking, never offsets.

use std::collections::{BTreeSet, VecDeque};

use crate::clock::Tick;
use crate::settlement::{Key, Tag};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Open,
    Done,
    /// It came back behind one that is released.
    Back,
}

#[derive(Debug, Default)]
pub(super) struct Prefix {
    /// What was taken and is not committed, from the place `first` on.
    order: VecDeque<(Key, Mark)>,
    first: u64,
    /// Of these, how many are not back.
    live: usize,
    /// From this place on, none is done.
    done_before: u64,
    /// The earliest one that is released.
    releasing: Option<u64>,
    /// The earliest one that will never be settled: nothing behind it is.
    stuck: Option<u64>,
    /// Those that are being undone because they are behind one of these: one message, or all of one
    /// window.
    voiding: BTreeSet<u64>,
    /// The tag of that window, as long as it is being undone: tags are used again.
    voided: Option<Tag>,
    /// Done, and to be committed: the last of them covers all.
    pub(super) ready: Vec<Key>,
    /// The call about this partition that is with the transport.
    pub(super) sent: Option<Sent>,
    /// Calls that were not applied, one after another, since when, and when the next one is tried.
    pub(super) refused: u32,
    pub(super) refused_since: Option<Tick>,
    pub(super) wait_until: Option<Tick>,
}

#[derive(Debug)]
pub(super) enum Sent {
    Commit(Vec<Key>),
    Seek(Key),
    /// Back to where an earlier drain has left it.
    Rewind,
}

impl Sent {
    /// What it is about.
    pub(super) fn keys(&self) -> &[Key] {
        match self {
            Self::Commit(keys) => keys,
            Self::Seek(key) => std::slice::from_ref(key),
            Self::Rewind => &[],
        }
    }
}

/// What is to be sent for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PrefixDue {
    Commit,
    Seek(Key),
    Nothing,
}

impl Prefix {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether more may be taken and fetched.
    pub(super) fn may_go_on(&self) -> bool {
        let moves_back = matches!(self.sent, Some(Sent::Seek(_) | Sent::Rewind));
        self.releasing.is_none() && self.stuck.is_none() && !moves_back
    }

    /// Whether nothing will be taken any more. `ended`: there is no more to be fetched.
    pub(super) fn is_over(&self, ended: bool) -> bool {
        match self.stuck {
            Some(_) => self.live == 0 && self.releasing.is_none(),
            None => ended && self.order.is_empty() && self.may_go_on(),
        }
    }

    /// Whether nothing of it is open or on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.order.is_empty() && self.ready.is_empty() && self.sent.is_none()
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some()
    }

    /// Whether nothing in front of it is given back or stuck.
    pub(super) fn is_first(&self, place: u64) -> bool {
        self.barrier().is_none_or(|first| place <= first)
    }

    /// What is not committed, in order, up to one that is stuck.
    pub(super) fn keys_before_stuck(&self) -> impl Iterator<Item = Key> {
        let most = self.stuck.map_or(u64::MAX, |stuck| stuck - self.first.min(stuck));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let order = self.order.iter().take(most).map(|(key, _)| *key);
        self.ready.iter().copied().chain(order)
    }

    /// What was not applied is tried at once, and as long as at the beginning.
    pub(super) fn try_anew(&mut self) {
        (self.refused, self.refused_since, self.wait_until) = (0, None, None);
    }

    /// One more was taken. Returns its place.
    pub(super) fn take(&mut self, key: Key) -> u64 {
        self.order.push_back((key, Mark::Open));
        self.live += 1;
        self.first + self.order.len() as u64 - 1
    }

    fn index(&self, place: u64) -> Option<usize> {
        let index = usize::try_from(place.checked_sub(self.first)?).ok()?;
        (index < self.order.len()).then_some(index)
    }

    /// Nothing behind this is committed.
    fn barrier(&self) -> Option<u64> {
        self.releasing.into_iter().chain(self.stuck).min()
    }

    /// One was done, or will be passed over. One that could not be undone is no longer being undone, and goes
    /// back with what is in front of it.
    pub(super) fn done(&mut self, place: u64) {
        self.voiding.remove(&place);
        if let Some(index) = self.index(place) {
            self.order[index].1 = Mark::Done;
            self.done_before = self.done_before.max(place + 1);
        }
        self.advance();
    }

    /// What is done in front is ready.
    fn advance(&mut self) {
        while let Some((key, Mark::Done)) = self.order.front().copied() {
            self.order.pop_front();
            self.first += 1;
            self.live -= 1;
            self.ready.push(key);
        }
    }

    /// The next one that was done and cannot be committed: the last of them, once the one behind it
    /// is undone.
    pub(super) fn next_void(&mut self) -> Option<Key> {
        let barrier = self.barrier().filter(|_| self.voiding.is_empty())?;
        let from = self.first.max(barrier + 1);
        let done =
            |place: &u64| self.index(*place).is_some_and(|at| self.order[at].1 == Mark::Done);
        let found = (from..self.done_before).rev().find(done);
        self.done_before = found.unwrap_or(from);
        let (place, at) = (found?, self.index(found?)?);
        self.order[at].1 = Mark::Open;
        self.voiding.insert(place);
        Some(self.order[at].0)
    }

    /// Others that were done and are of the window of the last one that was found, the last one first.
    /// `window`: of which one a message is. Those of one were taken one behind another.
    pub(super) fn void_with(&mut self, it: Tag, window: impl Fn(Key) -> Option<Tag>) -> Vec<Key> {
        let from = self.barrier().map_or(u64::MAX, |barrier| self.first.max(barrier + 1));
        let mut voided = Vec::new();
        for place in (from..self.done_before).rev() {
            let Some(at) = self.index(place) else { continue };
            let (key, mark) = &mut self.order[at];
            match window(*key) {
                Some(other) if other != it => break,
                Some(_) if *mark == Mark::Done => {
                    *mark = Mark::Open;
                    self.voiding.insert(place);
                    voided.push(*key);
                }
                _ => {}
            }
        }
        voided
    }

    /// That window is undone from here on, and with it whatever of it is done later.
    pub(super) fn voids(&mut self, window: Option<Tag>) {
        self.voided = window;
    }

    /// Whether one that was done is of the window that is being undone. Then it is undone as well.
    pub(super) fn is_voided(&mut self, place: u64, window: Option<Tag>) -> bool {
        let is_it = window.is_some() && window == self.voided && !self.voiding.is_empty();
        if is_it {
            self.voiding.insert(place);
        }
        is_it
    }

    /// It comes back with an earlier one, or is not ours any more.
    pub(super) fn mark_back(&mut self, place: u64) {
        self.voiding.remove(&place);
        if let Some(index) = self.index(place) {
            if self.order[index].1 != Mark::Back {
                self.order[index].1 = Mark::Back;
                self.live -= 1;
            }
        }
    }

    /// One is given back.
    pub(super) fn back(&mut self, place: u64) -> PutBackInOrder {
        if self.index(place).is_none() || self.barrier().is_some_and(|first| place > first) {
            self.mark_back(place);
            return PutBackInOrder::Behind;
        }
        PutBackInOrder::First { behind: self.replace_release(Some(place)) }
    }

    /// One will never be settled. Returns one that was released, and whether that is in front of it:
    /// it cannot go back, because that would bring back this one, too.
    pub(super) fn stick(&mut self, place: u64) -> Option<(Key, bool)> {
        self.mark_back(place);
        if let Some(first) = self.releasing.filter(|first| *first < place) {
            self.stuck = Some(self.stuck.map_or(first, |stuck| stuck.min(first)));
            return self.replace_release(None).map(|key| (key, true));
        }
        if self.stuck.is_none_or(|stuck| place < stuck) {
            self.stuck = Some(place);
        }
        if self.releasing.is_some_and(|releasing| releasing > place) {
            return self.replace_release(None).map(|key| (key, false));
        }
        None
    }

    fn replace_release(&mut self, place: Option<u64>) -> Option<Key> {
        let earlier = std::mem::replace(&mut self.releasing, place)?;
        self.mark_back(earlier);
        self.index(earlier).map(|index| self.order[index].0)
    }

    /// What is to be sent next; one call at a time.
    pub(super) fn due(&self) -> PrefixDue {
        if self.sent.is_some() {
            return PrefixDue::Nothing;
        }
        if !self.ready.is_empty() {
            return PrefixDue::Commit;
        }
        let seek = self.releasing.and_then(|place| self.index(place));
        match seek {
            // What is in front of it may still be done, and is committed first.
            Some(0) if self.live == 1 => PrefixDue::Seek(self.order[0].0),
            _ => PrefixDue::Nothing,
        }
    }

    /// The position was moved back: everything starts anew, unless one is stuck.
    pub(super) fn sought(&mut self) {
        self.first += self.order.len() as u64;
        self.order.clear();
        (self.live, self.done_before) = (0, self.first);
        self.releasing = None;
    }
}

/// What came of giving one back.
pub(super) enum PutBackInOrder {
    /// It is the earliest, and this one was so far.
    First { behind: Option<Key> },
    /// An earlier one brings it back.
    Behind,
}
