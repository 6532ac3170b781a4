//! Prefix order: what was taken of a partition, and how far it is done.
//!
//! An accept covers what was taken before, so only the front that is done is committed. A release
//! moves the position back: it waits until nothing behind it is open, and what was done there is
//! undone. Positions are those in the order of taking, never offsets.

use std::collections::VecDeque;

use crate::clock::Tick;
use crate::settlement::Key;

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
    /// The earliest one that is released.
    releasing: Option<u64>,
    /// Done, and to be committed: the last of them covers all.
    pub(super) ready: Vec<Key>,
    /// The call about this partition that is with the transport.
    pub(super) sent: Option<Sent>,
    /// Calls that were not applied, one after another, since when, and when the next one is tried.
    pub(super) refused: u32,
    pub(super) refused_since: Option<Tick>,
    pub(super) wait_until: Option<Tick>,
    /// One of them will never be done.
    stuck: bool,
}

#[derive(Debug)]
pub(super) enum Sent {
    Commit(Vec<Key>),
    Seek(Key),
}

/// What is to be sent for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
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
        self.releasing.is_none() && !self.stuck && !matches!(self.sent, Some(Sent::Seek(_)))
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

    /// One was done, or will be passed over. `false`: it is behind one that is released, and to be
    /// undone.
    pub(super) fn done(&mut self, place: u64) -> bool {
        if self.releasing.is_some_and(|first| place > first) {
            return false;
        }
        if let Some(index) = self.index(place) {
            self.order[index].1 = Mark::Done;
        }
        self.advance();
        true
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

    /// One is given back. Returns those behind it that were done, the last one first.
    pub(super) fn back(&mut self, place: u64) -> Back {
        let Some(index) = self.index(place) else { return Back::Behind };
        if self.releasing.is_some_and(|first| place > first) {
            self.order[index].1 = Mark::Back;
            self.live -= 1;
            return Back::Behind;
        }
        let earlier = self.releasing.replace(place);
        let mut voided = Vec::new();
        for (key, mark) in self.order.iter_mut().skip(index + 1).rev() {
            if *mark == Mark::Done {
                *mark = Mark::Open;
                voided.push(*key);
            }
        }
        let mut behind = None;
        if let Some(other) = earlier.and_then(|place| self.index(place)) {
            let (key, mark) = &mut self.order[other];
            *mark = Mark::Back;
            self.live -= 1;
            behind = Some(*key);
        }
        Back::First { voided, behind }
    }

    /// One will never be settled: nothing behind it is.
    pub(super) fn stick(&mut self) {
        self.stuck = true;
    }

    /// One is not ours any more.
    pub(super) fn lose(&mut self, place: u64) {
        if let Some(index) = self.index(place) {
            if self.order[index].1 != Mark::Back {
                self.order[index].1 = Mark::Back;
                self.live -= 1;
            }
        }
    }

    /// What is to be sent next; one call at a time.
    pub(super) fn due(&self) -> Due {
        if self.sent.is_some() {
            return Due::Nothing;
        }
        if !self.ready.is_empty() {
            return Due::Commit;
        }
        let seek = self.releasing.and_then(|place| self.index(place));
        match seek {
            // What is in front of it may still be done, and is committed first.
            Some(0) if self.live == 1 => Due::Seek(self.order[0].0),
            _ => Due::Nothing,
        }
    }

    /// The position was moved back: everything starts anew.
    pub(super) fn sought(&mut self) {
        self.first += self.order.len() as u64;
        self.order.clear();
        self.live = 0;
        self.releasing = None;
    }
}

/// What came of giving one back.
pub(super) enum Back {
    /// It is the earliest. Those behind it that were done, and one that was the earliest so far.
    First { voided: Vec<Key>, behind: Option<Key> },
    /// An earlier one brings it back.
    Behind,
}
