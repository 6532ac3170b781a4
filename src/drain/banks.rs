//! The banks that there are, and the sources on their way to one.
//!
//! `select_all` hides its banks, so a source that comes later is left where its bank finds it, and
//! the bank is woken. A source goes to the first bank that has room: those at the end run empty, and
//! leave.
//!
//! Banks with places that are ready have their turns one after another, in a ring: the turn of a
//! bank is one round of its places. Who is not in turn serves only places that were woken.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::queue::Spot;
use crate::origin::SourceRef;
use crate::ready::{self, Inbox};
use crate::source::Profile;

/// The banks that there are, and sources on their way to one.
pub(super) struct Banks<S> {
    entries: Vec<Option<BankEntry<S>>>,
    vacant: Vec<u32>,
    /// Banks that have room for a source.
    room: BTreeSet<u32>,
    /// Sources in all banks, those on their way included.
    pub(super) sources: usize,
    /// How many of them were never asked for a message.
    pub(super) new: usize,
    /// Sources that have had no turn at all.
    pub(super) fresh: usize,
    /// Whose turn it is.
    turn: Option<u32>,
    /// Whose turns are next.
    ring: VecDeque<u32>,
}

struct BankEntry<S> {
    inbox: Arc<Inbox>,
    sources: usize,
    arriving: VecDeque<Arrival<S>>,
    /// It waits for its turn.
    in_ring: bool,
}

/// Whose turn it is, as a bank sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InTurn {
    /// Its own, from now on.
    Begins,
    /// Its own.
    GoesOn,
    /// That of another bank.
    No,
}

/// A source on its way to a bank.
pub(super) struct Arrival<S> {
    pub(super) source: S,
    pub(super) profile: Profile,
    pub(super) origin: SourceRef,
    pub(super) row: u32,
}

/// Sources of one bank.
pub(super) const SOURCES_PER_BANK: usize = 256;

impl<S> Default for Banks<S> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            vacant: Vec::new(),
            room: BTreeSet::new(),
            sources: 0,
            new: 0,
            fresh: 0,
            turn: None,
            ring: VecDeque::new(),
        }
    }
}

impl<S> Banks<S> {
    /// How many banks there are.
    pub(super) fn count(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    /// Adds a bank without sources.
    pub(super) fn add(&mut self, inbox: &Arc<Inbox>) -> u32 {
        let entry = BankEntry {
            inbox: Arc::clone(inbox),
            sources: 0,
            arriving: VecDeque::new(),
            in_ring: false,
        };
        let number = if let Some(number) = self.vacant.pop() {
            self.entries[number as usize] = Some(entry);
            number
        } else {
            self.entries.push(Some(entry));
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        };
        self.room.insert(number);
        number
    }

    /// Sends a source to a bank that has room, and hands it out where there is none.
    pub(super) fn send(&mut self, arrival: Arrival<S>) -> Option<Arrival<S>> {
        let Some(number) = self.room.first().copied() else { return Some(arrival) };
        let Some(entry) = &mut self.entries[number as usize] else { return Some(arrival) };
        entry.arriving.push_back(arrival);
        entry.inbox.rouse();
        self.count_in(number);
        None
    }

    /// A bank has a further source.
    pub(super) fn count_in(&mut self, bank: u32) {
        if let Some(entry) = &mut self.entries[bank as usize] {
            entry.sources += 1;
            self.sources += 1;
            self.new += 1;
            if entry.sources == SOURCES_PER_BANK {
                self.room.remove(&bank);
            }
        }
    }

    /// Has a place of a bank polled.
    #[inline]
    pub(super) fn notify(&self, spot: Spot) {
        if let Some(Some(entry)) = self.entries.get(spot.bank as usize) {
            ready::notify(&entry.inbox, spot.place);
        }
    }

    /// The next source that was sent to a bank.
    pub(super) fn receive(&mut self, bank: u32) -> Option<Arrival<S>> {
        let arriving = &mut self.entries[bank as usize].as_mut()?.arriving;
        let next = arriving.pop_front();
        if next.is_none() && arriving.capacity() > 0 {
            *arriving = VecDeque::new();
        }
        next
    }

    /// A source of a bank has ended.
    pub(super) fn end(&mut self, bank: u32) {
        if let Some(entry) = &mut self.entries[bank as usize] {
            if entry.sources == SOURCES_PER_BANK {
                self.room.insert(bank);
            }
            entry.sources -= 1;
            self.sources -= 1;
        }
    }

    /// Whether a bank has no sources, and is not the only one.
    pub(super) fn is_idle(&self, bank: u32) -> bool {
        self.count() > 1
            && self.entries[bank as usize].as_ref().is_some_and(|entry| entry.sources == 0)
    }

    /// Whether it is the turn of this bank; it is whoever comes first where it is nobody's.
    #[inline]
    pub(super) fn is_in_turn(&mut self, bank: u32) -> InTurn {
        match self.turn {
            None => {
                self.turn = Some(bank);
                InTurn::Begins
            }
            Some(turn) if turn == bank => InTurn::GoesOn,
            Some(_) => InTurn::No,
        }
    }

    /// Lets a bank wait for its turn.
    pub(super) fn wait_for_turn(&mut self, bank: u32) {
        if let Some(Some(entry)) = self.entries.get_mut(bank as usize) {
            if !std::mem::replace(&mut entry.in_ring, true) {
                self.ring.push_back(bank);
            }
        }
    }

    /// The turn of a bank is over: the next one is woken, if there is one.
    pub(super) fn pass_on(&mut self) {
        self.turn = None;
        while let Some(bank) = self.ring.pop_front() {
            if let Some(Some(entry)) = self.entries.get_mut(bank as usize) {
                if std::mem::take(&mut entry.in_ring) {
                    self.turn = Some(bank);
                    entry.inbox.rouse();
                    return;
                }
            }
        }
    }

    /// Whether a bank waits for its turn.
    #[inline]
    pub(super) fn others_wait(&self) -> bool {
        !self.ring.is_empty()
    }

    /// Whether no bank has anything to do.
    pub(super) fn are_idle(&self) -> bool {
        self.turn.is_none() && self.ring.is_empty()
    }

    /// Removes a bank without sources.
    pub(super) fn remove(&mut self, bank: u32) {
        if self.turn == Some(bank) {
            self.pass_on();
        }
        self.room.remove(&bank);
        self.entries[bank as usize] = None;
        self.vacant.push(bank);
    }

    /// Takes out the sources that have not come to their bank.
    pub(super) fn take_arrivals(&mut self) -> Vec<Arrival<S>> {
        let entries = self.entries.iter_mut().flatten();
        entries.flat_map(|entry| entry.arriving.drain(..)).collect()
    }
}
