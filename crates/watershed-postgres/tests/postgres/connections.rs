//! What the queue needs of a pool, and what happens when connections break.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use watershed::ErrorCode;
use watershed::transport::{Renewed, Transport, Trouble, Verdict, Want};
use watershed_postgres::LeasedRows;

use crate::proxy::{Cut, Proxy};
use crate::server::{
    BACK, Fetched, Server, fetch, letters, on_server, pool_of, put_many, reject, settle, try_fetch,
};

#[test]
fn a_pool_without_a_connection_for_each_is_a_validation_error_and_so_are_options_of_zero() {
    on_server(async |server| {
        let of = |most| server.queue_on(pool_of(most, server.options()));
        of(3).create().await.unwrap();
        try_fetch(&of(3), Want::new(1)).await.unwrap();
        try_fetch(&of(4).listen(), Want::new(1)).await.unwrap();
        let long = "x".repeat(64);
        for (wrong, says) in [
            (of(2), "3 is the least"),
            (of(3).listen(), "4 is the least"),
            (of(5).lease(Duration::ZERO), "`lease`"),
            (of(5).prefetch(0), "`prefetch`"),
            (of(5).batch(0), "`batch`"),
            (of(5).asks_every(Duration::ZERO), "`asks_every`"),
            (of(5).key_column(""), "is empty"),
            (of(5).dead_letters_in("a\0"), "zero byte"),
            (LeasedRows::new(pool_of(5, server.options()), long), "63 bytes"),
        ] {
            match try_fetch(&wrong, Want::new(1)).await {
                Err(Trouble::Lasts(error)) => {
                    assert_eq!(error.code(), ErrorCode::Validation, "{says}");
                    assert!(error.to_string().contains(says), "{error}");
                }
                other => panic!("{says}: {other:?}"),
            }
        }
    });
}

#[test]
fn renewals_and_settlements_go_on_while_handlers_have_the_rest_of_the_pool() {
    on_server(async |server| {
        let pool = pool_of(3, server.options());
        let queue = server.queue_on(pool.clone());
        queue.create().await.unwrap();
        put_many(&queue, &server, 1).await;
        let rows = fetch(&queue, 1).await;
        let _handlers = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        assert_eq!((pool.size(), pool.num_idle()), (3, 0), "the third one is held");
        let renewed = queue.renew(vec![rows[0].lease.clone()]).await;
        assert!(matches!(renewed[..], [Renewed::For(_)]), "{renewed:?}");
        assert_eq!(letters(&settle(&queue, &rows, Verdict::Accept).await), "C");
    });
}

#[test]
fn closing_gives_the_connection_back() {
    on_server(async |server| {
        let pool = pool_of(3, server.options());
        let queue = server.queue_on(pool.clone());
        queue.create().await.unwrap();
        fetch(&queue, 1).await;
        queue.close().await.unwrap();
        let all = futures::future::join_all((0..3).map(|_| pool.acquire())).await;
        assert!(all.iter().all(Result::is_ok));
    });
}

/// What is not in a transaction waits for its client.
const IDLE: &str = "state = 'idle'";

#[test]
fn a_connection_that_was_ended_is_replaced_and_nobody_notices() {
    on_server(async |server| {
        let queue = server.queue();
        queue.create().await.unwrap();
        put_many(&queue, &server, 2).await;
        let rows = fetch(&queue, 2).await;
        server.terminate(IDLE).await;
        let renewed = queue.renew(rows.iter().map(|row| row.lease.clone()).collect()).await;
        assert!(matches!(renewed[..], [Renewed::For(_), Renewed::For(_)]), "{renewed:?}");
        server.terminate(IDLE).await;
        assert_eq!(letters(&settle(&queue, &rows, Verdict::Accept).await), "CC");
    });
}

/// A queue behind a proxy, with three rows.
async fn behind_a_proxy(server: &Server, isolation: &str) -> (Proxy, LeasedRows) {
    let options = server.options().options([("default_transaction_isolation", isolation)]);
    let proxy = Proxy::to(options.get_host().to_owned(), options.get_port()).await;
    let options = options.host("127.0.0.1").port(proxy.port);
    let queue = server.queue_on(pool_of(5, options));
    queue.create().await.unwrap();
    put_many(&queue, server, 3).await;
    (proxy, queue)
}

const USUAL: &str = "read committed";

/// What is said of every statement that was said before: its name.
const KNOWN_STATEMENT: &str = "sqlx_s_";

#[test]
fn what_breaks_before_the_server_hears_it_is_done_on_a_new_connection() {
    // A statement is prepared when it is said first.
    let cuts = [
        (USUAL, "unnest", true),
        (USUAL, "unnest", false),
        (USUAL, KNOWN_STATEMENT, false),
        ("serializable", "begin", true),
        ("serializable", "COMMIT", false),
    ];
    for (isolation, behind, heard) in cuts {
        for verdict in [Verdict::Accept, BACK, reject("no")] {
            on_server(async |server| {
                let (proxy, queue) = behind_a_proxy(&server, isolation).await;
                let rows = fetch(&queue, 3).await;
                if behind == KNOWN_STATEMENT {
                    settle(&queue, &fetch_one_more(&queue, &server).await, verdict.clone()).await;
                }
                proxy.cut(Cut { behind, heard });
                let outcomes = settle(&queue, &rows, verdict.clone()).await;
                assert_eq!(letters(&outcomes), "CCC", "{isolation} {behind} {heard} {verdict:?}");
                let ours = server.texts("select '' from orders where not_before > now()").await;
                assert!(ours.is_empty(), "{isolation} {behind} {heard} {verdict:?}");
                let dead = server.texts("select '' from orders_dead where id < 4").await.len();
                assert_eq!(dead, if matches!(verdict, Verdict::Reject { .. }) { 3 } else { 0 });
                server.wait_for_sessions("state <> 'idle'", 0..=0).await;
            });
        }
    }
}

async fn fetch_one_more(queue: &LeasedRows, server: &Server) -> Vec<Fetched> {
    put_many(queue, server, 1).await;
    fetch(queue, 1).await
}

#[test]
fn what_is_done_and_has_no_answer_is_unknown_and_done_once() {
    for (isolation, behind) in [(USUAL, KNOWN_STATEMENT), ("serializable", "COMMIT")] {
        for verdict in [Verdict::Accept, BACK, reject("no")] {
            on_server(async |server| {
                let (proxy, queue) = behind_a_proxy(&server, isolation).await;
                let rows = fetch(&queue, 3).await;
                settle(&queue, &fetch_one_more(&queue, &server).await, verdict.clone()).await;
                proxy.cut(Cut { behind, heard: true });
                let outcomes = settle(&queue, &rows, verdict.clone()).await;
                assert_eq!(letters(&outcomes), "UUU", "{isolation} {verdict:?}");
                server.wait_for_sessions("state <> 'idle'", 0..=0).await;
                assert_eq!(letters(&settle(&queue, &rows, verdict.clone()).await), "LLL");
                let tokens =
                    "select concat_ws(' ', id, token) from orders where id < 4 order by id";
                let (left, dead): (&[&str], usize) = match verdict {
                    Verdict::Accept => (&[], 0),
                    Verdict::Reject { .. } => (&[], 3),
                    _ => (&["1 2", "2 2", "3 2"], 0),
                };
                assert_eq!(server.texts(tokens).await, left, "{isolation} {verdict:?}");
                let kept = server.texts("select '' from orders_dead where id < 4").await;
                assert_eq!(kept.len(), dead, "{isolation} {verdict:?}");
            });
        }
    }
}

#[test]
fn a_claim_without_an_answer_is_trouble_that_passes() {
    on_server(async |server| {
        let (proxy, queue) = behind_a_proxy(&server, USUAL).await;
        proxy.cut(Cut { behind: "skip locked", heard: true });
        assert!(matches!(try_fetch(&queue, Want::new(3)).await, Err(Trouble::Passes(_))));
        server.wait_for_sessions("state <> 'idle'", 0..=0).await;
        assert_eq!(fetch(&queue, 3).await.len(), 3);
    });
}

#[test]
fn a_standby_is_left_for_the_primary() {
    on_server(async |server| {
        let reads_only = Arc::new(AtomicBool::new(true));
        let is_standby = Arc::clone(&reads_only);
        let pool = PgPoolOptions::new().max_connections(5).after_connect(move |connection, _| {
            let sql = if is_standby.load(Ordering::Relaxed) {
                "set default_transaction_read_only = on"
            } else {
                "set default_transaction_read_only = off"
            };
            Box::pin(async move { sqlx::raw_sql(sql).execute(connection).await.map(drop) })
        });
        let queue = server.queue_on(pool.connect_lazy_with(server.options()));
        queue_tables(&server).await;
        assert!(matches!(try_fetch(&queue, Want::new(1)).await, Err(Trouble::Passes(_))));
        // The one that is held for settlements has not said it yet; the next one leads to the primary.
        server.wait_for_sessions("true", 1..=1).await;
        reads_only.store(false, Ordering::Relaxed);
        put_many(&queue, &server, 1).await;
        let rows = fetch(&queue, 1).await;
        assert_eq!(letters(&settle(&queue, &rows, Verdict::Accept).await), "C");
    });
}

async fn queue_tables(server: &Server) {
    server.execute(&server.queue().schema().unwrap()).await;
}

/// Polls a future so often, and drops it then. The result, if it ended before.
async fn polled<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let (mut future, mut polls) = (pin!(future), 0);
    std::future::poll_fn(|cx| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

#[test]
fn what_is_dropped_at_any_moment_leaves_no_transaction_and_no_lock() {
    on_server(async |server| {
        let pool = pool_of(3, server.options());
        let queue = server.queue_on(pool.clone());
        queue.create().await.unwrap();
        put_many(&queue, &server, 1).await;
        let mut ended = [false, false];
        for times in 0.. {
            if let Some(fetched) = polled(times, queue.fetch(Want::new(1))).await {
                fetched.unwrap();
                ended[0] = true;
            }
            server.wait_for_sessions("state <> 'idle'", 0..=0).await;
            server.texts("update orders set not_before = 'epoch' returning ''").await;
            let rows = fetch(&queue, 1).await;
            if polled(times, settle(&queue, &rows, Verdict::Accept)).await.is_some() {
                ended[1] = true;
            }
            server.wait_for_sessions("state <> 'idle'", 0..=0).await;
            if server.texts("select '' from orders").await.is_empty() {
                put_many(&queue, &server, 1).await;
            }
            if ended == [true, true] {
                break;
            }
        }
        // And none of the pool's places is lost.
        queue.close().await.unwrap();
        let all = futures::future::join_all((0..3).map(|_| pool.acquire())).await;
        assert!(all.iter().all(Result::is_ok));
    });
}
