//! One run from its options to its audit.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use watershed::{BoxError, FanInReport};

use crate::audit::{self, Audit};
use crate::cli::Options;
use crate::database::Database;
use crate::drain::{self, Drained, Settings};
use crate::event::EventError;
use crate::faults::Faults;
use crate::input::Input;
use crate::schema;
use crate::signals::Signals;
use crate::sources::Sources;
use crate::worker::Worker;

/// What a run did, for the report.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) input: Arc<Input>,
    /// The number of this run on its database.
    pub(crate) run: i64,
    pub(crate) drained: Drained,
    /// How many domain events were emitted.
    pub(crate) emitted: u64,
    /// A signal ended the run before everything was settled.
    pub(crate) interrupted: bool,
    pub(crate) audit: Audit,
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

const BAR: &str = "{msg:24} {wide_bar} {human_pos}/{human_len}  {elapsed}, {eta} left";

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
    let input = Arc::new(Input::load(options.input.as_deref(), options.repeat)?);
    let place = match &options.database {
        Some(path) => Place::Kept(path.clone()),
        None => Place::Temporary(tempfile::tempdir()?),
    };
    let path = place.database();

    // Everything up to the drain blocks, and no executor runs yet.
    let connection = schema::open(&path, &input)?;
    let run = schema::begin_run(&connection)?;
    bar.set_style(ProgressStyle::with_template(BAR)?);
    bar.set_length(schema::left(&connection)?);

    let (database, thread) = Database::start(connection)?;
    let sources = Sources {
        database: database.clone(),
        input: Arc::clone(&input),
        folder: schema::partitions(&path),
    };
    let faults = Faults::new(options.fail_at, options.fail_one_in);
    let worker = Arc::new(Worker { database: database.clone(), run, faults });
    let settings = Settings {
        timeout: options.timeout.unwrap_or(Duration::MAX),
        concurrency: options.concurrency,
        on_failure: options.on_failure,
        finish: signals.finish(),
        undo: signals.undo(),
    };
    let drain = drain::drain(Arc::clone(&worker), sources, settings, bar.clone());
    let drained = options.executor.block_on(drain)??;
    bar.finish_and_clear();
    let (settled, unsure) = settled(drained.report());
    let end = move |database: &_| Ok(schema::end_run(database, run, settled, unsure)?);
    futures::executor::block_on(database.call(end))?;
    thread.join()?;

    let audit = audit::audit(&path, &input)?;
    let found = audit.found();
    let interrupted = signals.came() && found.done + found.dead < input.messages();
    let emitted = worker.faults.emitted();
    Ok(Summary { input, run, drained, emitted, interrupted, audit })
}

/// How many messages a drain has settled, and of how many it cannot be sure.
fn settled(report: &FanInReport) -> (u64, u64) {
    (report.accepted() + report.rejected(), report.lost() + report.unknown())
}
