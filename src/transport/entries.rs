//! The receipts that are open, by number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::clock::Tick;
use crate::settlement::{Facts, Key, Tag, Verdict};

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessagePhase {
    /// Fetched, and nobody has taken it.
    Buffered,
    /// With the drain.
    Taken,
    /// With its handler, which settles it by itself.
    ByHand,
    /// There is a verdict, and the transport does not know it.
    Decided,
    /// The verdict is with the transport.
    Sending,
}

/// A receipt, from the fetch to its outcome. There is one for each message that is not settled, so it is
/// small: what few messages have is elsewhere.
#[allow(clippy::struct_excessive_bools, reason = "each says one thing")]
pub(super) struct OpenReceipt<R> {
    /// Not here while its settlement is with the transport.
    pub(super) receipt: Option<KeptReceipt<R>>,
    /// Nothing where nothing is known.
    facts: Option<Box<Facts>>,
    /// The source it came by, and its place among what was taken there.
    pub(super) part: u64,
    pub(super) place: u64,
    pub(super) phase: MessagePhase,
    pub(super) verdict: Said,
    pub(super) tag: Option<Tag>,
    pub(super) lease: Lease,
    /// Nothing behind it in its group is handled.
    pub(super) in_hand: bool,
    /// Its verdict is sent when the answer of its renewal is there.
    pub(super) waits_for_renewal: bool,
    /// In prefix order: it was sent, and nobody knows whether it was applied.
    pub(super) maybe: bool,
    /// It was lost while its handler settled it: what counts unless that is refused.
    pub(super) lost_by_hand: bool,
    /// When the verdict was refused for the first time, and how often.
    pub(super) refused: Option<Box<(Tick, u32)>>,
}

impl<R> OpenReceipt<R> {
    /// One that was fetched just now.
    #[inline]
    pub(super) fn new(part: u64, receipt: R, facts: Facts, lease: Lease) -> Self {
        Self {
            receipt: Some(KeptReceipt::Own(receipt)),
            facts: facts.is_known().then(|| Box::new(facts)),
            part,
            place: 0,
            phase: MessagePhase::Buffered,
            verdict: Said::Release { begun: false },
            tag: None,
            lease,
            in_hand: false,
            waits_for_renewal: false,
            maybe: false,
            lost_by_hand: false,
            refused: None,
        }
    }

    #[inline]
    pub(super) fn facts(&self) -> &Facts {
        static NOTHING: Facts = Facts::NONE;
        self.facts.as_deref().unwrap_or(&NOTHING)
    }

    pub(super) fn take_facts(&mut self) -> Option<Box<Facts>> {
        self.facts.take()
    }

    /// The receipt for somebody who uses it while others may.
    pub(super) fn share(&mut self) -> Option<Arc<R>> {
        let shared = match self.receipt.take()? {
            KeptReceipt::Own(receipt) => Arc::new(receipt),
            KeptReceipt::Shared(receipt) => receipt,
        };
        self.receipt = Some(KeptReceipt::Shared(Arc::clone(&shared)));
        Some(shared)
    }
}

/// A receipt, cloned for a call, which is the adapter's code and not for under a lock. Most are never
/// shared, and have no allocation of their own.
pub(super) enum KeptReceipt<R> {
    Own(R),
    Shared(Arc<R>),
}

impl<R: Clone> KeptReceipt<R> {
    pub(super) fn copy(&self) -> R {
        match self {
            Self::Own(receipt) => receipt.clone(),
            Self::Shared(receipt) => R::clone(receipt),
        }
    }
}

/// A verdict in half of its size.
pub(super) enum Said {
    Accept,
    /// At once.
    Release {
        begun: bool,
    },
    Other(Box<Verdict>),
}

impl Said {
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Accept => Verdict::Accept,
            Self::Release { begun } => Verdict::Release { after: None, begun: *begun },
            Self::Other(verdict) => Verdict::clone(verdict),
        }
    }

    pub(super) fn is_release(&self) -> bool {
        match self {
            Self::Accept => false,
            Self::Release { .. } => true,
            Self::Other(verdict) => matches!(**verdict, Verdict::Release { .. }),
        }
    }
}

impl From<Verdict> for Said {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accept => Self::Accept,
            Verdict::Release { after: None, begun } => Self::Release { begun },
            verdict => Self::Other(Box::new(verdict)),
        }
    }
}

/// For how long a message is ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    /// In nanoseconds.
    term: u64,
    /// [`Tick::MAX`]: for ever.
    pub(super) expires: Tick,
    /// When something is to be done about it.
    pub(super) next: Tick,
    /// It is in line to be renewed, or being renewed.
    pub(super) renewing: bool,
    /// A renewal is with the transport.
    pub(super) calling: bool,
    pub(super) renewable: bool,
}

impl Lease {
    pub(super) const NONE: Self = Self {
        term: 0,
        expires: Tick::MAX,
        next: Tick::MAX,
        renewing: false,
        calling: false,
        renewable: false,
    };

    /// One of so long, from `requested` on.
    pub(super) fn new(requested: Tick, term: Duration, renewable: bool) -> Self {
        let expires = requested + term;
        let next = if renewable { requested + term / 3 } else { expires };
        let term = u64::try_from(term.as_nanos()).unwrap_or(u64::MAX);
        Self { term, expires, next, renewing: false, calling: false, renewable }
    }

    /// Whether so little is left of it, and will not be more.
    pub(super) fn has_less_than(&self, span: Duration, now: Tick) -> bool {
        !self.renewable && self.expires != Tick::MAX && now + span > self.expires
    }

    /// The same after a renewal.
    pub(super) fn renewed(self, requested: Tick, term: Duration) -> Self {
        Self::new(requested, term, self.renewable)
    }

    /// The same after a renewal that failed: tried again soon, as long as it is ours.
    pub(super) fn not_renewed(self, now: Tick) -> Self {
        let soon = now + Duration::from_nanos(self.term / 12);
        Self { renewing: false, next: soon.min(self.expires), ..self }
    }

    /// The same where its verdict was sent instead: if that is not applied, it is renewed at once.
    pub(super) fn not_asked(self) -> Self {
        Self { renewing: false, next: Tick::ZERO, ..self }
    }

    /// The same where it cannot be renewed any more.
    pub(super) fn at_maximum(self) -> Self {
        Self { renewing: false, renewable: false, next: self.expires, ..self }
    }
}

struct ReceiptSlot<R> {
    turn: u32,
    /// Its neighbours among the receipts of its source.
    before: u32,
    behind: u32,
    entry: Option<OpenReceipt<R>>,
}

/// There is none.
const NONE: u32 = u32::MAX;

/// The receipts of one source: a list through their slots.
#[derive(Debug)]
pub(super) struct Members {
    first: u32,
    len: usize,
}

impl Default for Members {
    fn default() -> Self {
        Self { first: NONE, len: 0 }
    }
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Receipts by number. A number names one receipt for ever, though its place is used again.
pub(super) struct Entries<R> {
    /// Whose they are.
    desk: u32,
    slots: Vec<ReceiptSlot<R>>,
    vacant: Vec<u32>,
    len: usize,
}

/// The number of the next desk of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl<R> Default for Entries<R> {
    fn default() -> Self {
        let desk = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { desk, slots: Vec::new(), vacant: Vec::new(), len: 0 }
    }
}

impl<R> Entries<R> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The one with this number.
    #[inline]
    pub(super) fn key(&self, number: u64) -> Key {
        Key::at_desk(self.desk, number)
    }

    #[inline]
    pub(super) fn insert(&mut self, entry: OpenReceipt<R>, members: &mut Members) -> Key {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(ReceiptSlot { turn: 0, before: NONE, behind: NONE, entry: None });
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
        });
        let behind = std::mem::replace(&mut members.first, place);
        members.len += 1;
        self.len += 1;
        if let Some(slot) = self.slots.get_mut(behind as usize) {
            slot.before = place;
        }
        let slot = &mut self.slots[place as usize];
        (slot.before, slot.behind, slot.entry) = (NONE, behind, Some(entry));
        Key { desk: self.desk, place, turn: slot.turn }
    }

    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<&OpenReceipt<R>> {
        let slot = self.slots.get(key.place as usize)?;
        slot.entry.as_ref().filter(|_| slot.turn == key.turn)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut OpenReceipt<R>> {
        let slot = self.slots.get_mut(key.place as usize)?;
        slot.entry.as_mut().filter(|_| slot.turn == key.turn)
    }

    #[inline]
    pub(super) fn remove(&mut self, key: Key, members: &mut Members) -> Option<OpenReceipt<R>> {
        let slot = self.slots.get_mut(key.place as usize).filter(|slot| slot.turn == key.turn)?;
        let entry = slot.entry.take()?;
        let (before, behind) = (slot.before, slot.behind);
        // After so many turns a place is not used again: no number comes twice.
        if let Some(turn) = slot.turn.checked_add(1) {
            slot.turn = turn;
            self.vacant.push(key.place);
        }
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.behind = behind,
            None => members.first = behind,
        }
        if let Some(slot) = self.slots.get_mut(behind as usize) {
            slot.before = before;
        }
        members.len -= 1;
        self.len -= 1;
        Some(entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &OpenReceipt<R>)> {
        self.slots.iter().zip(0_u32..).filter_map(|(slot, place)| {
            slot.entry
                .as_ref()
                .map(|entry| (Key { desk: self.desk, place, turn: slot.turn }, entry))
        })
    }

    /// Those of one source, in no order.
    pub(super) fn of(&self, members: &Members) -> impl Iterator<Item = (Key, &OpenReceipt<R>)> {
        let mut next = members.first;
        std::iter::from_fn(move || {
            let slot = self.slots.get(next as usize)?;
            let key = Key { desk: self.desk, place: next, turn: slot.turn };
            next = slot.behind;
            Some((key, slot.entry.as_ref()?))
        })
    }
}

/// Which messages are here, by the names that their transport gave them.
pub(super) type Ids = std::collections::HashMap<Arc<str>, Key>;
