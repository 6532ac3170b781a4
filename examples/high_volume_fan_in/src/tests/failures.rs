//! Messages that fail, workers that are killed, and two at once.

use std::fs;
use std::thread;

use watershed::ErrorCode;

use super::{ALL, EXECUTORS, Folder, good_lines, try_run, with_line};
use crate::audit::Found;
use crate::input::Transport;

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
        let work = || folder.run("--repeat 4 --fail-one-in 20 --on-failure dead-letter");
        let workers = [scope.spawn(work), scope.spawn(work)];
        for worker in workers {
            let summary = worker.join().unwrap();
            assert_eq!(summary.exit_code(), 0, "{:#?}", summary.audit);
            assert!(summary.drained.report().accepted() > 0, "each had its share");
        }
    });
    let (done, dead, _) = folder.run("--repeat 4").counts();
    assert_eq!(done + dead, 4 * ALL);
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
    // The run stops there, unless the other message with that event is done before the last attempt.
    assert!(folder.run(&format!("{input} --fail-at 3")).found().undone > 0);
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
