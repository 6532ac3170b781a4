//! Files drained into `SQLite`: no server is needed.

use std::fs::{self, OpenOptions};
use std::io::Write;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::support::{Shop, metrics_say};

const CONFIG: &str = r#"
[store]
url = "sqlite:orders.db"

[worker]
concurrency = 1
finish_within = "60s"
metrics = "127.0.0.1:0"

[[source]]
kind = "files"
folder = "orders"
"#;

fn execute(shop: &Shop, sql: &str) {
    let url = format!("sqlite:{}", shop.path("orders.db").display());
    smol::block_on(async {
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
        connection.close().await.unwrap();
    });
}

fn append(shop: &Shop, file: &str, text: &str) {
    let mut file = OpenOptions::new().append(true).open(shop.path(file)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_worker_that_is_ended_and_killed_in_the_middle_leaves_nothing_half_done() {
    let shop = Shop::new(CONFIG);
    shop.produce("--count 400 --poison 12 --prefix test");

    // Asked to end in the middle: what it has begun is done.
    let mut worker = shop.work();
    worker.says("put aside");
    worker.terminate();
    let (status, last) = worker.ends();
    assert_eq!(status.code(), Some(0), "{last}");
    assert!(last.contains(r#""ended":"AsAsked""#) && last.contains(r#""lost":0"#), "{last}");
    let (is_clean, text) = shop.audit();
    assert!(!is_clean && !text.contains("half done"), "{text}");

    // Killed in the middle, twice.
    for _ in 0..2 {
        let mut worker = shop.work();
        worker.says("put aside");
        worker.kill();
    }
    let worker = shop.work();
    let text = shop.audit_until_clean();
    assert!(text.contains("files        400       388        12         0         0"), "{text}");
    worker.terminate();
    assert_eq!(worker.ends().0.code(), Some(0));
    assert!(shop.audit().0);

    what_is_wrong_is_found(&shop);
}

/// Each in a copy of what is clean.
fn what_is_wrong_is_found(clean: &Shop) {
    let (done, id) = ("message = 'test-files-0'", "test-files-0");
    let in_the_store = [
        (format!("update tokens set state = 'begun' where {done}"), "its token is begun"),
        (format!("delete from outbox where {done}"), "it is done, with 0 events"),
        (format!("delete from tokens where {done}"), "1 events without a token"),
        (
            format!(
                "insert into outbox (message, undo_key, body)
                select message, undo_key, body from outbox where {done}"
            ),
            "it is done, with 2 events",
        ),
        (
            format!("delete from outbox where {done}; delete from tokens where {done}"),
            "nothing became of it",
        ),
    ];
    for (sql, expected) in in_the_store {
        let shop = clean.copy();
        execute(&shop, &sql);
        is_found(&shop, &format!("wrong: files: the order {id}: "), expected);
    }
    let shop = clean.copy();
    append(&shop, "orders/dead/letters.jsonl", "{}\n");
    is_found(&shop, "wrong: files: ", "1 dead letters of no order: {}");
    let shop = clean.copy();
    fs::write(shop.path("orders/dead/letters.jsonl"), "").unwrap();
    is_found(&shop, "wrong: files: ", "no effect, and no dead letter");
    let shop = clean.copy();
    append(&shop, "orders/orders-2.jsonl", "{}\n");
    is_found(&shop, "wrong: files: ", "orders-2.jsonl has ");
}

fn is_found(shop: &Shop, begin: &str, expected: &str) {
    let (is_clean, text) = shop.audit();
    let is_there = text.lines().any(|line| line.starts_with(begin) && line.contains(expected));
    assert!(!is_clean && is_there, "{expected}\n{text}");
}

#[test]
fn a_second_signal_undoes_what_runs_and_gives_it_back() {
    let shop = Shop::new(CONFIG);
    shop.produce("--count 3 --poison 0 --prefix test");
    let mut worker = shop.work();
    let port = worker.port();
    metrics_say(port, r#"order_worker_settled_total{outcome="accepted"} 3"#);

    // Somebody else writes, and does not end: the next order's handler waits.
    let url = format!("sqlite:{}", shop.path("orders.db").display());
    let mut other = smol::block_on(SqliteConnection::connect(&url)).unwrap();
    smol::block_on(other.execute("begin immediate")).unwrap();
    let order = r#"{"id":"late","feed":"ak","earthquake":"ak1","magnitude":null,"pieces":1}"#;
    append(&shop, "orders/orders-1.jsonl", &format!("{order}\n"));
    metrics_say(port, "order_worker_in_flight 1");

    worker.terminate();
    worker.says("finishing what runs");
    worker.terminate();
    worker.says("undoing what runs");
    smol::block_on(other.execute("rollback")).unwrap();
    let (status, last) = worker.ends();
    assert_eq!(status.code(), Some(3), "{last}");
    assert!(last.contains(r#""released":1"#) && last.contains(r#""not_undone":0"#), "{last}");
    let (is_clean, text) = shop.audit();
    // It waits in its file, and has left nothing.
    assert!(!is_clean && text.ends_with("1 finding\n") && text.contains("are done"), "{text}");
}

#[test]
fn what_cannot_begin_says_what_to_do_and_ends_with_two() {
    let shop = Shop::new(&CONFIG.replace("127.0.0.1:0", "0.0.0.0:9100"));
    let (status, last) = shop.work().ends();
    assert!(
        status.code() == Some(2) && last.contains("an address of this machine alone"),
        "{last}"
    );
    let shop = Shop::new(CONFIG);
    let (status, last) = shop.work().ends();
    assert!(status.code() == Some(2) && last.contains("cannot read the folder orders"), "{last}");
    let shop = Shop::new(&CONFIG.replace("folder", "directory"));
    let (status, last) = shop.work().ends();
    assert!(status.code() == Some(2) && last.contains("unknown field `directory`"), "{last}");
}
