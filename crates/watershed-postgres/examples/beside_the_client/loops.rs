//! What one writes over `sqlx` alone, on the same table.

use std::cell::RefCell;
use std::time::Duration;

use futures::future::try_join_all;
use futures::{StreamExt, stream};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use watershed::BoxError;

use crate::stopwatch::Stopwatch;
use crate::table::Table;

/// The rows stay locked while they are handled: their transaction is open until all of them are.
pub(crate) async fn in_transaction(
    table: &Table,
    at_once: i64,
    call: Duration,
) -> Result<Duration, BoxError> {
    let (watch, name) = (Stopwatch::new(table.messages).calling(call), &table.name);
    let next = format!(
        "select id, body from {name} where not_before <= clock_timestamp()
            order by id limit $1 for update skip locked"
    );
    let delete = format!("delete from {name} where id = any($1)");
    let mut connection = table.pool.acquire().await?;
    while !watch.is_done() {
        let mut transaction = sqlx::Connection::begin(&mut *connection).await?;
        let next = sqlx::query(AssertSqlSafe(next.as_str())).bind(at_once);
        let rows = next.fetch_all(&mut *transaction).await?;
        let mut ids = Vec::with_capacity(rows.len());
        handled(&watch, &rows).await?;
        for row in rows {
            ids.push(row.try_get::<i64, _>("id")?);
        }
        let delete = sqlx::query(AssertSqlSafe(delete.as_str())).bind(ids);
        delete.execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    watch.elapsed()
}

/// Rows are leased in a transaction of their own, and deleted in another one behind their handlers.
pub(crate) async fn leased(
    table: &Table,
    at_once: i64,
    call: Duration,
) -> Result<Duration, BoxError> {
    let watch = Stopwatch::new(table.messages).calling(call);
    let (claim, delete) = (claim(table), delete(table));
    let mut connection = table.pool.acquire().await?;
    while !watch.is_done() {
        let rows = claimed(&mut connection, &claim, at_once).await?;
        handled(&watch, &rows).await?;
        deleted(&mut connection, &delete, &rows).await?;
    }
    watch.elapsed()
}

/// So many are leased at a time; several are handled at once, and each is deleted by itself, on any
/// connection of the pool.
pub(crate) async fn concurrent(
    table: &Table,
    claims: i64,
    at_once: usize,
    call: Duration,
) -> Result<Duration, BoxError> {
    let watch = Stopwatch::new(table.messages).calling(call);
    let (claim, delete) = (claim(table), delete(table));
    let failed = RefCell::new(None);
    let rows = stream::unfold((Vec::new(), 0), async |(mut left, taken)| {
        if taken == table.messages || failed.borrow().is_some() {
            return None;
        }
        if left.is_empty() {
            let claimed = async {
                let mut connection = table.pool.acquire().await?;
                claimed(&mut connection, &claim, claims).await
            };
            match claimed.await {
                Ok(rows) => left = rows,
                Err(error) => return Some((Err(error), (left, taken))),
            }
            left.reverse();
        }
        left.pop().map(|row| (Ok(row), (left, taken + 1)))
    });
    rows.for_each_concurrent(at_once, async |row: Result<PgRow, BoxError>| {
        let handled = async {
            let row = row?;
            watch.work(row.try_get("body")?).await?;
            let mut connection = table.pool.acquire().await?;
            deleted(&mut connection, &delete, &[row]).await
        };
        if let Err(error) = handled.await {
            failed.borrow_mut().get_or_insert(error);
        }
    })
    .await;
    match failed.into_inner() {
        Some(error) => Err(error),
        None => watch.elapsed(),
    }
}

/// Gone before it is handled.
pub(crate) async fn deleted_when_claimed(
    table: &Table,
    at_once: i64,
    call: Duration,
) -> Result<Duration, BoxError> {
    let (watch, name) = (Stopwatch::new(table.messages).calling(call), &table.name);
    let claim = format!(
        "with picked as materialized (
            select id from {name} where not_before <= clock_timestamp()
            order by id limit $1 for update skip locked
        )
        delete from {name} as rows using picked where rows.id = picked.id returning rows.body"
    );
    let mut connection = table.pool.acquire().await?;
    while !watch.is_done() {
        let rows = claimed(&mut connection, &claim, at_once).await?;
        handled(&watch, &rows).await?;
    }
    watch.elapsed()
}

fn claim(table: &Table) -> String {
    format!(
        "with picked as materialized (
            select id from {0} where not_before <= clock_timestamp()
            order by id limit $1 for update skip locked
        )
        update {0} as rows set token = token + 1, deliveries = deliveries + 1,
            not_before = clock_timestamp() + interval '30 s'
        from picked where rows.id = picked.id returning rows.id, rows.token, rows.body",
        table.name
    )
}

fn delete(table: &Table) -> String {
    format!(
        "delete from {} as rows using unnest($1::bigint[], $2::bigint[]) as asked (id, token)
            where rows.id = asked.id and rows.token = asked.token",
        table.name
    )
}

/// All of them at once.
async fn handled(watch: &Stopwatch, rows: &[PgRow]) -> Result<(), BoxError> {
    let all = rows.iter().map(async |row| watch.work(row.try_get("body")?).await);
    try_join_all(all).await.map(drop)
}

async fn claimed(
    connection: &mut PgConnection,
    claim: &str,
    at_most: i64,
) -> Result<Vec<PgRow>, BoxError> {
    let claim = sqlx::query(AssertSqlSafe(claim)).bind(at_most);
    Ok(claim.fetch_all(connection).await?)
}

/// Behind this the server has said that they are gone.
async fn deleted(
    connection: &mut PgConnection,
    delete: &str,
    rows: &[PgRow],
) -> Result<(), BoxError> {
    let (mut ids, mut tokens) = (Vec::new(), Vec::new());
    for row in rows {
        ids.push(row.try_get::<i64, _>("id")?);
        tokens.push(row.try_get::<i64, _>("token")?);
    }
    let delete = sqlx::query(AssertSqlSafe(delete)).bind(ids).bind(tokens);
    let gone = delete.execute(connection).await?.rows_affected();
    if gone == rows.len() as u64 { Ok(()) } else { Err("a row was no longer ours".into()) }
}
