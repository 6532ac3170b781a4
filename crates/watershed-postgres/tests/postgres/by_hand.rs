//! The accept as a part of the handler's own transaction.

use std::sync::Mutex;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;
use watershed::transport::Link;
use watershed::{BoxError, FanInReport, OnFailure, StepContext, fan_in};
use watershed_postgres::{Lease, LeasedRows};

use crate::proxy::{Cut, Proxy};
use crate::server::{Server, fetch, on_server, pool_of, put_many};

#[test]
fn an_accept_in_a_transaction_says_whether_the_row_was_still_ours() {
    on_server(async |server| {
        let queue = server.queue();
        queue.create().await.unwrap();
        put_many(&queue, &server, 1).await;
        let rows = fetch(&queue, 1).await;
        let mut transaction = server.pool.begin().await.unwrap();
        assert!(rows[0].lease.accept_in(&mut transaction).await.unwrap());
        transaction.rollback().await.unwrap();
        let mut transaction = server.pool.begin().await.unwrap();
        assert!(rows[0].lease.accept_in(&mut transaction).await.unwrap());
        transaction.commit().await.unwrap();
        let mut transaction = server.pool.begin().await.unwrap();
        assert!(!rows[0].lease.accept_in(&mut transaction).await.unwrap());
    });
}

/// Drains a queue by a handler that writes its effect and accepts in one transaction. Before it commits,
/// `meddle` happens.
async fn drain(
    server: &Server,
    queue: LeasedRows,
    pool: &PgPool,
    meddle: impl AsyncFn(&Lease),
) -> FanInReport {
    let effects = server.table("effects");
    server.execute(&format!("create table if not exists {effects} (body bytea not null)")).await;
    let errors = Mutex::new(Vec::new());
    let link = Link::new(queue);
    let report =
        fan_in(&StepContext::new("orders"), [link.source()], async |body: Vec<u8>, step| {
            let lease = step.receipt::<Lease>(0).ok_or("the lease has run out")?;
            let mut transaction = pool.begin().await?;
            let insert = AssertSqlSafe(format!("insert into {effects} values ($1)"));
            sqlx::query(insert).bind(body).execute(&mut *transaction).await?;
            meddle(&lease).await;
            let done = lease.commit(transaction, &step).await;
            errors.lock().unwrap().extend(done.clone().err());
            done.map_err(BoxError::from)
        })
        .on_failure(OnFailure::Continue)
        .until_idle()
        .timeout(Duration::from_mins(1))
        .await;
    report.unwrap_or_else(|error| panic!("{error:#}: {:?}", errors.lock().unwrap()))
}

async fn effects(server: &Server) -> usize {
    server.texts(&format!("select '' from {}", server.table("effects"))).await.len()
}

async fn left(server: &Server) -> usize {
    server.texts("select '' from orders").await.len()
}

#[test]
fn the_effect_and_the_accept_are_one_transaction() {
    on_server(async |server| {
        let pool = pool_of(8, server.options());
        let queue = server.queue_on(pool.clone()).asks_every(Duration::from_millis(20));
        queue.create().await.unwrap();
        put_many(&queue, &server, 30).await;
        let report = drain(&server, queue, &pool, async |_| ()).await;
        assert_eq!((report.fetched(), report.accepted(), report.handled()), (30, 30, 30));
        assert_eq!((effects(&server).await, left(&server).await), (30, 0));
    });
}

#[test]
fn a_row_that_is_somebody_elses_by_then_takes_the_effect_with_it() {
    on_server(async |server| {
        let pool = pool_of(8, server.options());
        let queue = server.queue_on(pool.clone()).asks_every(Duration::from_millis(20));
        queue.create().await.unwrap();
        put_many(&queue, &server, 1).await;
        let steal = async |lease: &Lease| {
            let steal = "update orders set token = token + 1, not_before = 'infinity' where id = ";
            server.texts(&format!("{steal}{} returning ''", lease.id())).await;
        };
        let report = drain(&server, queue, &pool, steal).await;
        assert_eq!((report.fetched(), report.lost()), (1, 1));
        assert_eq!((effects(&server).await, left(&server).await), (0, 1));
    });
}

#[test]
fn a_commit_that_is_refused_is_a_failure_and_comes_again() {
    on_server(async |server| {
        let pool = pool_of(8, server.options());
        let queue = server.queue_on(pool.clone()).asks_every(Duration::from_millis(20));
        queue.create().await.unwrap();
        put_many(&queue, &server, 1).await;
        server.execute(&format!("create sequence {}", server.table("tries"))).await;
        // A sequence counts on through every rollback.
        let raise = format!(
            "if nextval('{}') = 1 then raise 'no' using errcode = '40001'; end if;",
            server.table("tries")
        );
        server.trigger("after delete on", "constraint trigger", &raise).await;
        let effects_after = async || (effects(&server).await, left(&server).await);
        // Whether the first drain sees it again is a matter of time.
        let first = drain(&server, queue, &pool, async |_| ()).await;
        if first.accepted() == 0 {
            assert_eq!(effects_after().await, (0, 1));
        }
        let queue = server.queue_on(pool.clone()).asks_every(Duration::from_millis(20));
        let second = drain(&server, queue, &pool, async |_| ()).await;
        assert!(first.released() >= 1);
        assert_eq!(first.accepted() + second.accepted(), 1);
        assert_eq!(effects_after().await, (1, 0));
    });
}

#[test]
fn a_commit_without_an_answer_counts_as_unknown_and_stays() {
    on_server(async |server| {
        let options = server.options();
        let proxy = Proxy::to(options.get_host().to_owned(), options.get_port()).await;
        let pool = pool_of(8, options.host("127.0.0.1").port(proxy.port));
        let queue = server.queue().asks_every(Duration::from_millis(20));
        queue.create().await.unwrap();
        put_many(&queue, &server, 1).await;
        let cut = async |_: &Lease| proxy.cut(Cut { behind: "COMMIT", heard: true });
        let report = drain(&server, queue, &pool, cut).await;
        assert_eq!((report.fetched(), report.unknown()), (1, 1));
        // The server may hear of it after the client has given up.
        server.wait_for_sessions("state <> 'idle'", 0..=0).await;
        assert_eq!((effects(&server).await, left(&server).await), (1, 0));
    });
}
