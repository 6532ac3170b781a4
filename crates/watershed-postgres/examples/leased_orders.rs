//! Orders in a table: reserved, shipped once, undone where that fails, and put aside where it never works.
//! `.ci/postgres cargo run -p watershed-postgres --example leased_orders` runs it beside a server of its own.

use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use watershed::transport::Link;
use watershed::{BoxError, Letter, RetryPolicy, Source, StepContext, fan_in};
use watershed_postgres::{Lease, LeasedRows, NewRow};

fn pieces(body: &[u8]) -> Result<i32, BoxError> {
    Ok(std::str::from_utf8(body)?.parse()?)
}

fn main() -> Result<(), BoxError> {
    let url = std::env::var("WATERSHED_POSTGRES_URL").unwrap_or("postgres:///shop".to_owned());
    smol::block_on(async {
        let pool = PgPoolOptions::new().max_connections(10).connect(&url).await?;
        let shipped = "create table if not exists shipped (pieces integer not null)";
        sqlx::query(shipped).execute(&pool).await?;
        let queue = LeasedRows::new(pool.clone(), "orders")
            .lease(Duration::from_secs(30))
            .key_column("customer"); // those of one customer one after another
        queue.create().await?; // `orders` and `orders_dead`; or put `queue.schema()?` into a migration

        // An order is in the queue exactly when what else this transaction does is done.
        let mut transaction = pool.begin().await?;
        let ann = ["3", "many"].map(|pieces| NewRow::new(pieces).key("ann"));
        let bob = ["1", "0", "4"].map(|pieces| NewRow::new(pieces).key("bob"));
        queue.enqueue(&mut transaction, ann.into_iter().chain(bob)).await?;
        transaction.commit().await?;

        let link = Link::new(queue).max_deliveries(5);
        let orders = link.source().named("orders").decoded(|body| pieces(&body));
        let context = StepContext::new("shop");
        let report = fan_in(&context, [orders], async |pieces: i32, step: StepContext| {
            // Outside of the database: undone by its compensation, if the handler fails behind it.
            println!("{pieces} pieces reserved, attempt {}", step.attempt());
            step.register_compensation_with(pieces, async |pieces| {
                println!("{pieces} pieces back");
            });
            if pieces == 0 {
                return Err("there is nothing to ship".into());
            }
            // In the database: one transaction with the end of the message, both or none of both.
            let lease = step.receipt::<Lease>(0).ok_or("the lease has run out")?;
            let mut transaction = pool.begin().await?;
            let ship = sqlx::query("insert into shipped values ($1)").bind(pieces);
            ship.execute(&mut *transaction).await?;
            lease.commit(transaction, &step).await?;
            Ok::<_, BoxError>(())
        })
        .concurrency(8) // customers: the next order of each waits for the one before
        .retry(RetryPolicy::exponential(2, Duration::from_millis(200)))
        .dead_letters(async |letter: Letter<i32>| {
            // For your log: the row itself goes to `orders_dead`, with this error.
            println!("given up: {:#}", letter.error());
        })
        .until_idle() // a service says `.shutdown(stop.token())`, and something calls `stop.cancel()`
        .await?;
        println!("{} shipped, {} put aside", report.accepted(), report.rejected());
        Ok(())
    })
}
