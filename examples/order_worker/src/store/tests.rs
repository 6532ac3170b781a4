//! What PostgreSQL does with transactions that are late, or were left, and `SQLite` with many who begin.

use std::sync::Barrier;
use std::time::Duration;
use std::{env, thread};

use futures::future::{Either, select};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::{Store, Value};
use crate::effect::{Mark, Step, Taken};

/// Longer than a statement takes.
const A_WHILE: Duration = Duration::from_millis(500);

/// Longer than a busy machine takes for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// A store in a schema of its own, on the server that is there for the tests.
async fn store(name: &str, patience: Duration) -> Option<Store> {
    let Ok(url) = env::var("WATERSHED_POSTGRES_URL") else {
        let text = "WATERSHED_POSTGRES_URL is not set; `.ci/postgres COMMAND` starts PostgreSQL";
        assert!(env::var("WATERSHED_SERVERS").as_deref() != Ok("required"), "{text}");
        eprintln!("not tried: {text}");
        return None;
    };
    let schema = format!("order_worker_{name}_{}", std::process::id());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection.execute(AssertSqlSafe(format!("create schema {schema}"))).await.unwrap();
    connection.close().await.unwrap();
    let url = format!("{url}?options=-csearch_path%3D{schema}");
    let store = Store::open(&url, 4, patience).unwrap();
    store.create_tables().await.unwrap();
    Some(store)
}

fn mark(undo_key: &str) -> Mark {
    Mark { message: "order".to_owned(), undo_key: undo_key.to_owned() }
}

async fn tokens(store: &Store) -> usize {
    let mut look = store.look().await.unwrap();
    look.rows("select message from tokens", &[]).await.unwrap().len()
}

/// Each of them makes the file, its journal and its tables, if it is the first.
#[test]
fn many_can_begin_on_a_file_that_is_not_there_yet() {
    for _ in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("orders.db").display());
        let begin = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let store = Store::open(&url, 4, PATIENCE).unwrap();
                    begin.wait();
                    smol::block_on(store.create_tables()).unwrap();
                    smol::block_on(store.close());
                });
            }
        });
    }
}

#[test]
fn an_undo_does_not_overtake_the_commit_of_what_it_is_to_undo() {
    smol::block_on(async {
        let Some(store) = store("late", 5 * PATIENCE).await else { return };
        // A step whose handler was dropped, and whose commit is still on its way.
        let mut late = store.begin("order").await.unwrap();
        let sql = "insert into tokens (message, source, state, undo_key)
            values ('order', 'kafka', 'begun', $1)";
        late.run(sql, &[Value::Text("a")]).await.unwrap();

        let (mark, step) = (mark("a"), Step::Token("kafka".to_owned()));
        let undo = Box::pin(mark.undo(&store, &step));
        let Either::Right((_, undo)) = select(undo, smol::Timer::after(A_WHILE)).await else {
            panic!("it did not wait");
        };
        late.commit().await.unwrap();
        undo.await.unwrap();
        assert_eq!(tokens(&store).await, 0);
    });
}

#[test]
fn a_transaction_that_is_dropped_or_left_holds_up_nobody() {
    smol::block_on(async {
        let Some(store) = store("left", PATIENCE).await else { return };
        let sql = "insert into tokens (message, source, state, undo_key)
            values ('order', 'kafka', 'begun', 'a')";
        let mut dropped = store.begin("order").await.unwrap();
        dropped.run(sql, &[]).await.unwrap();
        drop(dropped);
        // It hears of the one that was dropped, and not of this one: its process stands still.
        let mut left = store.begin("order").await.unwrap();
        left.run(sql, &[]).await.unwrap();
        let again = async || {
            loop {
                if let Ok(taken) = mark("b").take(&store, &Step::Token("kafka".to_owned())).await {
                    return taken;
                }
            }
        };
        assert_eq!(again().await, Taken::Ours);
        assert_eq!(tokens(&store).await, 1);
        left.commit().await.unwrap_err();
        assert_eq!(tokens(&store).await, 1);
    });
}
