//! Whole runs, in process.

mod audit;
mod failures;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use indicatif::ProgressBar;
use rusqlite::Connection;
use tempfile::TempDir;
use watershed::{ErrorCode, Failure};

use crate::audit::Found;
use crate::cli::Options;
use crate::input::{Feed, Input, Transport};
use crate::report;
use crate::run::{self, Summary};
use crate::schema;
use crate::signals::Signals;
use crate::transports::partition_log;
use crate::worker::reason;

const EXECUTORS: [&str; 4] = ["futures", "smol", "tokio", "custom"];
const ALL: u64 = 1707;

/// A folder for a database and for input.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("test.db")
    }

    fn connect(&self) -> Connection {
        Connection::open(self.database()).unwrap()
    }

    /// Makes an input of three feeds, `a`, `b` and `c`: two queues, and a partition between them.
    fn input(&self, lines: &str) -> PathBuf {
        let input = self.0.path().join("input");
        fs::create_dir_all(&input).unwrap();
        for feed in ["a", "b", "c"] {
            let lines = lines.replace("ID", feed);
            fs::write(input.join(format!("{feed}.jsonl")), lines).unwrap();
        }
        input
    }

    /// Runs on the database in this folder.
    fn run(&self, arguments: &str) -> Summary {
        try_run(&format!("--database {} {arguments}", self.database().display())).unwrap()
    }

    fn partition(&self, feed: u32) -> PathBuf {
        partition_log::partition(&schema::partitions(&self.database()), feed)
    }
}

fn options(arguments: &str) -> Options {
    Options::parse_from(std::iter::once("test").chain(arguments.split_whitespace()))
}

fn try_run(arguments: &str) -> Result<Summary, watershed::BoxError> {
    let options = options(arguments);
    let summary = run::run(&options, &ProgressBar::hidden(), &Signals::default())?;
    let text = report::report(&options, &summary)?;
    assert!(text.contains("Audit of the database"), "{text}");
    Ok(summary)
}

impl Summary {
    /// What an audit that holds has found.
    #[track_caller]
    fn found(&self) -> Found {
        assert!(self.audit.holds(), "{:#?}", self.audit);
        self.audit.found()
    }

    /// Messages that took effect, are dead letters, and wait.
    #[track_caller]
    fn counts(&self) -> (u64, u64, u64) {
        let Found { done, dead, waiting, in_work, .. } = self.found();
        assert_eq!(in_work, 0);
        (done, dead, waiting)
    }

    fn code(&self) -> Option<ErrorCode> {
        self.drained.outcome.as_ref().err().map(|ended| ended.error().code())
    }

    /// What the handler said that ended the drain.
    fn failures(&self) -> Vec<String> {
        let ended = self.drained.outcome.as_ref().err().map(Failure::error);
        ended.iter().flat_map(|error| error.related()).chain(ended).map(reason).collect()
    }

    /// Why messages are among the dead letters.
    fn letters(&self) -> Vec<&str> {
        let mut letters: Vec<_> = self.audit.dead.iter().map(|(_, why)| why.as_str()).collect();
        letters.sort_unstable();
        letters
    }
}

/// Good lines with these numbers.
fn good_lines(numbers: Range<u32>) -> String {
    let line = |number| {
        format!(
            r#"{{"id": "ID{number}", "time": 1, "latitude": 1.5, "longitude": -2, "mag": -0.4}}"#
        )
    };
    numbers.map(line).map(|line| line + "\n").collect()
}

/// Two good lines around a line that is not.
fn with_line(line: &str) -> String {
    format!("{}\n{line}\n{}", good_lines(1..2), good_lines(2..3))
}

#[test]
fn the_command_line_is_consistent() {
    Options::command().debug_assert();
    let run = |arguments: &[&str]| {
        Options::try_parse_from(std::iter::once("test").chain(arguments.iter().copied()))
    };
    assert!(run(&["prove", "3", "file"]).is_ok());
    let error = run(&["--concurrency", "0"]).unwrap_err().to_string();
    assert!(error.contains("with no handler at all nothing would be done"), "{error}");
}

#[test]
fn every_executor_drains_everything() {
    for executor in EXECUTORS {
        let summary = try_run(&format!("--executor {executor}")).unwrap();
        assert!(summary.as_asked());
        assert_eq!(summary.counts(), (ALL, 0, 0), "{executor}");
        assert_eq!(summary.found().undone, 0);
        for transport in [Transport::LeaseQueue, Transport::Log] {
            assert_eq!(summary.input.feeds_of(transport).count(), 6, "{transport:?}");
        }
    }
}

#[test]
fn more_volume_and_more_handlers() {
    let summary = try_run("--repeat 2 --concurrency 16").unwrap();
    assert_eq!(summary.counts(), (2 * ALL, 0, 0));
}

#[test]
fn a_timeout_takes_nothing_or_undoes_what_runs() {
    let folder = Folder::new();
    let summary = folder.run("--timeout 0s");
    assert_eq!((summary.code(), summary.exit_code()), (Some(ErrorCode::Timeout), 2));
    assert_eq!(summary.counts(), (0, 0, ALL));

    let summary = folder.run("--timeout 50ms");
    assert_eq!(summary.code(), Some(ErrorCode::Timeout));
    let (done, dead, waiting) = summary.counts();
    assert!(dead == 0 && waiting > 0, "{done} done in 50 ms, {waiting} wait");
    assert_eq!(folder.run("").counts(), (ALL, 0, 0));
}

#[test]
fn a_cancelled_run_takes_nothing() {
    // One signal: it finishes what runs, which is nothing. Two: it undoes that.
    for signals in [1, 2] {
        let ended = Signals::default();
        (0..signals).for_each(|_| ended.signal());
        let summary = run::run(&options(""), &ProgressBar::hidden(), &ended).unwrap();
        assert_eq!(summary.code(), (signals == 2).then_some(ErrorCode::Canceled));
        assert_eq!(summary.counts(), (0, 0, ALL));
        assert!(summary.interrupted);
        assert_eq!(summary.exit_code(), 3);
        let text = report::report(&options(""), &summary).unwrap();
        assert!(text.contains("A signal ended the run; 1,707 messages wait."), "{text}");
        assert!(!text.contains('\u{1b}'), "no escape codes: {text}");
    }
}

#[test]
fn a_database_is_for_one_input() {
    let folder = Folder::new();
    folder.run("--timeout 0s");
    let run = |arguments: &str| {
        let database = folder.database();
        try_run(&format!("--database {} {arguments}", database.display())).unwrap_err().to_string()
    };
    assert!(run("--repeat 2").contains("belongs to another input"));
    let input = folder.input("{}\n");
    assert!(run(&format!("--input {}", input.display())).contains("belongs to another input"));
}

#[test]
fn unusable_input_is_an_error() {
    let folder = Folder::new();
    let empty = folder.0.path().display().to_string();
    assert!(try_run(&format!("--input {empty}")).unwrap_err().to_string().contains("no .jsonl"));
    let error = try_run("--input /nowhere/at/all").unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nowhere/at/all");
    fs::write(folder.database(), "this is no database, it is a text of some length").unwrap();
    let run = try_run(&format!("--database {}", folder.database().display()));
    assert!(run.unwrap_err().to_string().starts_with("cannot open"));
}

#[test]
fn the_embedded_input_is_the_folder_beside_this_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("earthquakes");
    let repeat = std::num::NonZeroU32::MIN;
    let (embedded, read) = (Input::load(None, repeat), Input::load(Some(&folder), repeat));
    let (embedded, read) = (embedded.unwrap(), read.unwrap());
    assert_eq!(embedded.fingerprint, read.fingerprint);
    assert_eq!((embedded.feeds.len(), embedded.messages()), (12, ALL));
    let names = |input: &Input| -> Vec<String> {
        input.feeds.iter().map(|feed: &std::sync::Arc<Feed>| feed.name.to_string()).collect()
    };
    assert_eq!(names(&embedded), names(&read));
}
