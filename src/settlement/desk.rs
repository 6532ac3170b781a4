//! A transport as a drain sees it: receipts are numbers, whatever their type.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;

use super::bell::DeskBell;
use super::words::{Able, Facts, Settled, Verdict};
use crate::clock::{Clock, Tick};
use crate::error::Error;

/// The number of a receipt, which no other has had at any desk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub(crate) desk: u32,
    pub(crate) place: u32,
    pub(crate) turn: u32,
}

impl Key {
    /// What tells it from all others of its desk.
    #[inline]
    pub(crate) fn number(self) -> u64 {
        u64::from(self.place) << 32 | u64::from(self.turn)
    }

    /// The one with this number at a desk.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the number is two of this size")]
    pub(crate) fn at_desk(desk: u32, number: u64) -> Self {
        Self { desk, place: (number >> 32) as u32, turn: number as u32 }
    }
}

/// What the drain keeps of a message until it is settled: the number of its record.
pub(crate) type Tag = u32;

/// What goes with a verdict.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// The drain has a record of the message, and is told when it is settled.
    pub(crate) tag: Option<Tag>,
    pub(crate) handled: Handled,
}

/// What a verdict says of those who handle messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Handled {
    /// No handler has seen it, or none was to blame.
    #[default]
    No,
    Well,
    Badly,
}

/// What a desk has to tell its drain.
#[derive(Debug)]
pub enum News {
    /// A message that has a record is settled for good: what it did stays.
    Concluded(Tag),
    /// An accept was certainly not applied, to the end: the message is to be undone and released,
    /// unless one of its key has begun since. `behind`: how many of its source, or of its group, were
    /// taken since.
    Refused { key: Key, tag: Tag, behind: u64, group: Option<Arc<str>> },
    /// A message was done, and one before it is given back: it is to be undone.
    Voided(Key, Option<Tag>),
    /// The receipts of these messages, which are in work, are no longer ours. They come in crowds, with
    /// their partition, and who works on one is looked for once.
    Lost(Vec<Key>),
    /// A partition is to be given up: what waits of these is released at once.
    Hurry(Vec<Key>),
    /// Something that does not pass.
    Fault(Error),
}

/// How many receipts had which end, each in exactly one of these; of `fetched` all others. And how the
/// transports do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settlements {
    pub(crate) fetched: u64,
    pub(crate) accepted: u64,
    pub(crate) released: u64,
    pub(crate) rejected: u64,
    pub(crate) lost: u64,
    pub(crate) unknown: u64,
    pub(crate) abandoned: u64,
    /// Calls that have failed for a reason that passes.
    pub(crate) troubles: u64,
    /// When the transport answered last; of several, the one that is silent for longest.
    pub(crate) answered: Option<Tick>,
    /// How many transports these are of.
    pub(crate) desks: u32,
}

impl Settlements {
    pub(crate) fn add(&mut self, other: &Self) {
        // One that has never answered is less than any that has.
        let answered = self.answered.min(other.answered);
        self.answered = if self.desks == 0 { other.answered } else { answered };
        self.desks += other.desks;
        self.troubles += other.troubles;
        self.fetched += other.fetched;
        self.accepted += other.accepted;
        self.released += other.released;
        self.rejected += other.rejected;
        self.lost += other.lost;
        self.unknown += other.unknown;
        self.abandoned += other.abandoned;
    }
}

/// The object-safe form of a transport.
pub trait Desk: fmt::Debug + Send + Sync {
    fn able(&self) -> Able;

    /// A drain begins to drive it, and looks at it whenever its bell is rung. `budget`: how little time it
    /// may have at its end.
    ///
    /// # Errors
    ///
    /// Where another one does, or the transport cannot be used as it was asked to be.
    fn attach(
        &self,
        bell: &Arc<DeskBell>,
        clock: &Arc<dyn Clock>,
        message_timeout: Option<Duration>,
        budget: Duration,
    ) -> Result<(), Error>;

    /// The drain is gone. Nothing is sent any more; returns the accepts that were not handed over,
    /// and whose outcome is known to no one: those are as if they had not been given.
    fn detach(&self) -> Vec<(Key, Option<Tag>)>;

    /// Fetches, renews and settles what is due, and says what the drain has to know.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<News>;

    /// Nothing more is fetched, and what was not taken goes back.
    fn stop(&self);

    /// Whether nothing is open any more.
    fn is_quiet(&self) -> bool;

    /// Whether nothing is open, and the last look at each source brought nothing.
    fn is_idle(&self) -> bool;

    /// The verdict on a message.
    fn give(&self, key: Key, verdict: Verdict, given: Given);

    /// The message was handled, and there is nothing to be undone: the same as to give that, for less,
    /// where the drain that drives the transport says it while it is polled. `false`: it has to be given.
    fn accept(&self, key: Key) -> bool;

    /// The handler settles by itself, and this is how that goes so far: its own answer counts, not that
    /// of a renewal. Or it has not settled after all.
    fn by_hand(&self, key: Key, outcome: Option<Settled>);

    /// Whether the handler has settled by itself, or is about to.
    fn is_by_hand(&self, key: Key) -> bool;

    /// How the handler's own settlement went, if it made one.
    fn take_by_hand(&self, key: Key) -> Option<Settled>;

    /// The handler has settled by itself, with this outcome.
    fn settled_by_hand(&self, key: Key, outcome: &Settled);

    /// There is no verdict, and there will be none.
    fn abandon(&self, key: Key);

    /// Its drain is over, and it is staged to be released by whoever undoes the rest.
    fn keep(&self, key: Key);

    /// Releases what was kept.
    fn release_kept(self: Arc<Self>, key: Key) -> BoxFuture<'static, Settled>;

    /// What was kept is not going to be released.
    fn forget_kept(&self, key: Key);

    /// Its messages are gathered in windows.
    fn gathers(&self);

    /// The most messages of one window that need no interval to be closed.
    fn largest_window(&self) -> usize;

    /// Whether it is to be given back rather than tried again: its partition is.
    fn is_asked_back(&self, key: Key) -> bool;

    /// Whether the receipt is still ours.
    fn is_ours(&self, key: Key) -> bool;

    /// How often messages that were taken were lost, or asked back.
    fn recalls(&self) -> u64;

    /// Whether it may be begun that was taken: it is ours, and neither its partition nor its group goes
    /// back.
    fn may_begin(&self, key: Key) -> bool;

    /// Whether a handler has time enough for it, where its lease cannot be renewed.
    fn has_time(&self, key: Key) -> bool;

    fn facts(&self, key: Key) -> Facts;

    /// The transport's own receipt.
    fn receipt(&self, key: Key) -> Option<Box<dyn Any + Send>>;

    /// Whether somebody has a source of it, or is to release what was kept.
    fn is_used(&self) -> bool;

    fn close(self: Arc<Self>) -> BoxFuture<'static, Result<(), Error>>;

    /// What has become of the receipts since the drain began.
    fn settlements(&self) -> Settlements;
}
