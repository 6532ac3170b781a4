//! A partitioned log in memory, as a transport that does what a script or a seed says.
//!
//! The log has the records, the committed offsets and who holds which partition; a consumer is a
//! [`Transport`](crate::transport::Transport) on it. Whoever works on a record tells the log, which
//! looks at each call: see `account` for what it holds against a drain.

mod account;
mod consumer;
mod parts;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use consumer::{LogConsumer, LogOffset};

use crate::chance::Chance;
use crate::clock::Clock;
use crate::error::Error;
use crate::lock::Lock;
use crate::panics;
use crate::step::StepContext;
use parts::LogParts;

/// A record of a [`ScriptedLog`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogRecord {
    /// The number of its partition.
    pub partition: u32,
    /// Its place there: the first one is 0.
    pub offset: u64,
}

/// What a [`ScriptedLog`] answers to a commit or a seek.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogAnswer {
    /// Applied, and confirmed.
    Confirmed,
    /// Applied, and never confirmed.
    Sent,
    /// Not applied.
    Refused,
    /// Not applied: the partition is taken away at this moment.
    Lost,
    /// Not applied, and whoever asks cannot know that.
    Unknown,
    /// Applied, and whoever asks cannot know that.
    Swallowed,
    /// Not applied, and left out of the answer.
    Missing,
    /// Not applied, and no answer ever comes.
    Silent,
}

/// A partitioned log in memory, with committed offsets, generations and consumers that take
/// partitions from each other, for tests of what drains settle in prefix order. Clones are the same
/// log.
///
/// Handlers and places for dead letters tell it what they do by [`apply`](ScriptedLog::apply) and
/// [`pass`](ScriptedLog::pass), and [`check`](ScriptedLog::check) tells what a drain did wrong: a
/// commit that passes a record that is not done, goes back, comes from somebody who has given the
/// partition up, or is sent beside another one; work that is undone after it was committed; a seek
/// while a fetch is on its way; a fetch before its seek is confirmed.
///
/// | option | default |
/// | --- | --- |
/// | [`partition`](ScriptedLog::partition) | none |
/// | [`endless`](ScriptedLog::endless) | a fetch at the end of a partition ends its source |
/// | [`latency`](ScriptedLog::latency) | 2 ms for a fetch, 3 ms for a batch of commits and seeks |
/// | [`mishaps`](ScriptedLog::mishaps) | none |
/// | [`prefetches`](ScriptedLog::prefetches) | 3 records |
///
/// ```
/// use watershed::testing::{LogAnswer, ScriptedLog, Simulation};
/// use watershed::transport::Link;
/// use watershed::{BoxError, fan_in};
///
/// let simulation = Simulation::new(7);
/// let world = simulation.world();
/// let log = ScriptedLog::new(world.clock().clone()).partition(0, 5);
/// let consumer = log.consumer();
/// let link = Link::new(consumer.clone());
/// let orders = link.partition(consumer.assign(0));
///
/// log.answer_commits([LogAnswer::Refused]);
/// let context = world.context("orders");
/// let drain = fan_in(&context, [orders], async |order, step| {
///     log.apply(&step, order);
///     Ok::<_, BoxError>(())
/// });
/// let report = simulation.run(drain).unwrap().unwrap();
/// assert_eq!((report.accepted(), log.committed(0)), (5, 5));
/// log.check().unwrap();
/// ```
#[derive(Clone)]
pub struct ScriptedLog {
    shared: Arc<LogShared>,
}

struct LogShared {
    clock: Arc<dyn Clock>,
    book: Lock<LogBook>,
}

struct LogBook {
    parts: LogParts,
    consumers: usize,
    commits: VecDeque<LogAnswer>,
    seeks: VecDeque<LogAnswer>,
    failing_fetches: u32,
    mishaps: Option<(Chance, u64)>,
    fetch_latency: Duration,
    settle_latency: Duration,
    prefetch: usize,
    endless: bool,
}

impl ScriptedLog {
    /// A log without partitions, whose answers take their time by this clock.
    #[must_use]
    pub fn new(clock: impl Clock + 'static) -> Self {
        let book = LogBook {
            parts: LogParts::default(),
            consumers: 0,
            commits: VecDeque::new(),
            seeks: VecDeque::new(),
            failing_fetches: 0,
            mishaps: None,
            fetch_latency: Duration::from_millis(2),
            settle_latency: Duration::from_millis(3),
            prefetch: 3,
            endless: false,
        };
        Self { shared: Arc::new(LogShared { clock: Arc::new(clock), book: Lock::new(book) }) }
    }

    fn with(self, change: impl FnOnce(&mut LogBook)) -> Self {
        change(&mut self.shared.book.lock());
        self
    }

    fn look<R>(&self, look: impl FnOnce(&mut LogBook) -> R) -> R {
        let mut book = self.shared.book.lock();
        let result = look(&mut book);
        let wakers = book.parts.take_wakers();
        drop(book);
        panics::wake_each(wakers);
        result
    }

    /// A partition with so many records.
    #[must_use]
    pub fn partition(self, partition: u32, records: u64) -> Self {
        self.with(|book| book.parts.add(partition, records))
    }

    /// A partition has no end: a fetch there waits for more.
    #[must_use]
    pub fn endless(self) -> Self {
        self.with(|book| book.endless = true)
    }

    /// How long a fetch is on its way, and how long a batch of commits and seeks is. What a fetch
    /// brings is decided when it is called.
    #[must_use]
    pub fn latency(self, fetch: Duration, settle: Duration) -> Self {
        self.with(|book| (book.fetch_latency, book.settle_latency) = (fetch, settle))
    }

    /// So many of a hundred calls go wrong in one way or another, and take up to ten times as long,
    /// as this seed decides.
    #[must_use]
    pub fn mishaps(self, seed: u64, percent: u64) -> Self {
        self.with(|book| book.mishaps = Some((Chance::new(seed), percent)))
    }

    /// How many records a source has ahead. It holds for consumers that are linked later.
    #[must_use]
    pub fn prefetches(self, records: usize) -> Self {
        self.with(|book| book.prefetch = records)
    }

    /// Another consumer of the log, which has no partition yet.
    #[must_use]
    pub fn consumer(&self) -> LogConsumer {
        let number = self.look(|book| {
            book.consumers += 1;
            book.consumers
        });
        LogConsumer::new(self.clone(), number)
    }

    /// Adds records to a partition.
    pub fn append(&self, partition: u32, records: u64) {
        self.look(|book| book.parts.append(partition, records));
    }

    /// What the next commits are answered; those behind them are confirmed.
    pub fn answer_commits(&self, answers: impl IntoIterator<Item = LogAnswer>) {
        self.look(|book| book.commits.extend(answers));
    }

    /// What the next seeks are answered; those behind them are confirmed.
    pub fn answer_seeks(&self, answers: impl IntoIterator<Item = LogAnswer>) {
        self.look(|book| book.seeks.extend(answers));
    }

    /// So many of the next fetches fail, for a reason that passes.
    pub fn fail_fetches(&self, times: u32) {
        self.look(|book| book.failing_fetches += times);
    }

    /// From now on there are no mishaps, and nothing that was scripted happens.
    pub fn calm(&self) {
        self.look(|book| {
            book.mishaps = None;
            book.failing_fetches = 0;
            book.commits.clear();
            book.seeks.clear();
        });
    }

    /// A handler has worked on a record: notes that, and stages what undoes it.
    pub fn apply(&self, step: &StepContext, record: LogRecord) {
        let facts = step.deliveries();
        let generation = facts.first().map_or(0, |facts| facts.assignment.generation);
        let work = self.look(|book| book.parts.apply(record, generation));
        step.register_compensation_with((self.clone(), work), move |(log, work)| async move {
            log.look(|book| book.parts.undo(record, work));
        });
    }

    /// A record is done without work: left out, or its dead letter is stored.
    pub fn pass(&self, record: LogRecord) {
        self.look(|book| book.parts.pass(record));
    }

    /// The offset of the first record that is not committed.
    #[must_use]
    pub fn committed(&self, partition: u32) -> u64 {
        self.look(|book| book.parts.committed(partition))
    }

    /// The offsets that were committed, in this order.
    #[must_use]
    pub fn commits(&self, partition: u32) -> Vec<u64> {
        self.look(|book| book.parts.commits(partition))
    }

    /// The offsets that were sought, in this order.
    #[must_use]
    pub fn seeks(&self, partition: u32) -> Vec<u64> {
        self.look(|book| book.parts.seeks(partition))
    }

    /// Whether every record is committed.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.look(|book| book.parts.are_drained())
    }

    /// How often a record was [worked on](ScriptedLog::apply).
    #[must_use]
    pub fn handled(&self, record: LogRecord) -> u64 {
        self.look(|book| book.parts.handled(record))
    }

    /// Commits and seeks that were sent by a consumer that had given the partition up, or had it in
    /// a later generation.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.look(|book| book.parts.stale())
    }

    /// How often consumers were closed.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.look(|book| book.parts.closed)
    }

    /// Whether nobody has done anything wrong so far.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation) with all that was wrong.
    pub fn check(&self) -> Result<(), Error> {
        let mistakes = self.look(|book| book.parts.mistakes().join("; "));
        if mistakes.is_empty() { Ok(()) } else { Err(Error::validation(mistakes)) }
    }
}

impl fmt::Debug for ScriptedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedLog").finish_non_exhaustive()
    }
}
