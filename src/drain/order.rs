//! In which order the messages of one source are handled: one after another, by key, or in any.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, RandomState};
use std::marker::PhantomData;
use std::sync::Arc;

use super::hashed::{Hashed, IsHashed};
use crate::panics;
use crate::ready::Node;

/// The types that go with [`Order`].
pub trait OrderTypes {
    /// What is in order.
    type Key;
    /// The keys of the messages that are being handled.
    type Busy;
}

/// What lets messages of one source run at once.
pub trait Order<M>: OrderTypes<Key: Clone, Busy: BusyKeys<Self::Key>> {
    /// One message of a source at a time.
    const SERIAL: bool;
    /// Messages that have a key in common run one after another.
    const KEYED: bool;
    /// Keys count over all sources.
    const ACROSS: bool = <Self::Busy as BusyKeys<Self::Key>>::ACROSS;

    /// The key of a message. This is the user's code.
    fn key(&mut self, message: &M) -> Self::Key;

    /// What equal keys have in common, where there are any.
    #[doc(hidden)]
    fn hash_of(_: &Self::Key) -> u64 {
        0
    }
}

/// The keys of the messages that are being handled.
pub trait BusyKeys<K>: Default {
    /// They count over all sources.
    const ACROSS: bool = false;

    /// Makes a key busy. A lane that waited for it shows its ticket.
    #[doc(hidden)]
    fn begin(&mut self, key: &K, ticket: Option<u64>) -> bool;

    /// Lets a lane wait for a busy key, behind all others.
    #[doc(hidden)]
    fn wait(&mut self, key: &K, lane: &Waiter) -> u64;

    /// Frees a key, and hands out what was kept of it. The lane that has waited longest for it is
    /// woken, and will be let through.
    #[doc(hidden)]
    fn end(&mut self, key: &K) -> Option<K>;

    /// A lane that waits, or was let through and has not come, goes away.
    #[doc(hidden)]
    fn leave(&mut self, key: &K, ticket: u64);

    /// Takes every key out. Dropping them is the user's code.
    #[doc(hidden)]
    fn take_all(&mut self) -> impl Iterator<Item = K>;
}

/// A lane that may wait for a key.
#[derive(Clone)]
pub struct Waiter(pub(super) Arc<Node>);

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Waiter").finish()
    }
}

/// Without keys: one message of a source after another, which is the default, or all in any order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unkeyed<const SERIAL: bool>;

impl<const SERIAL: bool> OrderTypes for Unkeyed<SERIAL> {
    type Key = ();
    type Busy = ();
}

impl<M, const SERIAL: bool> Order<M> for Unkeyed<SERIAL> {
    const SERIAL: bool = SERIAL;
    const KEYED: bool = false;

    fn key(&mut self, _: &M) {}
}

impl BusyKeys<()> for () {
    #[inline]
    fn begin(&mut self, (): &(), _: Option<u64>) -> bool {
        true
    }

    fn wait(&mut self, (): &(), _: &Waiter) -> u64 {
        0
    }

    #[inline]
    fn end(&mut self, (): &()) -> Option<()> {
        None
    }

    fn leave(&mut self, (): &(), _: u64) {}

    fn take_all(&mut self) -> impl Iterator<Item = ()> {
        std::iter::empty()
    }
}

/// In order by the key that the user's function gives: the keys of each source by themselves, or over all
/// sources, as they are kept in `B`.
#[derive(Clone, Debug)]
pub struct ByKey<C, K, B> {
    key: C,
    hashed: RandomState,
    made: u64,
    kept: PhantomData<fn() -> (K, B)>,
}

/// By the keys of each source.
pub(super) type OrderedBy<C, K> = ByKey<C, K, HashSet<Hashed<K>, IsHashed>>;

/// By keys that count over all sources.
pub(super) type OrderedAcross<C, K> = ByKey<C, K, KeysOfAll<Hashed<K>>>;

impl<C, K, B> ByKey<C, K, B> {
    pub(super) fn new(key: C) -> Self {
        Self { key, hashed: RandomState::new(), made: 0, kept: PhantomData }
    }
}

impl<C, K, B> OrderTypes for ByKey<C, K, B> {
    type Key = Hashed<K>;
    type Busy = B;
}

impl<M, K, C, B> Order<M> for ByKey<C, K, B>
where
    K: Eq + Hash + Clone,
    C: FnMut(&M) -> K,
    B: BusyKeys<Hashed<K>>,
{
    const SERIAL: bool = false;
    const KEYED: bool = true;

    #[inline]
    fn key(&mut self, message: &M) -> Hashed<K> {
        self.made += 1;
        Hashed::new((self.key)(message), self.made, &self.hashed)
    }

    fn hash_of(key: &Hashed<K>) -> u64 {
        key.hash()
    }
}

/// The lane itself is polled again whenever one of its messages ends.
impl<K: Eq + Hash + Clone> BusyKeys<K> for HashSet<K, IsHashed> {
    fn begin(&mut self, key: &K, _: Option<u64>) -> bool {
        self.insert(key.clone())
    }

    fn wait(&mut self, _: &K, _: &Waiter) -> u64 {
        0
    }

    fn end(&mut self, key: &K) -> Option<K> {
        self.take(key)
    }

    fn leave(&mut self, _: &K, _: u64) {}

    fn take_all(&mut self) -> impl Iterator<Item = K> {
        std::mem::take(self).into_iter()
    }
}

/// The busy keys of all sources, and by key the lanes that wait for it, in the order in which they
/// came.
#[derive(Debug)]
pub struct KeysOfAll<K> {
    busy: HashMap<K, KeyLine, IsHashed>,
    tickets: u64,
}

/// Who waits for one key.
#[derive(Debug, Default)]
struct KeyLine {
    lanes: VecDeque<(u64, Waiter)>,
    /// Tickets in the line whose lanes have gone away.
    gone: HashSet<u64>,
    /// The ticket that was let through and has not come yet.
    let_through: Option<u64>,
}

impl<K> Default for KeysOfAll<K> {
    fn default() -> Self {
        Self { busy: HashMap::default(), tickets: 0 }
    }
}

impl KeyLine {
    /// Lets the first lane through that is still there.
    fn go_on(&mut self) -> bool {
        self.let_through = None;
        while let Some((ticket, lane)) = self.lanes.pop_front() {
            if !self.gone.remove(&ticket) {
                self.let_through = Some(ticket);
                lane.0.notify();
                return true;
            }
        }
        false
    }
}

impl<K: Eq + Hash + Clone> BusyKeys<K> for KeysOfAll<K> {
    const ACROSS: bool = true;

    fn begin(&mut self, key: &K, ticket: Option<u64>) -> bool {
        match self.busy.get_mut(key) {
            Some(line) if ticket.is_some() && line.let_through == ticket => {
                line.let_through = None;
                true
            }
            Some(_) => false,
            None => {
                self.busy.insert(key.clone(), KeyLine::default());
                true
            }
        }
    }

    fn wait(&mut self, key: &K, lane: &Waiter) -> u64 {
        self.tickets += 1;
        if let Some(line) = self.busy.get_mut(key) {
            line.lanes.push_back((self.tickets, lane.clone()));
        }
        self.tickets
    }

    fn end(&mut self, key: &K) -> Option<K> {
        if self.busy.get_mut(key)?.go_on() {
            return None;
        }
        self.busy.remove_entry(key).map(|(key, _)| key)
    }

    fn leave(&mut self, key: &K, ticket: u64) {
        let Some(line) = self.busy.get_mut(key) else { return };
        if line.let_through == Some(ticket) {
            panics::drop_each(self.end(key));
            return;
        }
        line.gone.insert(ticket);
        if line.gone.len() > 16 + line.lanes.len() / 2 {
            let gone = std::mem::take(&mut line.gone);
            line.lanes.retain(|(ticket, _)| !gone.contains(ticket));
        }
    }

    fn take_all(&mut self) -> impl Iterator<Item = K> {
        std::mem::take(&mut self.busy).into_keys()
    }
}
