//! The rules for deliveries of one message that meet.

use rusqlite::Connection;

use super::{Delivery, Effect, Mark, Put};
use crate::schema;

/// A database with two messages in a queue, 0 and 1.
fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(schema::TABLES).unwrap();
    let put = "INSERT INTO queue(queue, number, body) VALUES (0, 0, x''), (0, 1, x'')";
    connection.execute(put, []).unwrap();
    connection
}

/// A delivery of a message, which brings the event `e`.
fn mark(position: u32, number: u64) -> Mark {
    let undo = format!("{position}-{number}").into();
    Mark { delivery: Delivery { feed: 0, position, number, run: 1 }, undo, token: "e".into() }
}

fn event() -> Effect {
    Effect::Event("body".into())
}

fn put_both(database: &Connection, mark: &Mark) -> [Put; 2] {
    [Effect::Token, event()].map(|effect| effect.put(database, mark).unwrap())
}

fn undo_both(database: &Connection, mark: &Mark) {
    for effect in [event(), Effect::Token] {
        effect.undo(database, mark).unwrap();
    }
}

fn settle(database: &Connection, position: u32) {
    database.execute("DELETE FROM queue WHERE number = ?1", [position]).unwrap();
}

fn count(database: &Connection) -> [u32; 3] {
    ["tokens", "outbox", "dead"].map(|table| {
        let sql = format!("SELECT count(*) FROM {table}");
        database.query_row(&sql, [], |row| row.get(0)).unwrap()
    })
}

#[test]
fn what_was_put_is_undone_and_can_be_put_again() {
    let (database, first) = (database(), mark(0, 1));
    for _ in 0..2 {
        assert_eq!(put_both(&database, &first), [Put::Ours; 2]);
        assert_eq!(count(&database), [1, 1, 0]);
        undo_both(&database, &first);
        undo_both(&database, &first);
        assert_eq!(count(&database), [0, 0, 0]);
    }
}

#[test]
fn the_undo_of_an_earlier_delivery_does_nothing_to_what_a_later_one_took_over() {
    let (database, first, second) = (database(), mark(0, 1), mark(0, 2));
    put_both(&database, &first);
    assert_eq!(put_both(&database, &second), [Put::Ours; 2]);
    undo_both(&database, &first);
    assert_eq!(count(&database), [1, 1, 0]);
    undo_both(&database, &second);
    assert_eq!(count(&database), [0, 0, 0]);
}

#[test]
fn an_earlier_delivery_does_nothing_once_a_later_one_has_begun() {
    let (database, first, second) = (database(), mark(0, 1), mark(0, 2));
    put_both(&database, &second);
    assert_eq!(put_both(&database, &first), [Put::InWork; 2]);
    first.delivery.bury(&database, b"", "late").unwrap();
    undo_both(&database, &first);
    assert_eq!(count(&database), [1, 1, 0]);
}

#[test]
fn an_earlier_delivery_does_nothing_once_the_message_is_settled() {
    let (database, first, second) = (database(), mark(0, 1), mark(0, 2));
    second.delivery.bury(&database, b"", "given up").unwrap();
    assert_eq!(put_both(&database, &first), [Put::InWork; 2]);
    settle(&database, 0);
    assert_eq!(put_both(&database, &first), [Put::Done; 2]);
    assert_eq!(count(&database), [0, 0, 1]);
}

#[test]
fn a_dead_letter_takes_the_place_of_what_a_killed_worker_left_and_the_other_way_round() {
    let database = database();
    put_both(&database, &mark(0, 1));
    mark(0, 2).delivery.bury(&database, b"", "given up").unwrap();
    assert_eq!(count(&database), [0, 0, 1]);
    // Its worker was killed before it rejected the message.
    assert_eq!(put_both(&database, &mark(0, 3)), [Put::Ours; 2]);
    assert_eq!(count(&database), [1, 1, 0]);
}

#[test]
fn another_message_with_the_same_event_waits_until_the_first_is_settled() {
    let (database, first, other) = (database(), mark(0, 1), mark(1, 1));
    put_both(&database, &first);
    assert_eq!(put_both(&database, &other), [Put::InWork; 2]);
    settle(&database, 0);
    assert_eq!(put_both(&database, &other), [Put::Done; 2]);
    undo_both(&database, &other);
    assert_eq!(count(&database), [1, 1, 0]);
}
