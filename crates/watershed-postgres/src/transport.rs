//! The queue as a transport: rows are claimed, settled and renewed.

use std::collections::HashMap;
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

use crate::connection::{Failed, Lent, Statement};
use crate::lease::Lease;
use crate::queue::LeasedRows;
use crate::statements::{ACCEPT, REJECT, RELEASE, Statements};

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
            // Whoever has it locked uses it, or is about to get one.
            if let Some(mut held) = self.held.try_lock()
                && held.is_none()
            {
                *held = Some(Lent::from(&self.pool).await?);
            }
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

    /// Runs a statement about receipts, on the connection that is held for that. Those that are ours,
    /// and whether it was done to them.
    async fn on_held(&self, statement: Statement<'_>) -> Result<Answers, Failed> {
        let mut held = self.held.lock().await;
        let mut lent = match held.take() {
            Some(lent) => lent,
            None => Lent::from(&self.pool).await?,
        };
        let rows = lent.run(statement).await;
        *held = Some(lent).filter(Lent::is_sound);
        drop(held);
        let answer = |row: PgRow| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?));
        rows?.into_iter().map(answer).collect::<Result<_, _>>().map_err(Failed::behind_commit)
    }
}

type Answers = HashMap<(i64, i64), bool>;

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
        let Some((lease, _)) = batch.first() else { return Vec::new() };
        let settle = sqlx::query(AssertSqlSafe(Arc::clone(&lease.statements.settle)));
        let mut asked = Asked::default();
        let known: Vec<_> =
            batch.iter().map(|(lease, verdict)| asked.push(lease, verdict)).collect();
        let any_gone = asked.verdicts.iter().any(|verdict| *verdict != RELEASE);
        let Asked { ids, tokens, verdicts, delays, taken_back, errors } = asked;
        let settle = settle.bind(ids).bind(tokens).bind(verdicts).bind(delays);
        let answers = self.on_held(settle.bind(taken_back).bind(errors)).await;
        if any_gone && answers.is_ok() {
            // Of a key with rows that wait, the next one can be had at once.
            lease.is_gone();
        }
        let outcome = |((lease, _), is_known): ((Lease, Verdict), bool)| match &answers {
            _ if !is_known => Settled::Refused(Error::validation("a verdict of a later version")),
            Err(failed) => failed.settled(),
            Ok(answers) => match answers.get(&(lease.id, lease.token)) {
                Some(true) => Settled::Confirmed,
                Some(false) => Settled::Refused(lease.locked()),
                None => Settled::Lost(lease.lost()),
            },
        };
        batch.into_iter().zip(known).map(outcome).collect()
    }

    async fn renew(&self, batch: Vec<Lease>) -> Vec<Renewed> {
        let Some(lease) = batch.first() else { return Vec::new() };
        let renew = sqlx::query(AssertSqlSafe(Arc::clone(&lease.statements.renew)));
        let (ids, tokens): (Vec<_>, Vec<_>) = batch.iter().map(|it| (it.id, it.token)).unzip();
        let term = self.options.lease;
        let answers = self.on_held(renew.bind(ids).bind(tokens).bind(seconds(term))).await;
        let outcome = |lease: &Lease| match &answers {
            Err(failed) => Renewed::Failed(failed.error()),
            Ok(answers) => match answers.get(&(lease.id, lease.token)) {
                Some(true) => Renewed::For(term),
                Some(false) => Renewed::Failed(lease.locked()),
                None => Renewed::Lost(lease.lost()),
            },
        };
        batch.iter().map(outcome).collect()
    }

    async fn close(&self) -> Result<(), Error> {
        self.hints.close().await;
        drop(self.held.lock().await.take());
        Ok(())
    }
}

/// The values of a settlement, column by column.
#[derive(Default)]
struct Asked {
    ids: Vec<i64>,
    tokens: Vec<i64>,
    verdicts: Vec<i32>,
    delays: Vec<f64>,
    taken_back: Vec<i32>,
    errors: Vec<Option<String>>,
}

impl Asked {
    /// `false` where it is no verdict that is known here: nothing is asked for then.
    fn push(&mut self, lease: &Lease, verdict: &Verdict) -> bool {
        let (verdict, delay, taken_back, error) = match verdict {
            Verdict::Accept => (ACCEPT, 0.0, 0, None),
            Verdict::Release { after, begun, .. } => {
                (RELEASE, seconds(after.unwrap_or_default()), i32::from(!begun), None)
            }
            Verdict::Reject { error, .. } => (REJECT, 0.0, 0, Some(kept(error))),
            _ => return false,
        };
        self.ids.push(lease.id);
        self.tokens.push(lease.token);
        self.verdicts.push(verdict);
        self.delays.push(delay);
        self.taken_back.push(taken_back);
        self.errors.push(error);
        true
    }
}
