//! What is known of a transport's receipts and sources.
//!
//! All of it is under one lock. Whatever is somebody else's code, waking and dropping above all, is put
//! aside and done when the lock is free: see [`Hub::change`](super::hub::Hub::change).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::Transport;
use super::aside::Aside;
use super::ends::End;
use super::entries::{Entries, Ids, MessagePhase};
use super::groups::Groups;
use super::lost::LostInWork;
use super::options::LinkOptions;
use super::part::Part;
use super::partitions::Partitions;
use super::room::Room;
use crate::clock::Tick;
use crate::error::{Error, ErrorCode};
use crate::settlement::{
    Able, Assignment, Given, Handled, Key, News, Settled, Settlements, Tag, Verdict,
};

#[allow(clippy::struct_excessive_bools, reason = "each says one thing")]
pub(super) struct TransportState<T: Transport> {
    pub(super) able: Able,
    pub(super) options: LinkOptions,
    pub(super) entries: Entries<T::Receipt>,
    pub(super) ids: Ids,
    /// Its messages are gathered in windows.
    pub(super) gathers: bool,
    pub(super) groups: Groups<T::Message>,
    /// How little time the drain may have at its end.
    pub(super) budget: Duration,
    pub(super) parts: BTreeMap<u64, Part<T::Message>>,
    next_part: u64,
    /// Who waits because too many verdicts have no outcome.
    pub(super) room: Room,
    /// Sources that wait to fetch.
    pub(super) line: VecDeque<u64>,
    /// Verdicts to send; in prefix order, partitions.
    pub(super) outbox: VecDeque<Key>,
    pub(super) commits: VecDeque<u64>,
    /// Leases to be renewed.
    pub(super) renewals: VecDeque<Key>,
    /// The shortest and the longest lease that was seen, and the least that must be left of one that is
    /// not renewed.
    pub(super) shortest_lease: Option<Duration>,
    pub(super) longest_lease: Duration,
    pub(super) least_lease: Duration,
    pub(super) alarms: BinaryHeap<Reverse<(Tick, Due)>>,
    pub(super) news: VecDeque<News>,
    pub(super) counts: Settlements,
    /// Verdicts without an outcome.
    pub(super) unsettled: usize,
    /// Those of them that are with the transport, where each is settled by itself.
    pub(super) sending: usize,
    /// How many sources there are whose last handler has failed.
    pub(super) failing: usize,
    /// Partitions that nobody has taken as a source.
    pub(super) assigned: VecDeque<u64>,
    pub(super) assigned_waker: Option<Waker>,
    /// Its sources were made in a way that it does not have.
    pub(super) misused: Option<&'static str>,
    pub(super) partitions: Partitions,
    /// How often messages that were taken were lost, or asked back.
    pub(super) recalls: u64,
    /// How often a message was given back, or a position moved back.
    pub(super) given_back: u64,
    /// Sources whose partitions are to be given up, of which nothing is open any more or whose time is up.
    pub(super) to_answer: BTreeSet<u64>,
    /// In prefix order: where a partition goes on that was read further than that. It is moved back
    /// before anything is fetched.
    pub(super) rewinds: HashMap<Assignment, Arc<T::Receipt>>,
    pub(super) lost_in_work: LostInWork,
    /// How handlers have settled by themselves so far, of messages that the drain has.
    pub(super) by_hand: HashMap<Key, Settled>,
    /// Receipts of messages whose drain is gone, for those who undo them.
    pub(super) kept: HashMap<Key, Arc<T::Receipt>>,
    /// Sources that somebody has, and the number of the last one.
    pub(super) sources: usize,
    pub(super) last_source: u64,
    pub(super) stopped: bool,
    /// Nobody drives it any more.
    pub(super) detached: bool,
    pub(super) driver: Option<Waker>,
    pub(super) aside: Aside<T>,
}

/// What something is to be done about at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Lease(Key),
    Again(Key),
    Part(u64),
}

impl<T: Transport> TransportState<T> {
    pub(super) fn new(able: Able) -> Self {
        Self {
            able,
            options: LinkOptions::default(),
            entries: Entries::default(),
            ids: Ids::default(),
            gathers: false,
            groups: Groups::default(),
            budget: Duration::MAX,
            parts: BTreeMap::new(),
            next_part: 0,
            room: Room::default(),
            line: VecDeque::new(),
            outbox: VecDeque::new(),
            commits: VecDeque::new(),
            renewals: VecDeque::new(),
            shortest_lease: None,
            longest_lease: Duration::ZERO,
            least_lease: Duration::ZERO,
            alarms: BinaryHeap::new(),
            news: VecDeque::new(),
            counts: Settlements::default(),
            unsettled: 0,
            sending: 0,
            failing: 0,
            assigned: VecDeque::new(),
            assigned_waker: None,
            misused: None,
            partitions: Partitions::default(),
            recalls: 0,
            given_back: 0,
            to_answer: BTreeSet::new(),
            rewinds: HashMap::new(),
            lost_in_work: LostInWork::default(),
            by_hand: HashMap::new(),
            kept: HashMap::new(),
            sources: 0,
            last_source: 0,
            stopped: false,
            detached: false,
            driver: None,
            aside: Aside::default(),
        }
    }

    pub(super) fn add_part(&mut self, assignment: Assignment) -> u64 {
        self.next_part += 1;
        let part = Part::new(assignment, self.able.prefix);
        self.parts.insert(self.next_part, part);
        self.partitions.add_source(assignment, self.next_part);
        self.next_part
    }

    /// The source that stands for the transport: it is of no partition.
    pub(super) fn add_keeper(&mut self) -> u64 {
        self.next_part += 1;
        let mut part = Part::new(Assignment::default(), self.able.prefix);
        part.keeper = true;
        self.parts.insert(self.next_part, part);
        self.next_part
    }

    pub(super) fn wake_driver(&mut self) {
        self.aside.wakers.extend(self.driver.take());
    }

    pub(super) fn wake_part(&mut self, part: u64) {
        if let Some(part) = self.parts.get_mut(&part) {
            self.aside.wakers.extend(part.waker.take());
        }
    }

    pub(super) fn set_alarm(&mut self, at: Tick, due: Due) {
        if at == Tick::MAX {
            return;
        }
        self.alarms.push(Reverse((at, due)));
        if self.alarms.len() > 4 * self.entries.len() + 8 * self.parts.len() + 256 {
            self.forget_old_alarms();
        }
    }

    /// Most leases are not needed until they are due.
    fn forget_old_alarms(&mut self) {
        let (alarms, entries) = (std::mem::take(&mut self.alarms), &self.entries);
        let counts = |(at, due): &(Tick, Due)| match due {
            Due::Lease(key) => entries.get(*key).is_some_and(|entry| entry.lease.next == *at),
            Due::Again(key) => entries.get(*key).is_some(),
            Due::Part(_) => true,
        };
        let mut kept: Vec<_> =
            alarms.into_iter().map(|Reverse(alarm)| alarm).filter(counts).collect();
        kept.sort_unstable();
        kept.dedup();
        self.alarms = kept.into_iter().map(Reverse).collect();
    }

    /// A call has come back.
    pub(super) fn hears(&mut self, now: Tick, has_answer: bool) {
        if has_answer {
            self.counts.answered = Some(now);
        }
    }

    /// A call has failed for a reason that passes: it is told, and tried again.
    pub(super) fn is_in_trouble(&mut self, error: Error) {
        self.counts.troubles += 1;
        self.aside.errors.push(error);
    }

    /// A message that is called so has its end, if it is this one.
    pub(super) fn forget_name(&mut self, key: Key, name: &Arc<str>) {
        if self.ids.get(name) == Some(&key) {
            self.ids.remove(name);
        }
    }

    /// Nobody works on a message any more: one that is to be alone may be next.
    pub(super) fn has_left(&mut self, id: u64) {
        if let Some(part) = self.parts.get_mut(&id).filter(|part| part.alone) {
            self.aside.wakers.extend(part.waker.take());
        }
    }

    /// A source that was dropped goes when nothing of it is open, and its fetch has come back. One whose
    /// partition is to be given up is through.
    pub(super) fn end_part(&mut self, id: u64) {
        let Some(part) = self.parts.get(&id) else { return };
        let is_idle = part.prefix.as_ref().is_none_or(|prefix| prefix.sent.is_none());
        let fetches = part.fetch.stop.is_some();
        let is_empty = part.open.is_empty();
        if is_empty && is_idle && !fetches && part.revoking.is_none() && part.left {
            self.partitions.remove_source(part.assignment, id);
            self.forget_failures(id);
            self.leave_room_line(id);
            self.aside.parts.extend(self.parts.remove(&id));
        } else if is_empty && part.revoking.is_some() {
            self.to_answer.insert(id);
            self.wake_driver();
        }
    }

    /// The verdict on a message. Returns after how many failures in a row its source slows down, if it
    /// does, and the source.
    pub(super) fn give(&mut self, key: Key, verdict: Verdict, given: Given) -> Option<(u64, u32)> {
        let Some(entry) = self.entries.get_mut(key) else {
            self.is_undone(key);
            self.news.extend(given.tag.map(News::Concluded));
            self.wake_driver();
            return None;
        };
        if entry.phase == MessagePhase::ByHand {
            // Somebody else settles it, and has not said how that went.
            self.settled_by_hand(key, End::Unknown);
            return None;
        }
        if entry.phase != MessagePhase::Taken {
            return None;
        }
        entry.phase = MessagePhase::Decided;
        entry.tag = given.tag;
        let part = entry.part;
        self.unsettled += 1;
        let is_accept = matches!(verdict, Verdict::Accept);
        self.decide(key, verdict);
        if is_accept {
            self.lets_go_on(key);
        }
        self.has_left(part);
        self.wake_driver();
        match given.handled {
            Handled::Badly => self.count_failure(part).map(|beyond| (part, beyond)),
            Handled::Well => {
                self.forget_failures(part);
                None
            }
            Handled::No => None,
        }
    }

    /// What waits of these is not begun: whoever has them hears of it, of all at once.
    pub(super) fn hurry(&mut self, waiting: Vec<Key>) {
        match self.news.back_mut() {
            _ if waiting.is_empty() => return,
            Some(News::Hurry(keys)) => keys.extend(waiting),
            _ => self.news.push_back(News::Hurry(waiting)),
        }
        self.wake_driver();
    }

    /// The drain has the message again, to undo it.
    pub(super) fn take_back(&mut self, key: Key) -> Option<Tag> {
        let entry = self.entries.get_mut(key)?;
        entry.phase = MessagePhase::Taken;
        let tag = entry.tag.take();
        self.makes_room();
        self.mind_lease(key);
        tag
    }

    /// Whether the receipt is still ours.
    pub(super) fn is_ours(&self, key: Key, now: Tick) -> bool {
        self.entries.get(key).is_some_and(|entry| now < entry.lease.expires)
    }

    /// Whether its partition is to be given up, or is gone.
    pub(super) fn is_asked_back(&self, key: Key) -> bool {
        let part = self.entries.get(key).and_then(|entry| self.parts.get(&entry.part));
        part.is_none_or(|part| part.revoking.is_some())
    }

    /// Whether nothing is open, and a look at each source, behind all that was given back, brought nothing.
    pub(super) fn is_idle(&self) -> bool {
        let has_nothing = |part: &Part<_>| {
            // What was given back since may be there.
            let is_dry = part.fetch.dry == Some(self.given_back);
            // Partitions are on their way to whoever has none.
            let is_through =
                if part.keeper { self.partitions.any_ours() } else { part.ended || is_dry };
            let is_away = part.left || part.drained.is_none();
            (is_through || is_away) && part.revoking.is_none()
        };
        let is_idle = self.entries.len() == 0 && self.news.is_empty() && self.assigned.is_empty();
        is_idle && self.parts.values().all(has_nothing)
    }

    /// Whether something is still open.
    pub(super) fn is_quiet(&self) -> bool {
        self.entries.len() == 0
            && self.news.is_empty()
            && self.parts.values().all(|part| {
                let is_silent = part.prefix.as_ref().is_none_or(|prefix| prefix.sent.is_none());
                is_silent && part.fetch.stop.is_none() && part.revoking.is_none()
            })
    }
}

/// What is said where nothing was heard.
pub(super) fn no_answer() -> Error {
    Error::new(ErrorCode::Timeout, "the transport gave no answer")
}
