//! Whole runs, in process.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

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
fn a_planned_failure_ends_the_run_and_the_next_run_finishes() {
    for executor in EXECUTORS {
        for concurrency in [1, 16] {
            let folder = Folder::new();
            let options = format!("--executor {executor} --concurrency {concurrency}");
            let summary = folder.run(&format!("{options} --fail-at 900"));
            assert!(summary.as_asked());
            assert_eq!((summary.code(), summary.exit_code()), (Some(ErrorCode::Handler), 0));
            let (done, dead, waiting) = summary.counts();
            // What else ran was undone as well, and others went on while it was tried again.
            assert!(done + concurrency >= 899 && waiting > 0 && dead == 0, "{done} {waiting}");
            // Three attempts.
            assert!(summary.found().undone >= 3);
            assert_eq!(summary.failures().len(), 1);
            assert!(summary.failures()[0].ends_with("event 900 fails, as --fail-at says"));

            let summary = folder.run(&options);
            assert_eq!((summary.counts(), summary.run), ((ALL, 0, 0), 2));
        }
    }
}

#[test]
fn a_planned_failure_is_a_dead_letter_in_either_transport() {
    for (feed, transport) in [("a", Transport::LeaseQueue), ("b", Transport::Log)] {
        let folder = Folder::new();
        let input = folder.input("");
        fs::write(input.join(format!("{feed}.jsonl")), good_lines(1..4).replace("ID", feed))
            .unwrap();
        let options = format!("--input {} --on-failure dead-letter", input.display());
        let summary = folder.run(&format!("{options} --fail-at 2"));
        assert_eq!((summary.counts(), summary.exit_code()), ((2, 1, 0), 0));
        // Three attempts.
        assert_eq!(summary.found().undone, 3);
        let letter = format!("{feed}.jsonl:2: event 2 fails, as --fail-at says");
        assert_eq!(summary.letters(), [letter]);
        let carried: Vec<_> = summary.input.feeds_of(transport).map(|feed| &*feed.name).collect();
        assert!(carried.contains(&feed));
        // It is given up for good.
        assert_eq!(folder.run(&options).counts(), (2, 1, 0));
    }
}

#[test]
fn what_fails_by_chance_is_tried_again() {
    let summary = try_run("--fail-one-in 10 --on-failure dead-letter --concurrency 16").unwrap();
    let Found { done, dead, undone, .. } = summary.found();
    assert_eq!(done + dead, ALL);
    assert!(undone > 100 && dead < 100, "{undone} undone, {dead} dead letters");
}

#[test]
fn two_workers_on_one_database_do_everything_once() {
    let folder = Folder::new();
    thread::scope(|scope| {
        let work = || folder.run("--repeat 2 --fail-one-in 20 --on-failure dead-letter");
        let workers = [scope.spawn(work), scope.spawn(work)];
        for worker in workers {
            let summary = worker.join().unwrap();
            assert_eq!(summary.exit_code(), 0, "{:#?}", summary.audit);
            assert!(summary.drained.report().accepted() > 0, "each had its share");
        }
    });
    let (done, dead, _) = folder.run("--repeat 2").counts();
    assert_eq!(done + dead, 2 * ALL);
}

#[test]
fn more_volume_and_more_handlers() {
    let summary = try_run("--repeat 2 --concurrency 16").unwrap();
    assert_eq!(summary.counts(), (2 * ALL, 0, 0));
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

        // Twice: what failed is still there, and fails again.
        for _ in 0..2 {
            let summary = folder.run(&input);
            assert_eq!((summary.as_asked(), summary.exit_code()), (false, 2));
            let (done, dead, waiting) = summary.counts();
            assert!(done <= 6 && dead == 0 && waiting >= 3, "{done} {waiting}");
            let failures = summary.failures();
            let known = |failure| complaints.contains(failure);
            assert!(!failures.is_empty() && failures.iter().all(known), "{failures:?}");
        }
        let summary = folder.run(&format!("{input} --on-failure dead-letter"));
        assert_eq!(summary.counts(), (6, 3, 0));
        assert_eq!(summary.letters(), complaints);
        // Such a line is not tried again: no attempt had anything to undo.
        assert_eq!(summary.found().undone, 0);
        assert_eq!(summary.drained.report().attempts(), summary.drained.report().taken());
    }
}

#[test]
fn a_line_that_is_not_even_text_is_a_dead_letter_byte_for_byte() {
    let folder = Folder::new();
    let input = folder.input("");
    let line = b"{\"id\": \"\xff\"}";
    fs::write(input.join("b.jsonl"), line).unwrap();
    let input = format!("--input {} --on-failure dead-letter", input.display());
    let summary = folder.run(&input);
    assert_eq!(summary.counts(), (0, 1, 0));
    assert!(summary.letters()[0].starts_with("b.jsonl:1: not a valid line of JSON"));
    let body = folder.connect().query_row("SELECT body FROM dead", [], |row| row.get(0));
    assert_eq!(body, Ok(line.to_vec()));
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
    let stopped = folder.run(&format!("{input} --fail-at 3"));
    assert!(stopped.audit.holds() && !stopped.failures().is_empty(), "{:#?}", stopped.audit);
    assert_eq!(folder.run(&input).counts(), (6, 0, 0));
    let events = folder.connect().query_row("SELECT count(*) FROM outbox", [], |row| row.get(0));
    assert_eq!(events, Ok(3));
}

#[test]
fn an_event_whose_first_message_fails_is_emitted_by_another_one() {
    let folder = Folder::new();
    let input = folder.input("");
    let line = r#"{"id": "1", "time": 1, "latitude": 1, "longitude": 2}"#;
    for feed in ["a", "b", "c"] {
        fs::write(input.join(format!("{feed}.jsonl")), line).unwrap();
    }
    let options = format!("--input {} --on-failure dead-letter --fail-at 1", input.display());
    let summary = folder.run(&options);
    // The one that fails is given up, unless another one is done before its last attempt.
    let (done, dead, _) = summary.counts();
    assert!(done + dead == 3 && dead <= 1 && summary.found().undone > 0, "{done} {dead}");
    let events = folder.connect().query_row("SELECT count(*) FROM outbox", [], |row| row.get(0));
    assert_eq!(events, Ok(1));
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
fn what_a_killed_worker_left_half_done_is_finished_by_the_next_delivery() {
    let folder = Folder::new();
    folder.run("--timeout 0s");
    // `ak` is in the queue, `ci` in the log: a worker that was killed had begun with one of each, and
    // had put one more into the dead letters, which it did not live to reject.
    folder
        .connect()
        .execute_batch(
            "INSERT INTO runs(run) VALUES (99);
            UPDATE queue SET token = 1, deliveries = 1 WHERE queue = 0 AND number < 2;
            INSERT INTO tokens VALUES ('ak18247005#1', 0, 0, 1, 99, 'killed');
            UPDATE partitions SET generation = 7 WHERE partition = 1;
            INSERT INTO tokens VALUES ('ci38095576#1', 1, 0, 7, 99, 'killed');
            INSERT INTO dead SELECT 0, 1, 1, 99, body, 'killed' FROM queue WHERE (queue, number) = (0, 1);",
        )
        .unwrap();
    let summary = folder.run("--timeout 0s");
    let found = summary.found();
    assert_eq!((found.in_work, found.waiting), (3, ALL - 3), "{:#?}", summary.audit);
    assert_eq!(folder.run("").counts(), (ALL, 0, 0));
}

#[test]
fn another_worker_s_lease_is_waited_for() {
    let folder = Folder::new();
    folder.run("--timeout 0s");
    let sql = "UPDATE queue SET token = 9, expires = unixepoch('now', '+1 second') * 1000
        WHERE queue = 0 AND number = 5";
    assert_eq!(folder.connect().execute(sql, []).unwrap(), 1);
    let summary = folder.run("");
    assert_eq!(summary.counts(), (ALL, 0, 0));
    assert_eq!(summary.drained.report().fetched(), ALL);
}

#[test]
fn the_audit_finds_what_is_wrong() {
    let put = "INSERT INTO journal(act, feed, position, undo) VALUES";
    let damages = [
        ("DELETE FROM outbox WHERE token = 'ak18247005#1'", "1 half done"),
        ("DELETE FROM tokens WHERE token = 'ak18247005#1'", "1 half done"),
        ("DELETE FROM tokens WHERE token = 'ak18247005#1'", "1 effects undone after their message"),
        ("UPDATE outbox SET body = '' WHERE token = 'ak18247005#1'", "1 not as their line says"),
        ("INSERT INTO outbox VALUES ('x', 77, 0, 1, 1, '', '')", "1 of no line"),
        ("INSERT INTO tokens VALUES ('x', 0, 0, 1, 1, '')", "1 of no line"),
        ("INSERT INTO dead VALUES (0, 3, 1, 1, x'00', '')", "there, 1 not"),
        (
            "INSERT INTO dead SELECT feed, position, 1, 1, x'', '' FROM tokens LIMIT 1",
            "1 half done",
        ),
        (&format!("{put} ('token undone', 0, 0, 'x')"), "1 out of order"),
        (&format!("{put} ('event undone', 1, 0, 'x')"), "1 effects undone after their message"),
        ("UPDATE runs SET settled = settled + 1", "reported 1,708"),
        ("UPDATE runs SET settled = settled - 1", "reported 1,706"),
    ];
    let folder = Folder::new();
    assert_eq!(folder.run("").counts(), (ALL, 0, 0));
    for (damage, complaint) in damages {
        let copy = Folder::new();
        fs::copy(folder.database(), copy.database()).unwrap();
        let (from, to) = [&folder, &copy].map(|it| schema::partitions(&it.database())).into();
        fs::create_dir(&to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        assert_eq!(copy.connect().execute(damage, []).unwrap(), 1);
        let checks = copy.run("").audit.checks;
        let found = checks.iter().any(|check| !check.holds && check.text.contains(complaint));
        assert!(found, "{damage}: {checks:#?}");
    }
}

#[test]
fn the_audit_finds_a_message_that_is_gone() {
    let folder = Folder::new();
    folder.run("--timeout 0s");
    let forget = "DELETE FROM queue WHERE queue = 0 AND number = 3";
    assert_eq!(folder.connect().execute(forget, []).unwrap(), 1);
    fs::write(folder.partition(1), "{}\n").unwrap();
    let checks = folder.run("--timeout 0s").audit.checks;
    for complaint in ["1 half done", "there, 386 not"] {
        let found = checks.iter().any(|check| !check.holds && check.text.contains(complaint));
        assert!(found, "{complaint}: {checks:#?}");
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
fn a_partition_that_was_cut_off_is_a_fault_of_its_source() {
    let folder = Folder::new();
    folder.run("--timeout 0s");
    let records = fs::read(folder.partition(1)).unwrap();
    fs::write(folder.partition(1), &records[..records.len() - 10]).unwrap();
    let summary = folder.run("");
    assert_eq!(summary.code(), Some(ErrorCode::Source));
    let failure = &summary.failures()[0];
    assert!(failure.ends_with("1.jsonl has 385 records, and was written with 386"), "{failure}");

    fs::write(folder.partition(1), &records).unwrap();
    assert_eq!(folder.run("").counts(), (ALL, 0, 0));
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
