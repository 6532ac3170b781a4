//! Whole runs, in process.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use indicatif::ProgressBar;
use rusqlite::Connection;
use tempfile::TempDir;
use watershed::ErrorCode;

use crate::cli::Options;
use crate::event::EventError;
use crate::input::{Feed, Input, Transport};
use crate::report;
use crate::run::{self, Summary};
use crate::schema::Recovered;
use crate::signals::Signals;

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

    /// Makes an input of three feeds, `a`, `b` and `c`, which get one transport each.
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
    fn sum(&self, count: fn(&run::FeedSummary) -> u64) -> u64 {
        self.feeds.iter().map(count).sum()
    }

    /// Messages handled, rolled back, and done now, in an audited run.
    #[track_caller]
    fn counts(&self) -> (u64, u64, u64) {
        assert!(self.audit.holds(), "{:#?}", self.audit);
        (
            self.sum(|feed| feed.handled),
            self.sum(|feed| feed.rolled_back),
            self.sum(|feed| feed.done),
        )
    }

    fn undone(&self) -> usize {
        let (report, _) = self.drained.rollback.as_ref().expect("there was a rollback");
        report.as_ref().unwrap().succeeded()
    }

    /// What the handlers said of the messages that failed, one by one.
    fn failures(&self) -> Vec<String> {
        let said =
            |error: &watershed::Error| error.downcast_ref::<EventError>().unwrap().to_string();
        let ended = self.drained.outcome.as_ref().err().map(watershed::Failure::error);
        let related = ended.map_or(&[][..], |error| error.related());
        let failures = ended.into_iter().chain(related).chain(&self.drained.failed);
        let mut failures: Vec<_> = failures.map(said).collect();
        failures.sort();
        failures
    }
}

#[test]
fn the_command_line_is_consistent() {
    Options::command().debug_assert();
}

#[test]
fn every_executor_drains_everything() {
    for executor in EXECUTORS {
        let summary = try_run(&format!("--executor {executor}")).unwrap();
        assert!(summary.as_asked());
        assert_eq!(summary.counts(), (ALL, 0, ALL), "{executor}");
        for transport in [Transport::LeaseQueue, Transport::Log, Transport::Tcp] {
            let feeds = summary.feeds.iter().filter(|feed| feed.transport == transport);
            assert_eq!(feeds.count(), 4, "{transport:?}");
        }
    }
}

#[test]
fn a_planned_failure_undoes_the_whole_run_and_the_next_run_finishes() {
    for executor in EXECUTORS {
        for concurrency in [1, 16] {
            let folder = Folder::new();
            let options = format!("--executor {executor} --concurrency {concurrency}");
            let summary = folder.run(&format!("{options} --fail-at 900"));
            assert!(summary.as_asked());
            assert_eq!(
                summary.drained.outcome.as_ref().unwrap_err().error().code(),
                ErrorCode::Handler
            );
            let (handled, rolled_back, done) = summary.counts();
            assert!(handled >= 899 && rolled_back > handled && done == 0);
            // A token, an event and a settlement for each, of which the failed one lacks the last.
            assert!(summary.undone() as u64 >= 3 * 899 + 2, "{}", summary.undone());
            assert_eq!(summary.failures().len(), 1);
            assert!(summary.failures()[0].ends_with("event 900 fails, as --fail-at says"));

            let summary = folder.run(&options);
            assert_eq!(summary.counts(), (ALL, 0, ALL));
            assert_eq!(summary.run, 2);
        }
    }
}

#[test]
fn a_failure_after_a_finished_part_undoes_only_its_own_run() {
    let folder = Folder::new();
    let summary = folder.run("--fail-at 1000 --on-failure roll-back-message");
    assert_eq!(summary.counts(), (ALL - 1, 1, ALL - 1));
    let summary = folder.run("--fail-at 1");
    assert_eq!(summary.counts(), (0, 1, ALL - 1));
    assert_eq!(folder.run("").counts(), (1, 0, ALL));
    assert_eq!(folder.run("--fail-at 1").counts(), (0, 0, ALL));
}

#[test]
fn a_message_can_be_rolled_back_alone_in_every_transport() {
    // In this order of feeds the first event is one of each transport in turn.
    for fail_at in 1..=3 {
        let folder = Folder::new();
        let options = "--on-failure roll-back-message --concurrency 1";
        let summary = folder.run(&format!("{options} --fail-at {fail_at}"));
        assert!(summary.as_asked());
        assert_eq!(summary.counts(), (ALL - 1, 1, ALL - 1));
        assert_eq!(summary.drained.outcome.as_ref().unwrap().failed(), 1);
        assert_eq!(summary.failures().len(), 1);
        assert_eq!(folder.run(options).counts(), (1, 0, ALL));
    }
}

#[test]
fn more_volume_more_handlers_and_a_seed() {
    let summary = try_run("--repeat 2 --concurrency 16 --seed 7").unwrap();
    assert_eq!(summary.counts(), (2 * ALL, 0, 2 * ALL));
    let transports = |arguments: &str| -> Vec<_> {
        let feeds = try_run(arguments).unwrap().feeds;
        feeds.into_iter().map(|feed| feed.transport).collect()
    };
    assert_eq!(transports("--seed 7"), transports("--seed 7"));
    assert_ne!(transports("--seed 7"), transports("--seed 8"));
}

/// Two good lines around a line that is not.
fn with_line(line: &str) -> String {
    let good = |number| {
        format!(
            r#"{{"id": "ID{number}", "time": 1, "latitude": 1.5, "longitude": -2, "mag": -0.4}}"#
        )
    };
    format!("{}\n\n{line}\n{}\n", good(1), good(2))
}

#[test]
fn a_bad_line_is_named_and_nothing_is_lost() {
    let bad = [
        ("{\"id\": \"ID\", ", "not a valid line of JSON: EOF while parsing a value at column 12"),
        ("\u{0}", "not a valid line of JSON: expected value at column 1"),
        (r#"{"time": 1, "latitude": 1, "longitude": 2}"#, "id is missing"),
        (r#"{"id": "", "time": 1, "latitude": 1, "longitude": 2}"#, "id is missing"),
        (
            r#"{"id": "ID3", "time": 1, "latitude": 91, "longitude": 2}"#,
            "latitude 91 is not between -90 and 90",
        ),
    ];
    for (line, complaint) in bad {
        let folder = Folder::new();
        let input = folder.input(&with_line(line));
        let input = format!("--input {}", input.display());
        let complaints = ["a", "b", "c"].map(|feed| format!("{feed}.jsonl:3: {complaint}"));

        let summary = folder.run(&input);
        assert!(!summary.as_asked());
        assert_eq!(summary.counts().2, 0);
        let failures = summary.failures();
        let known = |failure| complaints.contains(failure);
        assert!(!failures.is_empty() && failures.iter().all(known), "{failures:?}");

        // Twice: what failed is still there, and fails again.
        for (run, kept) in [6, 0].into_iter().enumerate() {
            let summary = folder.run(&format!("{input} --on-failure roll-back-message"));
            assert_eq!(summary.counts(), (kept, 3, 6), "run {run}");
            assert_eq!(summary.failures(), complaints);
        }
        let summary = folder.run(&input);
        assert_eq!((summary.counts().0, summary.counts().2), (0, 6));
    }
}

#[test]
fn a_line_that_is_not_even_text_is_a_bad_line() {
    let folder = Folder::new();
    let input = folder.input("");
    fs::write(input.join("a.jsonl"), b"{\"id\": \"\xff\"}\n").unwrap();
    let summary = folder.run(&format!("--input {}", input.display()));
    assert_eq!(summary.counts(), (0, 1, 0));
    assert!(summary.failures()[0].starts_with("a.jsonl:1: not a valid line of JSON"));
}

#[test]
fn an_event_that_comes_twice_is_emitted_once() {
    let folder = Folder::new();
    let input = folder.input("");
    let line = |id| format!(r#"{{"id": "{id}", "time": 1, "latitude": 1, "longitude": 2}}"#);
    for (feed, lines) in [("a", ["1", "2"]), ("b", ["2", "1"]), ("c", ["3", "3"])] {
        let lines = lines.map(line).join("\n");
        fs::write(input.join(format!("{feed}.jsonl")), lines).unwrap();
    }
    let input = format!("--input {}", input.display());
    let summary = folder.run(&format!("{input} --fail-at 3"));
    assert_eq!(summary.counts().2, 0);
    assert_eq!(folder.run(&input).counts(), (6, 0, 6));
    let count = |table| {
        let sql = format!("SELECT count(*) FROM {table}");
        folder.connect().query_row(&sql, [], |row| row.get::<_, u64>(0)).unwrap()
    };
    assert_eq!((count("outbox"), count("duplicates")), (3, 3));
}

#[test]
fn a_timeout_takes_nothing_or_undoes_everything() {
    let folder = Folder::new();
    let summary = folder.run("--timeout 0s");
    assert_eq!(summary.drained.outcome.as_ref().unwrap_err().error().code(), ErrorCode::Timeout);
    assert!(!summary.as_asked());
    assert_eq!(summary.counts(), (0, 0, 0));

    let summary = folder.run("--repeat 1 --timeout 5ms");
    assert_eq!(summary.drained.outcome.as_ref().unwrap_err().error().code(), ErrorCode::Timeout);
    assert_eq!(summary.counts().2, 0);
    assert_eq!(folder.run("").counts(), (ALL, 0, ALL));
}

#[test]
fn a_cancelled_run_takes_nothing() {
    // One signal: it finishes what runs, which is nothing. Two: it undoes the run.
    for signals in [1, 2] {
        let ended = Signals::default();
        (0..signals).for_each(|_| ended.signal());
        let summary = run::run(&options(""), &ProgressBar::hidden(), &ended).unwrap();
        let failed = summary.drained.outcome.as_ref().err();
        let code = failed.map(|failure| failure.error().code());
        assert_eq!(code, (signals == 2).then_some(ErrorCode::Canceled));
        assert_eq!(summary.counts(), (0, 0, 0));
        assert!(summary.interrupted);
        assert_eq!(summary.exit_code(), 3);
        let text = report::report(&options(""), &summary).unwrap();
        assert!(text.contains("A signal ended the run; 1,707 messages are left."), "{text}");
        assert!(!text.contains('\u{1b}'), "no escape codes: {text}");
    }
}

#[test]
fn what_a_killed_run_left_half_done_is_cleared_first() {
    let folder = Folder::new();
    folder.run("--timeout 0s");
    // `ak` is in the queue, `ci` in the log: a handler of each had begun.
    folder
        .connect()
        .execute_batch(
            "UPDATE leases SET state = 'leased', owner = 'high_volume_fan_in',
                expires_at = 9000000000000 WHERE feed = 0 AND position = 0;
            INSERT INTO tokens VALUES ('ak18247005#1', 0, 0);
            INSERT INTO outbox VALUES ('ak18247005#1', 0, 0, 'half done');
            INSERT INTO tokens VALUES ('whatever', 1, 0);",
        )
        .unwrap();
    let summary = folder.run("");
    assert_eq!(summary.recovered, Recovered { released: 1, deleted: 3 });
    assert_eq!(summary.counts(), (ALL, 0, ALL));
}

#[test]
fn an_expired_lease_is_taken_over() {
    let folder = Folder::new();
    folder.run("--timeout 0s");
    let lease = |expires_at: i64| {
        let sql = "UPDATE leases SET state = 'leased', owner = 'another', expires_at = ?1
            WHERE feed = 0 AND position = 5";
        folder.connect().execute(sql, [expires_at]).unwrap();
    };
    lease(9_000_000_000_000);
    let summary = folder.run("");
    assert!(!summary.audit.holds(), "another worker holds a lease");
    assert_eq!(summary.sum(|feed| feed.done), ALL - 1);
    lease(1);
    assert_eq!(folder.run("").counts(), (1, 0, ALL));
}

#[test]
fn the_audit_finds_what_is_wrong() {
    let damages = [
        ("DELETE FROM outbox WHERE token = 'ak18247005#1'", "1 half done"),
        ("DELETE FROM tokens WHERE token = 'ak18247005#1'", "1 half done"),
        ("UPDATE outbox SET body = '' WHERE token = 'ak18247005#1'", "1 not as their line says"),
        ("INSERT INTO outbox VALUES ('x', 77, 0, '')", "1 of no line"),
        ("UPDATE leases SET payload = x'00' WHERE feed = 0 AND position = 3", "there, 1 not"),
        ("DELETE FROM leases WHERE feed = 0 AND position = 3", "there, 1 not"),
    ];
    for (damage, complaint) in damages {
        let folder = Folder::new();
        assert_eq!(folder.run("").counts(), (ALL, 0, ALL));
        assert_eq!(folder.connect().execute(damage, []).unwrap(), 1);
        let checks = folder.run("").audit.checks;
        let found = checks.iter().any(|check| !check.holds && check.text.contains(complaint));
        assert!(found, "{damage}: {checks:#?}");
    }
}

#[test]
fn the_audit_finds_a_rollback_that_is_not_complete_or_not_in_reverse() {
    let damages = [
        ("DELETE FROM rollbacks WHERE step = 1", "effects in this run"),
        ("UPDATE rollbacks SET step = -step", "out of order"),
    ];
    for (damage, complaint) in damages {
        let folder = Folder::new();
        let input = Input::load(None, std::num::NonZeroU32::MIN).unwrap();
        let summary = folder.run("--fail-at 50");
        assert_eq!(summary.counts().2, 0);
        let connection = folder.connect();
        connection.execute(damage, []).unwrap();
        let expectation = crate::audit::Expectation {
            run: 1,
            everything_undone: true,
            before: vec![0; 12],
            handled: 0,
        };
        let mut dealt = input.clone();
        dealt.assign_transports(&input.order(None));
        let partitions = crate::partition_log::folder(&folder.database());
        let audit = crate::audit::audit(&connection, &partitions, &dealt, &expectation).unwrap();
        let found: Vec<_> = audit.checks.iter().filter(|check| !check.holds).collect();
        assert!(found.len() == 1 && found[0].text.contains(complaint), "{damage}: {found:#?}");
    }
}

#[test]
fn a_database_is_for_one_input_and_one_run() {
    let folder = Folder::new();
    folder.run("");
    let run = |arguments: &str| {
        let database = folder.database();
        try_run(&format!("--database {} {arguments}", database.display())).unwrap_err().to_string()
    };
    assert!(run("--repeat 2").contains("belongs to another input"));
    let input = folder.input("{}\n");
    assert!(run(&format!("--input {}", input.display())).contains("belongs to another input"));

    let other = folder.connect();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE").unwrap();
    assert!(run("").contains("in use by another run"));
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
fn a_partition_that_was_cut_off_is_a_fault_of_its_source() {
    let folder = Folder::new();
    folder.run("--timeout 0s");
    let partition = crate::partition_log::folder(&folder.database()).join("ci.jsonl");
    let records = fs::read(&partition).unwrap();
    fs::write(&partition, &records[..records.len() - 10]).unwrap();
    let summary = folder.run("");
    let error = summary.drained.outcome.as_ref().unwrap_err().error();
    assert_eq!((error.code(), error.source_name()), (ErrorCode::Source, Some("ci")));
    assert_eq!(summary.sum(|feed| feed.done), 0);

    fs::write(&partition, &records).unwrap();
    assert_eq!(folder.run("").counts(), (ALL, 0, ALL));
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
