//! One worker: what is done for an order, and the drain over both transports.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use watershed::channels::AnySource;
use watershed::transport::{Link, Ticket, Transport, TransportSource};
use watershed::{
    BoxError, CancellationSource, Error, Letter, RetryPolicy, Source, StepContext, fan_in, labelled,
};

use crate::database::Database;
use crate::lease_queue::LeaseQueue;
use crate::partition_log::PartitionLog;

#[derive(Clone, Debug)]
struct Order {
    token: String,
    pieces: u32,
}

fn parse(line: &str) -> Result<Order, BoxError> {
    let (token, pieces) = line.split_once(' ').ok_or("an order is TOKEN PIECES")?;
    Ok(Order { token: token.to_owned(), pieces: pieces.parse()? })
}

/// Handles one order: takes the pieces from the stock, and tells of it. Each of both is written under
/// the order's token, so that a second delivery does what the first one left undone; and under the
/// delivery's own key, so that an undo takes back what this delivery did and nothing else.
async fn handle(database: &Database, order: Order, step: StepContext) -> Result<(), BoxError> {
    if order.pieces == 0 {
        return Err("there is nothing to deliver".into());
    }
    let key = step.undo_key().ok_or("the message has no transport")?;
    for (table, content) in
        [("stock", order.pieces.to_string()), ("outbox", format!("{} shipped", order.token))]
    {
        let undo = (database.clone(), order.token.clone(), key.clone());
        step.register_compensation(labelled(table, move || {
            let (database, token, key) = undo.clone();
            async move {
                let sql = format!("DELETE FROM {table} WHERE token = ?1 AND undo = ?2");
                database.run(move |database| database.execute(&sql, (token, key))).await.map(drop)
            }
        }));
        let (token, key) = (order.token.clone(), key.clone());
        let sql = format!("INSERT INTO {table} VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING");
        database.run(move |database| database.execute(&sql, (token, key, content))).await?;
        if fastrand::u32(0..20) == 0 {
            return Err("the machine is moody".into());
        }
    }
    Ok(())
}

type Orders = AnySource<'static, Order, Ticket>;

fn orders<T: Transport<Message = String>>(source: TransportSource<T>, name: &str) -> Orders {
    source.named(name).decoded(|line: String| parse(&line)).erased()
}

/// Handles orders until there are none.
pub(crate) fn work(folder: &Path) -> Result<String, BoxError> {
    static WORKERS: AtomicU64 = AtomicU64::new(0);
    let number = WORKERS.fetch_add(1, Ordering::Relaxed);
    let owner = format!("{}-{number}", std::process::id());
    let database = Database::open(folder)?;
    let queue = Link::new(LeaseQueue(database.clone())).max_deliveries(1_000);
    let log = Link::new(PartitionLog::open(folder, owner)?);

    let done = CancellationSource::new();
    let (finished, watched) = (done.token(), database.clone());
    let watcher = thread::spawn(move || {
        while !done.is_cancelled() {
            if is_empty(&watched).unwrap_or(false) {
                done.cancel();
            }
            thread::sleep(Duration::from_millis(50));
        }
    });

    let context = StepContext::new("orders");
    let partitions = log.assigned().map(|source| orders(source, "log"));
    let drain = fan_in(&context, [orders(queue.source(), "queue")], async |order, step| {
        handle(&database, order, step).await
    })
    .incoming(partitions)
    .ordered_by(|order: &Order| order.token.clone())
    .concurrency(8)
    .retry(RetryPolicy::exponential(30, Duration::from_millis(1)).cap(Duration::from_millis(20)))
    .dead_letters(async |letter: Letter<Order>| {
        let token = letter.message().map_or("?", |order| &order.token).to_owned();
        let reason = format!("{:#}", letter.error());
        let sql = "INSERT INTO dead VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        database.run(move |database| database.execute(sql, (token, reason))).await.map(drop)
    })
    .shutdown(finished)
    .finish_within(Duration::from_secs(20));
    let report = futures::executor::block_on(drain.into_future())?;
    watcher.join().map_err(|_| "the watcher panicked")?;
    let sum = report.accepted()
        + report.released()
        + report.rejected()
        + report.lost()
        + report.unknown()
        + report.abandoned();
    if sum != report.fetched() {
        return Err(format!("{} of {} receipts have an end", sum, report.fetched()).into());
    }
    Ok(format!(
        "{} fetched: {} accepted, {} released, {} rejected, {} lost, {} unknown, {} abandoned",
        report.fetched(),
        report.accepted(),
        report.released(),
        report.rejected(),
        report.lost(),
        report.unknown(),
        report.abandoned(),
    ))
}

/// Whether nothing is left in the queue and in the log.
fn is_empty(database: &Database) -> Result<bool, Error> {
    database.run_blocking(|database| {
        let sql = "SELECT (SELECT count(*) FROM queue)
            + (SELECT sum(records - committed) FROM partitions) = 0";
        database.query_row(sql, (), |row| row.get(0))
    })
}
