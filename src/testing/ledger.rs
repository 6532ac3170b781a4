//! The accounts of a run: every effect is committed or undone, once, or reported as stuck.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::lock::Lock;
use crate::step::StepContext;

/// Effects that were done, and what became of each. Clones are the same ledger.
///
/// The fakes that a handler talks to tell it [`done`](Self::done) where an effect takes place and
/// [`undone`](Self::undone) where one is taken back. At the end of a run the test says what was
/// [`committed`](Self::committed) or reported as [`stuck`](Self::stuck), and
/// [`check`](Self::check) tells whether every effect came to exactly one end.
///
/// ```
/// use watershed::testing::{Ledger, Unaccounted};
///
/// let ledger = Ledger::new();
/// ledger.done("token 7");
/// ledger.done("event 7");
/// ledger.undone("event 7");
/// assert_eq!(ledger.check().unwrap_err().open(), ["token 7"]);
/// ledger.undone("token 7");
/// assert_eq!(ledger.check().unwrap().undone(), 2);
/// ```
pub struct Ledger<K> {
    book: Arc<Lock<LedgerBook<K>>>,
}

struct LedgerBook<K> {
    states: BTreeMap<K, EffectState>,
    entries: Vec<Entry<K>>,
    mistakes: Vec<Mistake<K>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EffectState {
    Open,
    Undone,
    Committed,
    Stuck,
}

/// One line of a [`Ledger`].
///
/// ```
/// use watershed::testing::{Entry, Ledger};
///
/// let ledger = Ledger::new();
/// ledger.done(7);
/// ledger.undone(7);
/// assert_eq!(ledger.entries(), [Entry::Done(7), Entry::Undone(7)]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<K> {
    /// The effect took place.
    Done(K),
    /// The effect was taken back.
    Undone(K),
    /// The effect is there to stay.
    Committed(K),
    /// The effect could not be taken back, and somebody was told.
    Stuck(K),
}

impl<K> Entry<K> {
    fn split(&self) -> (&K, EffectState) {
        match self {
            Self::Done(key) => (key, EffectState::Open),
            Self::Undone(key) => (key, EffectState::Undone),
            Self::Committed(key) => (key, EffectState::Committed),
            Self::Stuck(key) => (key, EffectState::Stuck),
        }
    }
}

/// An entry that cannot follow what came before it, such as a second undoing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mistake<K> {
    entry: Entry<K>,
    before: Option<EffectState>,
}

impl<K: Clone + Ord + fmt::Debug> Ledger<K> {
    /// An empty ledger.
    ///
    /// ```
    /// let ledger = watershed::testing::Ledger::<u32>::new();
    /// assert!(ledger.check().is_ok());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn enter(&self, entry: Entry<K>) {
        let mut book = self.book.lock();
        let (key, state) = entry.split();
        let before = book.states.get(key).copied();
        let follows = match state {
            EffectState::Open => matches!(before, None | Some(EffectState::Undone)),
            EffectState::Undone => matches!(before, Some(EffectState::Open | EffectState::Stuck)),
            EffectState::Committed | EffectState::Stuck => {
                matches!(before, Some(EffectState::Open))
            }
        };
        if follows {
            book.states.insert(key.clone(), state);
        } else {
            book.mistakes.push(Mistake { entry: entry.clone(), before });
        }
        book.entries.push(entry);
    }

    /// An effect took place. It may do so again after it was undone, as for a message that is
    /// delivered a second time.
    ///
    /// ```
    /// let ledger = watershed::testing::Ledger::new();
    /// ledger.done(7);
    /// ledger.done(7);
    /// assert!(ledger.check().unwrap_err().to_string().contains("7 was done twice"));
    /// ```
    pub fn done(&self, effect: K) {
        self.enter(Entry::Done(effect));
    }

    /// An effect was taken back.
    ///
    /// ```
    /// let ledger = watershed::testing::Ledger::new();
    /// ledger.undone(7);
    /// assert!(ledger.check().unwrap_err().to_string().contains("7 was undone, but never done"));
    /// ```
    pub fn undone(&self, effect: K) {
        self.enter(Entry::Undone(effect));
    }

    /// An effect is there to stay.
    ///
    /// ```
    /// let ledger = watershed::testing::Ledger::new();
    /// ledger.done(7);
    /// ledger.committed(7);
    /// ledger.undone(7);
    /// assert!(ledger.check().unwrap_err().to_string().contains("7 was undone after it was committed"));
    /// ```
    pub fn committed(&self, effect: K) {
        self.enter(Entry::Committed(effect));
    }

    /// Every effect that is open is there to stay, as after a drain that succeeded. Returns how
    /// many those are.
    ///
    /// ```
    /// let ledger = watershed::testing::Ledger::new();
    /// ledger.done(7);
    /// assert_eq!(ledger.commit_open(), 1);
    /// ```
    #[allow(clippy::must_use_candidate, reason = "how many there are matters to few")]
    pub fn commit_open(&self) -> usize {
        let open = self.open();
        open.iter().cloned().for_each(|effect| self.committed(effect));
        open.len()
    }

    /// The compensation of an effect failed for good, and the report of the rollback says so. It
    /// may still be undone later.
    ///
    /// ```
    /// let ledger = watershed::testing::Ledger::new();
    /// ledger.done(7);
    /// ledger.stuck(7);
    /// assert_eq!(ledger.check().unwrap().stuck(), 1);
    /// ```
    pub fn stuck(&self, effect: K) {
        self.enter(Entry::Stuck(effect));
    }

    /// The effects that are done, and neither undone, committed nor stuck. In the order of their
    /// keys.
    ///
    /// ```
    /// let ledger = watershed::testing::Ledger::new();
    /// ledger.done(7);
    /// assert_eq!(ledger.open(), [7]);
    /// ```
    #[must_use]
    pub fn open(&self) -> Vec<K> {
        let book = self.book.lock();
        let open = book.states.iter().filter(|(_, state)| **state == EffectState::Open);
        open.map(|(key, _)| key.clone()).collect()
    }

    /// Everything that was entered, in its order.
    ///
    /// ```
    /// assert!(watershed::testing::Ledger::<u32>::new().entries().is_empty());
    /// ```
    #[must_use]
    pub fn entries(&self) -> Vec<Entry<K>> {
        self.book.lock().entries.clone()
    }

    /// Whether every effect came to exactly one end.
    ///
    /// # Errors
    ///
    /// [`Unaccounted`], with the effects that are open and the entries that should not be.
    ///
    /// ```
    /// let ledger = watershed::testing::Ledger::new();
    /// ledger.done("a lease");
    /// assert_eq!(
    ///     ledger.check().unwrap_err().to_string(),
    ///     "neither committed nor undone: \"a lease\"",
    /// );
    /// ```
    pub fn check(&self) -> Result<Account, Unaccounted<K>> {
        let open = self.open();
        let book = self.book.lock();
        if open.is_empty() && book.mistakes.is_empty() {
            let count = |wanted| book.states.values().filter(|state| **state == wanted).count();
            let (undone, committed) = (count(EffectState::Undone), count(EffectState::Committed));
            return Ok(Account { committed, undone, stuck: count(EffectState::Stuck) });
        }
        Err(Unaccounted { open, mistakes: book.mistakes.clone() })
    }

    /// Does an effect and registers the compensation that undoes it, in this order: what a handler
    /// without a bug does.
    ///
    /// ```
    /// use watershed::testing::{Ledger, Simulation};
    /// use watershed::CompensationPolicy;
    ///
    /// let simulation = Simulation::new(7);
    /// let context = simulation.world().context("orders");
    /// let ledger = Ledger::new();
    /// ledger.apply(&context, "token 7");
    ///
    /// let rollback = context.roll_back(&CompensationPolicy::sequential_reverse());
    /// simulation.run(rollback).unwrap().unwrap();
    /// assert_eq!(ledger.check().unwrap().undone(), 1);
    /// ```
    #[track_caller]
    pub fn apply(&self, step: &StepContext, effect: K)
    where
        K: Send + 'static,
    {
        self.done(effect.clone());
        step.register_compensation_with((self.clone(), effect), |(ledger, effect)| async move {
            ledger.undone(effect);
        });
    }
}

impl<K> Clone for Ledger<K> {
    fn clone(&self) -> Self {
        Self { book: Arc::clone(&self.book) }
    }
}

impl<K> Default for Ledger<K> {
    fn default() -> Self {
        let book =
            LedgerBook { states: BTreeMap::new(), entries: Vec::new(), mistakes: Vec::new() };
        Self { book: Arc::new(Lock::new(book)) }
    }
}

impl<K> fmt::Debug for Ledger<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.book.lock().entries.len();
        f.debug_struct("Ledger").field("entries", &entries).finish_non_exhaustive()
    }
}

/// How many effects came to which end.
///
/// ```
/// let ledger = watershed::testing::Ledger::new();
/// ledger.done(7);
/// ledger.committed(7);
/// let account = ledger.check().unwrap();
/// assert_eq!((account.committed(), account.undone(), account.stuck()), (1, 0, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    committed: usize,
    undone: usize,
    stuck: usize,
}

impl Account {
    /// Effects that are there to stay.
    ///
    /// ```
    /// assert_eq!(watershed::testing::Account::default().committed(), 0);
    /// ```
    #[must_use]
    pub fn committed(&self) -> usize {
        self.committed
    }

    /// Effects that were taken back.
    ///
    /// ```
    /// assert_eq!(watershed::testing::Account::default().undone(), 0);
    /// ```
    #[must_use]
    pub fn undone(&self) -> usize {
        self.undone
    }

    /// Effects that could not be taken back.
    ///
    /// ```
    /// assert_eq!(watershed::testing::Account::default().stuck(), 0);
    /// ```
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.stuck
    }
}

/// What is wrong in a [`Ledger`].
///
/// ```
/// let ledger = watershed::testing::Ledger::new();
/// ledger.done("a lease");
/// let error = ledger.check().unwrap_err();
/// assert_eq!(error.open(), ["a lease"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Unaccounted<K: fmt::Debug> {
    open: Vec<K>,
    mistakes: Vec<Mistake<K>>,
}

impl<K: fmt::Debug> Unaccounted<K> {
    /// The effects that came to no end.
    ///
    /// ```
    /// fn lost(error: &watershed::testing::Unaccounted<u32>) -> usize {
    ///     error.open().len()
    /// }
    /// ```
    #[must_use]
    pub fn open(&self) -> &[K] {
        &self.open
    }
}

impl<K: fmt::Debug> fmt::Display for Unaccounted<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for mistake in &self.mistakes {
            write!(f, "{separator}{mistake}")?;
            separator = "; ";
        }
        for (index, effect) in self.open.iter().enumerate() {
            let before = if index == 0 { "neither committed nor undone: " } else { ", " };
            write!(f, "{}{before}{effect:?}", if index == 0 { separator } else { "" })?;
        }
        Ok(())
    }
}

impl<K: fmt::Debug> fmt::Display for Mistake<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, state) = self.entry.split();
        let verb = |state| match state {
            EffectState::Open => "done",
            EffectState::Undone => "undone",
            EffectState::Committed => "committed",
            EffectState::Stuck => "stuck",
        };
        match self.before {
            Some(before) if before == state => write!(f, "{key:?} was {} twice", verb(state)),
            Some(before) => {
                write!(f, "{key:?} was {} after it was {}", verb(state), verb(before))
            }
            None => write!(f, "{key:?} was {}, but never done", verb(state)),
        }
    }
}
