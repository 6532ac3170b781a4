//! Queues in a table: a row is leased by writing when the lease expires, and a token that the next
//! lease changes. A receipt is the row and the token: an old one finds no row.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use watershed::transport::{
    Able, Facts, Fetched, Received, Renewed, Settled, Transport, Trouble, Verdict, Want,
};
use watershed::{Error, ErrorCode};

use super::{LEASE, NOW, Record, millis};
use crate::database::{Database, DatabaseError};

#[derive(Debug)]
pub(crate) struct LeaseQueue(pub(crate) Database);

/// A lease of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    queue: u32,
    number: u32,
    token: i64,
}

impl Transport for LeaseQueue {
    type Message = Record;
    type Receipt = Lease;

    fn able(&self) -> Able {
        Able::each()
            .fences()
            .renews()
            .delays()
            .counts()
            .batches_of(100)
            .prefetches(20)
            .asks_every(Duration::from_millis(100))
    }

    async fn fetch(&self, want: Want) -> Fetched<Record, Lease> {
        let fetched = self.0.call(move |database| lease(database, &want)).await;
        fetched.map(Some).map_err(|error| Trouble::Passes(error.into()))
    }

    async fn settle(&self, batch: Vec<(Lease, Verdict)>) -> Vec<Settled> {
        let count = batch.len();
        let settled = self.0.call(move |database| {
            batch.into_iter().map(|(lease, verdict)| settle(database, lease, &verdict)).collect()
        });
        // The transaction was rolled back: nothing of the batch was applied.
        settled.await.unwrap_or_else(|error| vec![Settled::Refused(error.into()); count])
    }

    async fn renew(&self, batch: Vec<Lease>) -> Vec<Renewed> {
        let count = batch.len();
        let renewed = self
            .0
            .call(move |database| batch.into_iter().map(|lease| renew(database, lease)).collect());
        renewed.await.unwrap_or_else(|error| vec![Renewed::Failed(error.into()); count])
    }
}

fn lease(
    database: &Connection,
    want: &Want,
) -> Result<Vec<Received<Record, Lease>>, DatabaseError> {
    let mut lease = database.prepare_cached(&format!(
        "UPDATE queue SET token = token + 1, expires = {NOW} + ?2, deliveries = deliveries + 1
            WHERE queue = ?1 AND number IN (SELECT number FROM queue
                WHERE queue = ?1 AND expires <= {NOW} ORDER BY number LIMIT ?3)
            RETURNING number, token, deliveries, body"
    ))?;
    let queue = want.assignment.partition;
    let rows = lease.query_map(params![queue, millis(LEASE), want.at_most], |row| {
        let (number, body) = (row.get(0)?, row.get(3)?);
        let facts = Facts {
            id: Some(format!("{queue}:{number}").into()),
            deliveries: Some(row.get(2)?),
            assignment: want.assignment,
            ..Facts::default()
        };
        let receipt = Lease { queue, number, token: row.get(1)? };
        let received = Received::new(Record { place: queue, number, body }, receipt);
        Ok((number, received.leased_for(LEASE).with_facts(facts)))
    })?;
    let mut leased = rows.collect::<Result<Vec<_>, _>>()?;
    // An update returns its rows in any order.
    leased.sort_unstable_by_key(|(number, _)| *number);
    Ok(leased.into_iter().map(|(_, received)| received).collect())
}

fn settle(
    database: &Connection,
    Lease { queue, number, token }: Lease,
    verdict: &Verdict,
) -> Result<Settled, DatabaseError> {
    let found = match verdict {
        // Behind a reject there is a dead letter: the queue forgets both.
        Verdict::Accept | Verdict::Reject { .. } => {
            let sql = "DELETE FROM queue WHERE queue = ?1 AND number = ?2 AND token = ?3";
            database.prepare_cached(sql)?.execute(params![queue, number, token])?
        }
        Verdict::Release { after, begun, .. } => {
            let sql = format!(
                "UPDATE queue SET token = token + 1, expires = {NOW} + ?4,
                    deliveries = deliveries - ?5
                    WHERE queue = ?1 AND number = ?2 AND token = ?3"
            );
            let after = millis(after.unwrap_or_default());
            let taken_back = i32::from(!begun);
            let values = params![queue, number, token, after, taken_back];
            database.prepare_cached(&sql)?.execute(values)?
        }
        _ => return Ok(Settled::Refused(Error::validation("the queue has no such verdict"))),
    };
    Ok(if found == 1 { Settled::Confirmed } else { Settled::Lost(lost()) })
}

fn renew(
    database: &Connection,
    Lease { queue, number, token }: Lease,
) -> Result<Renewed, DatabaseError> {
    let mut renew = database.prepare_cached(&format!(
        "UPDATE queue SET expires = {NOW} + ?4
            WHERE queue = ?1 AND number = ?2 AND token = ?3 AND expires > {NOW} RETURNING number"
    ))?;
    let values = params![queue, number, token, millis(LEASE)];
    let ours = renew.query_row(values, |row| row.get::<_, u32>(0)).optional()?;
    Ok(if ours.is_some() { Renewed::For(LEASE) } else { Renewed::Lost(lost()) })
}

fn lost() -> Error {
    Error::new(ErrorCode::Source, "the lease is somebody else's by now")
}
