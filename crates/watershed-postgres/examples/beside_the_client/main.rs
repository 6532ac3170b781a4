//! Messages a second with each of them deleted behind its handler: a drain with everything on beside
//! loops of one's own over `sqlx`; and how that grows with processes.
//!
//! ```text
//! .ci/postgres cargo run --release -p watershed-postgres --example beside_the_client
//! .ci/postgres cargo run --release -p watershed-postgres --example beside_the_client -- scale
//! ```
//!
//! Arguments: `[ROUNDS [TIMES [ONLY]]]` (7 rounds; times as many messages; only contenders of that name),
//! or `scale [ROUNDS]`.

#[path = "../../../../benches/brokers/contest.rs"]
mod contest;
mod drain;
mod loops;
mod scale;
#[path = "../../../../benches/brokers/stopwatch.rs"]
mod stopwatch;
mod table;
#[path = "../../../../benches/brokers/workers.rs"]
mod workers;

use std::time::Duration;

use contest::{Contender, Promise, Settings, contest};
use drain::Drain;
use table::Table;
use watershed::BoxError;

/// How many rows are leased, handled and deleted at once.
const AT_ONCE: i64 = 100;

fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1).peekable();
    let url = std::env::var("WATERSHED_POSTGRES_URL").map_err(
        |_| "WATERSHED_POSTGRES_URL says where PostgreSQL is; `.ci/postgres` starts one",
    )?;
    match arguments.peek().map(String::as_str) {
        Some("scale") => return scale::measure(&url, arguments.skip(1)),
        Some("work") => return scale::work(&url, arguments.skip(1)),
        _ => {}
    }
    let settings = Settings::of(arguments)?;
    one_by_one(&url, &settings)?;
    in_batches("PostgreSQL, in batches", &url, Duration::ZERO, &settings)?;
    let call = Duration::from_millis(1);
    in_batches("PostgreSQL, calls of 1 ms, 100 at once", &url, call, &settings)
}

/// Fills a table, and times how long it takes to empty it.
fn timed(
    url: &str,
    messages: u32,
    run: impl AsyncFnOnce(&Table) -> Result<Duration, BoxError>,
) -> Result<Duration, BoxError> {
    smol::block_on(async {
        let table = Table::filled(url, messages).await?;
        let took = run(&table).await?;
        table.is_empty().await?;
        table.drop().await?;
        Ok(took)
    })
}

/// The delete of each row is committed before the next one is handled.
fn one_by_one(url: &str, settings: &Settings) -> Result<(), BoxError> {
    let call = Duration::ZERO;
    let drain = Drain { at_once: 1, unsettled: 1, call };
    let piped = Drain { at_once: 1, unsettled: 1_024, call };
    let contenders = vec![
        Contender::new("watershed", Promise::Ours, |messages| {
            timed(url, messages, async |table| drain.run(table).await)
        }),
        Contender::new("a transaction around each handler", Promise::Same, |messages| {
            timed(url, messages, async |table| loops::in_transaction(table, 1, call).await)
        }),
        Contender::new("lease, handle, delete", Promise::Same, |messages| {
            timed(url, messages, async |table| loops::leased(table, 1, call).await)
        }),
        Contender::new(
            "lease 16, `for_each_concurrent(1)`, delete each",
            Promise::Same,
            |messages| {
                timed(url, messages, async |table| loops::concurrent(table, 16, 1, call).await)
            },
        ),
        Contender::new(
            "watershed, as it is by itself",
            Promise::Apart("the next row is handled while the last one is deleted"),
            |messages| timed(url, messages, async |table| piped.run(table).await),
        ),
        Contender::new(
            "deleted when claimed",
            Promise::Apart("what a crash, or an error, leaves half done is gone"),
            |messages| {
                timed(url, messages, async |table| {
                    loops::deleted_when_claimed(table, 1, call).await
                })
            },
        ),
    ];
    contest("PostgreSQL, one by one", 600, settings, contenders)
}

/// A hundred rows are in hand at once, and deleted in one statement.
fn in_batches(title: &str, url: &str, call: Duration, settings: &Settings) -> Result<(), BoxError> {
    let drain = Drain { at_once: usize::try_from(AT_ONCE)?, unsettled: 1_024, call };
    let contenders = vec![
        Contender::new("watershed, 100 at once", Promise::Ours, |messages| {
            timed(url, messages, async |table| drain.run(table).await)
        }),
        Contender::new("a transaction around every 100", Promise::Same, |messages| {
            timed(url, messages, async |table| loops::in_transaction(table, AT_ONCE, call).await)
        }),
        Contender::new("lease 100, handle, delete 100", Promise::Same, |messages| {
            timed(url, messages, async |table| loops::leased(table, AT_ONCE, call).await)
        }),
        Contender::new(
            "lease 100, `for_each_concurrent(100)`, delete each",
            Promise::Same,
            |messages| {
                let at_once = drain.at_once;
                timed(url, messages, async |table| {
                    loops::concurrent(table, AT_ONCE, at_once, call).await
                })
            },
        ),
        Contender::new(
            "100 deleted when claimed",
            Promise::Apart("what a crash, or an error, leaves half done is gone"),
            |messages| {
                timed(url, messages, async |table| {
                    loops::deleted_when_claimed(table, AT_ONCE, call).await
                })
            },
        ),
    ];
    contest(title, 10_000, settings, contenders)
}
