//! A queue in a table: a row is leased by writing when the lease expires, and a token that the next
//! lease changes. A receipt is the row and the token: an old one finds no row.

use std::time::Duration;

use rusqlite::OptionalExtension;
use watershed::transport::{
    Able, Facts, Fetched, Received, Renewed, Settled, Transport, Trouble, Verdict, Want,
};
use watershed::{Error, ErrorCode};

use crate::database::{Database, NOW, millis};

/// How long a row is ours.
const LEASE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct LeaseQueue(pub(crate) Database);

/// A lease of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    row: i64,
    token: i64,
}

fn lost() -> Error {
    Error::new(ErrorCode::Source, "the lease is somebody else's by now")
}

impl Transport for LeaseQueue {
    type Message = String;
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

    async fn fetch(&self, want: Want) -> Fetched<String, Lease> {
        let fetched = self.0.run(move |database| {
            let sql = format!(
                "UPDATE queue SET token = token + 1, expires = {NOW} + ?1, deliveries = deliveries + 1
                    WHERE id IN (SELECT id FROM queue WHERE expires <= {NOW} ORDER BY id LIMIT ?2)
                    RETURNING id, token, deliveries, body"
            );
            let mut lease = database.prepare_cached(&sql)?;
            let rows = lease.query_map((millis(LEASE), want.at_most), |row| {
                let receipt = Lease { row: row.get(0)?, token: row.get(1)? };
                let facts = Facts {
                    id: Some(receipt.row.to_string().into()),
                    deliveries: Some(row.get(2)?),
                    ..Facts::default()
                };
                let received = Received::new(row.get(3)?, receipt);
                Ok(received.leased_for(LEASE).with_facts(facts))
            })?;
            rows.collect()
        });
        fetched.await.map(Some).map_err(Trouble::Passes)
    }

    async fn settle(&self, batch: Vec<(Lease, Verdict)>) -> Vec<Settled> {
        let count = batch.len();
        let settled = self.0.run(move |database| {
            let mut settled = Vec::new();
            for (Lease { row, token }, verdict) in batch {
                let found = match verdict {
                    // A dead letter is stored by now: both are forgotten.
                    Verdict::Accept | Verdict::Reject { .. } => {
                        let sql = "DELETE FROM queue WHERE id = ?1 AND token = ?2";
                        database.prepare_cached(sql)?.execute((row, token))?
                    }
                    Verdict::Release { after, begun, .. } => {
                        let after = millis(after.unwrap_or_default());
                        let sql = format!(
                            "UPDATE queue SET token = token + 1, expires = {NOW} + ?3,
                                deliveries = deliveries - ?4 WHERE id = ?1 AND token = ?2"
                        );
                        let not_begun = i32::from(!begun);
                        database.prepare_cached(&sql)?.execute((row, token, after, not_begun))?
                    }
                    _ => 0,
                };
                let outcome = if found == 1 { Settled::Confirmed } else { Settled::Lost(lost()) };
                settled.push(outcome);
            }
            Ok(settled)
        });
        // The transaction was rolled back: nothing of the batch was applied.
        settled.await.unwrap_or_else(|error| vec![Settled::Refused(error); count])
    }

    async fn renew(&self, batch: Vec<Lease>) -> Vec<Renewed> {
        let count = batch.len();
        let renewed = self.0.run(move |database| {
            let sql = format!(
                "UPDATE queue SET expires = {NOW} + ?3
                    WHERE id = ?1 AND token = ?2 AND expires > {NOW} RETURNING id"
            );
            let mut renew = database.prepare_cached(&sql)?;
            let mut renewed = Vec::new();
            for Lease { row, token } in batch {
                let values = (row, token, millis(LEASE));
                let ours = renew.query_row(values, |row| row.get::<_, i64>(0)).optional()?;
                renewed.push(match ours {
                    Some(_) => Renewed::For(LEASE),
                    None => Renewed::Lost(lost()),
                });
            }
            Ok(renewed)
        });
        renewed.await.unwrap_or_else(|error| vec![Renewed::Failed(error); count])
    }
}
