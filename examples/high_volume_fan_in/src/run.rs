//! One run from its options to its audit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use watershed::{BoxError, SourceReport};

use crate::audit::{self, Audit, Expectation};
use crate::cli::{FailureMode, Options};
use crate::event::EventError;
use crate::input::{Feed, Input, Transport};
use crate::schema::{self, Opened, Recovered};
use crate::signals::Signals;
use crate::source::Transports;
use crate::store::Store;
use crate::worker::{self, Drained, Settings, Worker};
use crate::{partition_log, tcp};

/// What a run did, for the report.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) feeds: Vec<FeedSummary>,
    /// The number of this run on its database.
    pub(crate) run: i64,
    pub(crate) recovered: Recovered,
    pub(crate) drained: Drained,
    /// Leases that were taken for a message whose handler never started.
    pub(crate) released: usize,
    /// How many domain events were emitted.
    pub(crate) emitted: u64,
    /// A signal ended the run before everything was drained.
    pub(crate) interrupted: bool,
    pub(crate) audit: Audit,
}

/// What a run did for one feed.
#[derive(Debug)]
pub(crate) struct FeedSummary {
    pub(crate) name: Arc<str>,
    pub(crate) transport: Transport,
    pub(crate) messages: u64,
    /// Handlers that succeeded in this run.
    pub(crate) handled: u64,
    /// Messages whose handler started in this run and which are not done after it.
    pub(crate) rolled_back: u64,
    /// Messages that are done, by this run or an earlier one.
    pub(crate) done: u64,
}

impl Summary {
    /// Whether the drain ended in the way that the options asked for.
    pub(crate) fn as_asked(&self) -> bool {
        let Err(failure) = &self.drained.outcome else { return true };
        matches!(failure.error().downcast_ref(), Some(EventError::Planned { .. }))
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match (self.audit.holds(), self.interrupted, self.as_asked()) {
            (false, ..) => 1,
            (true, true, _) => 3,
            (true, false, false) => 2,
            (true, false, true) => 0,
        }
    }
}

/// Where the database is.
enum Place {
    Kept(PathBuf),
    /// Deleted when it is dropped.
    Temporary(tempfile::TempDir),
}

impl Place {
    fn database(&self) -> PathBuf {
        match self {
            Self::Kept(path) => path.clone(),
            Self::Temporary(folder) => folder.path().join("earthquakes.db"),
        }
    }
}

/// Does what the options ask for, until a signal comes.
///
/// # Errors
///
/// When the drain cannot start: unusable input or database. How it ended is in the summary.
pub(crate) fn run(
    options: &Options,
    bar: &ProgressBar,
    signals: &Signals,
) -> Result<Summary, BoxError> {
    let mut input = Input::load(options.input.as_deref(), options.repeat)?;
    let order = input.order(options.seed);
    let place = match &options.database {
        Some(path) => Place::Kept(path.clone()),
        None => Place::Temporary(tempfile::tempdir()?),
    };
    let database = place.database();
    let partitions = partition_log::folder(&database);

    // Everything up to here and on to the drain blocks, and no executor runs yet.
    let opened = schema::open(&database, &mut input, &order, |input| {
        partition_log::write(&partitions, input)
    })?;
    let Opened { connection, run, next_sequence, recovered } = opened;
    let before = done(&connection, &input)?;
    bar.set_style(ProgressStyle::with_template(BAR)?);
    bar.set_message("handling");
    bar.set_length(input.messages() - before.iter().sum::<u64>());

    let (store, store_thread) = Store::start(connection)?;
    let sender = tcp::Sender::start(input.feeds.clone())?;
    let transports = Transports { store: store.clone(), partitions: partitions.clone(), sender };
    let worker = Arc::new(Worker {
        store,
        run,
        sequence: AtomicI64::new(next_sequence),
        fail_at: options.fail_at,
        on_failure: options.on_failure,
        emitted: AtomicU64::new(0),
    });
    let settings = Settings {
        timeout: options.timeout.unwrap_or(Duration::MAX),
        concurrency: options.concurrency,
        finish: signals.finish(),
        undo: signals.undo(),
    };
    let feeds = order.iter().map(|index| Arc::clone(&input.feeds[*index])).collect();
    let drain = drain(transports, feeds, Arc::clone(&worker), settings, bar.clone());
    let (drained, released) = options.executor.block_on(drain)??;
    store_thread.join()?;
    bar.finish_and_clear();

    let expectation = Expectation {
        run,
        everything_undone: options.on_failure == FailureMode::Abort && drained.outcome.is_err(),
        before,
        handled: drained.report().handled(),
    };
    let audit = audit(&database, &partitions, &input, &expectation)?;
    let emitted = worker.emitted.load(Ordering::Relaxed);
    let feeds = summarize(&input, &drained, &expectation, &audit);
    let left = feeds.iter().any(|feed| feed.done < feed.messages);
    let interrupted = left && signals.came();
    Ok(Summary { feeds, run, recovered, drained, released, emitted, interrupted, audit })
}

const BAR: &str = "{msg:14} {wide_bar} {human_pos}/{human_len}  {elapsed}, {eta} left";

/// The part that runs on the executor.
async fn drain(
    transports: Transports,
    feeds: Vec<Arc<Feed>>,
    worker: Arc<Worker>,
    settings: Settings,
    bar: ProgressBar,
) -> Result<(Drained, usize), BoxError> {
    let readers = transports.readers(feeds).await?;
    let drained = worker::drain(worker, readers, settings, &bar).await?;
    // A lease may have been taken for a message that the drain, when it ended, did not start.
    let released = transports.store.call(|database| Ok(schema::release_held(database)?)).await?;
    Ok((drained, released))
}

fn audit(
    database: &Path,
    partitions: &Path,
    input: &Input,
    expectation: &Expectation,
) -> Result<Audit, BoxError> {
    let connection = schema::open_read_only(database)?;
    audit::audit(&connection, partitions, input, expectation)
}

/// How many messages of each feed are done.
fn done(connection: &rusqlite::Connection, input: &Input) -> rusqlite::Result<Vec<u64>> {
    let count = |settled: Vec<bool>| settled.iter().map(|settled| u64::from(*settled)).sum();
    input.feeds.iter().map(|feed| schema::settled(connection, feed).map(count)).collect()
}

fn summarize(
    input: &Input,
    drained: &Drained,
    expectation: &Expectation,
    audit: &Audit,
) -> Vec<FeedSummary> {
    let rows = drained.report().sources();
    let summary = |(index, feed): (usize, &Arc<Feed>)| {
        let row = rows.iter().find(|row| row.name() == &*feed.name);
        let newly_done = audit.done[index].saturating_sub(expectation.before[index]);
        FeedSummary {
            name: Arc::clone(&feed.name),
            transport: feed.transport,
            messages: u64::from(feed.messages()),
            handled: row.map_or(0, SourceReport::handled),
            rolled_back: row.map_or(0, SourceReport::taken).saturating_sub(newly_done),
            done: audit.done[index],
        }
    };
    input.feeds.iter().enumerate().map(summary).collect()
}
