//! The queue as a transport: rows are claimed, settled and renewed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use futures_timer::Delay;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};
use watershed::transport::{
    Able, Facts, Fetched, Notices, Received, Renewed, Settled, Transport, Trouble, Verdict, Want,
};
use watershed::{CancellationToken, Error};

use crate::connection::{Failed, Lent};
use crate::held::{Answer, Answers, Receipts};
use crate::lease::Lease;
use crate::queue::LeasedRows;
use crate::statements::Statements;

/// The most bytes of an error's text that are kept with a dead letter.
const LONGEST_ERROR: usize = 8 * 1024;

/// A hundred years: the server counts no longer than some thousands of them.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

fn seconds(span: Duration) -> f64 {
    span.min(LONGEST).as_secs_f64()
}

impl LeasedRows {
    /// What was set, if it can be.
    fn checked(&self) -> Result<&Arc<Statements>, Error> {
        let options = &self.options;
        let zero = [
            ("lease", options.lease.is_zero()),
            ("prefetch", options.prefetch == 0),
            ("batch", options.batch == 0),
            ("asks_every", options.asks_every.is_zero()),
        ];
        if let Some((option, _)) = zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(Error::validation(format!("`{option}` is 0")));
        }
        if options.listens && options.names.table.len() > 63 {
            return Err(Error::validation(
                "a channel's name has at most 63 bytes: the table's is longer",
            ));
        }
        let (least, has) =
            (3 + u32::from(options.listens), self.pool.options().get_max_connections());
        if has < least {
            let text = format!(
                "the pool has at most {has} connections: {least} is the least, one that is held for \
                 settlements and renewals, one for a fetch, one for a handler{}",
                if options.listens { ", one that listens" } else { "" }
            );
            return Err(Error::validation(text));
        }
        self.statements()
    }

    /// Leases rows, and holds a connection for their settlement before. `None`: stopped.
    async fn claim(
        &self,
        statements: &Arc<Statements>,
        want: &Want,
    ) -> Result<Option<Vec<Received<Vec<u8>, Lease>>>, Failed> {
        let ready = async {
            self.held.hold(&self.pool).await?;
            Lent::from(&self.pool).await
        };
        let Some(lent) = unless_stopped(&want.stop, ready).await else { return Ok(None) };
        let at_most = i64::try_from(want.at_most).unwrap_or(i64::MAX);
        let claim = sqlx::query(AssertSqlSafe(Arc::clone(&statements.claim)));
        let rows = lent?.run(claim.bind(at_most).bind(seconds(self.options.lease))).await?;
        let rows = rows.iter().map(|row| self.received(statements, row));
        let mut rows = rows.collect::<Result<Vec<_>, _>>().map_err(Failed::behind_commit)?;
        // They come in no order.
        rows.sort_unstable_by_key(|(id, _)| *id);
        Ok(Some(rows.into_iter().map(|(_, received)| received).collect()))
    }

    fn received(
        &self,
        statements: &Arc<Statements>,
        row: &PgRow,
    ) -> Result<(i64, Received<Vec<u8>, Lease>), sqlx::Error> {
        // By place: a name is looked for in each row anew.
        let (id, token) = (row.try_get(0)?, row.try_get(1)?);
        let drain = self.options.names.key.is_some().then(|| self.notices.clone());
        let receipt = Lease { id, token, statements: Arc::clone(statements), drain };
        let key: Option<String> = row.try_get(4)?;
        let facts = Facts {
            id: Some(id.to_string().into()),
            deliveries: u32::try_from(row.try_get::<i32, _>(2)?).ok(),
            group: key.map(Into::into),
            ..Facts::default()
        };
        let received = Received::new(row.try_get(3)?, receipt);
        Ok((id, received.leased_for(self.options.lease).with_facts(facts)))
    }

    /// Deletes rows that were handled.
    async fn accepted(&self, statements: &Statements, receipts: &Receipts) -> Answers {
        let statement = || {
            let accept = sqlx::query(AssertSqlSafe(Arc::clone(&statements.accept_all)));
            accept.bind(&receipts.ids).bind(&receipts.tokens)
        };
        self.held.ask(&self.pool, statements, receipts, statement).await
    }

    /// Gives rows back, or moves them to the dead letters.
    async fn given_up(&self, statements: &Statements, given: &GivenUp) -> Answers {
        let GivenUp { receipts, delays, taken_back, errors } = given;
        let statement = || {
            let give_up = sqlx::query(AssertSqlSafe(Arc::clone(&statements.give_up)));
            let give_up = give_up.bind(&receipts.ids).bind(&receipts.tokens);
            give_up.bind(delays).bind(taken_back).bind(errors)
        };
        self.held.ask(&self.pool, statements, receipts, statement).await
    }
}

/// The result, or `None` where nothing is wanted any more.
async fn unless_stopped<F: Future>(stop: &CancellationToken, future: F) -> Option<F::Output> {
    match select(pin!(stop.cancelled()), pin!(future)).await {
        Either::Left(_) => None,
        Either::Right((output, _)) => Some(output),
    }
}

/// What the server keeps of an error: without the one character that its texts cannot have.
fn kept(error: &Error) -> String {
    let mut text = format!("{error:#}").replace('\0', "\u{fffd}");
    text.truncate(text.floor_char_boundary(LONGEST_ERROR));
    text
}

impl Transport for LeasedRows {
    type Message = Vec<u8>;
    type Receipt = Lease;

    fn able(&self) -> Able {
        let options = &self.options;
        let able = Able::each().fences().renews().delays().counts().rejects();
        // One row of a key is out at a time, so those that are here can be handled at once.
        let able = if options.names.key.is_some() { able.groups() } else { able };
        able.batches_of(options.batch).prefetches(options.prefetch).asks_every(options.asks_every)
    }

    fn notices(&self) -> Notices {
        self.notices.clone()
    }

    async fn fetch(&self, want: Want) -> Fetched<Vec<u8>, Lease> {
        let options = &self.options;
        let statements = self.checked().map_err(Trouble::Lasts)?;
        // What comes later has less of its lease left.
        let longest = want.wait.min(options.asks_every).min(options.lease / 3);
        let mut over = pin!(Delay::new(longest));
        loop {
            let claimed = self.claim(statements, &want).await.map_err(Failed::into_trouble)?;
            let Some(rows) = claimed else { return Ok(Some(Vec::new())) };
            let listens = rows.is_empty() && options.listens && !longest.is_zero();
            let (pool, channel) = (&self.pool, &options.names.table);
            if !listens || !self.hints.wait(pool, channel, over.as_mut(), &want.stop).await {
                return Ok(Some(rows));
            }
        }
    }

    async fn settle(&self, batch: Vec<(Lease, Verdict)>) -> Vec<Settled> {
        let Some((first, _)) = batch.first() else { return Vec::new() };
        let (mut handled, mut given_up) = (Receipts::default(), GivenUp::default());
        let mut is_gone = false;
        for (lease, verdict) in &batch {
            match verdict {
                Verdict::Accept => handled.push(lease),
                Verdict::Release { after, begun } => {
                    given_up.push(lease, after.unwrap_or_default(), *begun, None);
                }
                Verdict::Reject { error } => {
                    is_gone = true;
                    given_up.push(lease, Duration::ZERO, true, Some(kept(error)));
                }
                _ => {}
            }
        }
        let accepted = self.accepted(&first.statements, &handled).await;
        let others = self.given_up(&first.statements, &given_up).await;
        if accepted.any_done() || is_gone && others.any_done() {
            // Of a key with rows that wait, the next one can be had at once.
            first.is_gone();
        }
        let outcome = |(lease, verdict): &(Lease, Verdict)| {
            let answers = match verdict {
                Verdict::Accept => &accepted,
                Verdict::Release { .. } | Verdict::Reject { .. } => &others,
                _ => return Settled::Refused(Error::validation("a verdict of a later version")),
            };
            match answers.of(lease) {
                Answer::Done => Settled::Confirmed,
                Answer::Locked => Settled::Refused(lease.locked()),
                Answer::Gone => Settled::Lost(lease.lost()),
                Answer::Failed(failed) => failed.settled(),
            }
        };
        batch.iter().map(outcome).collect()
    }

    async fn renew(&self, batch: Vec<Lease>) -> Vec<Renewed> {
        let Some(first) = batch.first() else { return Vec::new() };
        let mut receipts = Receipts::default();
        for lease in &batch {
            receipts.push(lease);
        }
        let term = self.options.lease;
        let statement = || {
            let renew = sqlx::query(AssertSqlSafe(Arc::clone(&first.statements.renew)));
            renew.bind(&receipts.ids).bind(&receipts.tokens).bind(seconds(term))
        };
        let answers = self.held.ask(&self.pool, &first.statements, &receipts, statement).await;
        let outcome = |lease: &Lease| match answers.of(lease) {
            Answer::Done => Renewed::For(term),
            Answer::Locked => Renewed::Failed(lease.locked()),
            Answer::Gone => Renewed::Lost(lease.lost()),
            Answer::Failed(failed) => Renewed::Failed(failed.error()),
        };
        batch.iter().map(outcome).collect()
    }

    async fn close(&self) -> Result<(), Error> {
        self.hints.close().await;
        self.held.give_back().await;
        Ok(())
    }
}

/// Rows that are released or rejected, column by column.
#[derive(Default)]
struct GivenUp {
    receipts: Receipts,
    delays: Vec<f64>,
    taken_back: Vec<i32>,
    /// `None`: it is released.
    errors: Vec<Option<String>>,
}

impl GivenUp {
    fn push(&mut self, lease: &Lease, after: Duration, begun: bool, error: Option<String>) {
        self.receipts.push(lease);
        self.delays.push(seconds(after));
        self.taken_back.push(i32::from(!begun));
        self.errors.push(error);
    }
}
