//! Orders that are shipped once: what a handler writes and the end of its message are one transaction.
//!
//! Two workers share a queue under smol. Orders of one customer are shipped in their order; one that
//! cannot be read is put aside. At the end the tables are looked at, and dropped.
//!
//! ```text
//! .ci/postgres cargo run -p watershed-postgres --example leased_orders
//! ```

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions};
use watershed::transport::Link;
use watershed::{BoxError, OnFailure, Source, StepContext, fan_in};
use watershed_postgres::{Lease, LeasedRows, NewRow};

const TABLES: [&str; 3] = ["example_orders", "example_orders_dead", "example_shipped"];

fn main() -> Result<(), BoxError> {
    let url = std::env::var("WATERSHED_POSTGRES_URL").map_err(
        |_| "WATERSHED_POSTGRES_URL says where PostgreSQL is; `.ci/postgres` starts one",
    )?;
    smol::block_on(run(&url))
}

fn queue(pool: &PgPool) -> LeasedRows {
    let queue = LeasedRows::new(pool.clone(), TABLES[0]).key_column("customer");
    queue.lease(Duration::from_secs(30)).prefetch(2).asks_every(Duration::from_millis(100))
}

async fn run(url: &str) -> Result<(), BoxError> {
    let pool = PgPoolOptions::new().max_connections(12).connect(url).await?;
    drop_tables(&pool).await?;
    let orders = queue(&pool);
    orders.create().await?;
    let shipped =
        "create table example_shipped (number integer primary key, customer text not null,
        place bigint generated always as identity)";
    sqlx::query(shipped).execute(&pool).await?;

    // Whoever takes an order enqueues it in the transaction that takes it.
    let mut transaction = pool.begin().await?;
    for number in 0..60 {
        let (body, customer) = (format!("{number}"), format!("customer-{}", number % 7));
        orders.enqueue(&mut transaction, [NewRow::new(&body).key(&customer)]).await?;
    }
    orders.enqueue(&mut transaction, [NewRow::new("a dozen").key("customer-8")]).await?;
    transaction.commit().await?;

    let (one, two) = futures::join!(work(&pool), work(&pool));
    println!("one worker: {}", one?);
    println!("the other:  {}", two?);

    let shipped: i64 =
        sqlx::query_scalar("select count(*) from example_shipped").fetch_one(&pool).await?;
    let in_order: bool = sqlx::query_scalar(
        "select bool_and(number > before) from (select number,
            lag(number, 1, -1) over (partition by customer order by place) as before
            from example_shipped) as shipped",
    )
    .fetch_one(&pool)
    .await?;
    let dead: Vec<(String, String)> =
        sqlx::query_as("select convert_from(body, 'UTF8'), error from example_orders_dead")
            .fetch_all(&pool)
            .await?;
    println!("{shipped} orders shipped, in the order of each customer: {in_order}");
    for (body, error) in &dead {
        println!("put aside: {body:?}, because of {error:?}");
    }
    drop_tables(&pool).await?;
    if (shipped, in_order, dead.len()) == (60, true, 1) {
        Ok(())
    } else {
        Err("60 orders were to be shipped in their order, and one was to be put aside".into())
    }
}

/// Ships orders until there are none.
async fn work(pool: &PgPool) -> Result<String, BoxError> {
    let link = Link::new(queue(pool)).max_deliveries(5);
    let orders = link
        .source()
        .named("orders")
        .decoded(|body: Vec<u8>| Ok::<_, BoxError>(std::str::from_utf8(&body)?.parse::<i32>()?));
    let report = fan_in(&StepContext::new("shipping"), [orders], async |number: i32, step| {
        let lease = step.receipt::<Lease>(0).ok_or("the lease has run out")?;
        let mut transaction = pool.begin().await?;
        sqlx::query("insert into example_shipped (number, customer) values ($1, $2)")
            .bind(number)
            .bind(format!("customer-{}", number % 7))
            .execute(&mut *transaction)
            .await?;
        lease.commit(transaction, &step).await?;
        Ok::<_, BoxError>(())
    })
    .concurrency(3) // customers: the next order of each waits for the one before
    .on_failure(OnFailure::Continue)
    .until_idle()
    .await?;
    Ok(format!("{} shipped, {} rejected", report.accepted(), report.rejected()))
}

async fn drop_tables(pool: &PgPool) -> Result<(), sqlx::Error> {
    for table in TABLES {
        let drop = AssertSqlSafe(format!("drop table if exists {table}"));
        sqlx::query(drop).execute(pool).await?;
    }
    Ok(())
}
