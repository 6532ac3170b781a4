//! How many messages a second: this crate, and loops written by hand with the same guarantee.
//!
//! The guarantee: a message is leased, handled, and deleted behind that; whoever dies in between has
//! not lost it. The handler does nothing, so all that is measured is the queue.
//!
//! ```text
//! .ci/postgres cargo run --release -p watershed-postgres --example throughput
//! ```

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;
use sqlx::Row;
use sqlx::postgres::{PgPool, PgPoolOptions};
use watershed::transport::Link;
use watershed::{BoxError, StepContext, fan_in};
use watershed_postgres::{LeasedRows, NewRow};

const TABLE: &str = "throughput_example";

fn main() -> Result<(), BoxError> {
    let url = std::env::var("WATERSHED_POSTGRES_URL").map_err(
        |_| "WATERSHED_POSTGRES_URL says where PostgreSQL is; `.ci/postgres` starts one",
    )?;
    let messages = std::env::args().nth(1).map_or(Ok(2_000), |count| count.parse())?;
    smol::block_on(run(&url, messages))
}

async fn run(url: &str, messages: usize) -> Result<(), BoxError> {
    let pool = PgPoolOptions::new().max_connections(8).connect(url).await?;
    println!("| | messages/s |\n| --- | --- |");
    for at_once in [1, 100] {
        let how = if at_once == 1 { "one by one" } else { "100 at once" };
        let time = timed(&pool, messages, async || by_hand(&pool, at_once).await).await?;
        print_row(&format!("by hand, {how}"), messages, time);
        let time = timed(&pool, messages, async || drained(&pool, usize::try_from(at_once)?).await)
            .await?;
        print_row(&format!("a drain, {how}"), messages, time);
    }
    drop_tables(&pool).await
}

fn print_row(what: &str, messages: usize, time: Duration) {
    let messages = u32::try_from(messages).unwrap_or(u32::MAX);
    println!("| {what} | {:.0} |", f64::from(messages) / time.as_secs_f64());
}

/// Fills the queue, and measures how long it takes to empty it.
async fn timed(
    pool: &PgPool,
    messages: usize,
    work: impl AsyncFnOnce() -> Result<usize, BoxError>,
) -> Result<Duration, BoxError> {
    drop_tables(pool).await?;
    let queue = LeasedRows::new(pool.clone(), TABLE);
    queue.create().await?;
    let mut transaction = pool.begin().await?;
    queue.enqueue(&mut transaction, vec![NewRow::new("{}"); messages]).await?;
    transaction.commit().await?;
    let began = Instant::now();
    let done = work().await?;
    let time = began.elapsed();
    if done == messages { Ok(time) } else { Err(format!("{done} of {messages}").into()) }
}

/// A loop as one writes it: lease, handle, delete, and again.
async fn by_hand(pool: &PgPool, at_once: i64) -> Result<usize, BoxError> {
    let claim = format!(
        "with picked as materialized (
            select id from {TABLE} where not_before <= clock_timestamp() order by id limit $1
            for update skip locked
        )
        update {TABLE} as it set token = token + 1, deliveries = deliveries + 1,
            not_before = clock_timestamp() + interval '30 s'
        from picked where it.id = picked.id returning it.id, it.token, it.body"
    );
    let accept = format!(
        "delete from {TABLE} as it using unnest($1::bigint[], $2::bigint[]) as asked (id, token)
            where it.id = asked.id and it.token = asked.token"
    );
    let (mut connection, mut done) = (pool.acquire().await?, 0);
    loop {
        let claim = sqlx::query(AssertSqlSafe(claim.as_str())).bind(at_once);
        let rows = claim.fetch_all(&mut *connection).await?;
        if rows.is_empty() {
            return Ok(done);
        }
        done += rows.len();
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let tokens: Vec<i64> = rows.iter().map(|row| row.get(1)).collect();
        let accept = sqlx::query(AssertSqlSafe(accept.as_str())).bind(ids).bind(tokens);
        accept.execute(&mut *connection).await?;
    }
}

async fn drained(pool: &PgPool, at_once: usize) -> Result<usize, BoxError> {
    let queue = LeasedRows::new(pool.clone(), TABLE).prefetch(at_once).batch(at_once);
    // The end is seen by a fetch that brings nothing.
    let link = Link::new(queue.asks_every(Duration::from_millis(1)));
    let context = StepContext::new("throughput");
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    let report = drain.unordered().concurrency(at_once).until_idle().await?;
    Ok(usize::try_from(report.accepted())?)
}

async fn drop_tables(pool: &PgPool) -> Result<(), BoxError> {
    for table in [TABLE.to_owned(), format!("{TABLE}_dead")] {
        let drop = AssertSqlSafe(format!("drop table if exists {table}"));
        sqlx::query(drop).execute(pool).await?;
    }
    Ok(())
}
