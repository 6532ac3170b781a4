//! The connection that is held for receipts: settlements and renewals never wait for the pool.
//!
//! What is said of a receipt goes by its token, and is done once however often it is said. So a statement is
//! one round trip, without a `begin` and a `commit` around it, and is said again where the connection broke
//! before its answer.

use futures::lock::Mutex;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use crate::connection::{Failed, Lent, Statement};
use crate::lease::Lease;
use crate::statements::Statements;

/// None before the first fetch, and after it has failed.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Option<Lent>>);

/// Receipts, as they are asked for.
#[derive(Default)]
pub(crate) struct Receipts {
    pub(crate) ids: Vec<i64>,
    pub(crate) tokens: Vec<i64>,
}

impl Receipts {
    pub(crate) fn push(&mut self, lease: &Lease) {
        self.ids.push(lease.id);
        self.tokens.push(lease.token);
    }
}

/// In order.
type Found = Vec<(i64, i64)>;

/// What became of receipts.
pub(crate) struct Answers {
    done: Found,
    /// Those of the others that are still ours.
    ours: Result<Found, Failed>,
}

/// What became of one.
pub(crate) enum Answer<'a> {
    Done,
    /// Another transaction has the row locked.
    Locked,
    /// It is no longer ours.
    Gone,
    Failed(&'a Failed),
}

impl Answers {
    pub(crate) fn of(&self, lease: &Lease) -> Answer<'_> {
        let receipt = &(lease.id, lease.token);
        match &self.ours {
            _ if self.done.binary_search(receipt).is_ok() => Answer::Done,
            Err(failed) => Answer::Failed(failed),
            Ok(ours) if ours.binary_search(receipt).is_ok() => Answer::Locked,
            Ok(_) => Answer::Gone,
        }
    }

    pub(crate) fn any_done(&self) -> bool {
        !self.done.is_empty()
    }
}

impl Held {
    /// Has one held from now on. Whoever has it locked uses it, or is about to get one.
    pub(crate) async fn hold(&self, pool: &PgPool) -> Result<(), Failed> {
        if let Some(mut held) = self.0.try_lock()
            && held.is_none()
        {
            *held = Some(Lent::from(pool).await?);
        }
        Ok(())
    }

    /// Says a statement about receipts, if there are any; it returns those that it was done to.
    pub(crate) async fn ask<'q>(
        &self,
        pool: &PgPool,
        statements: &Statements,
        receipts: &Receipts,
        statement: impl Fn() -> Statement<'q>,
    ) -> Answers {
        if receipts.ids.is_empty() {
            return Answers { done: Found::new(), ours: Ok(Found::new()) };
        }
        let mut held = self.0.lock().await;
        let answers = asked(&mut held, pool, statements, receipts, statement()).await;
        let broke = answers.ours.as_ref().err().filter(|failed| failed.broke_a_connection());
        let Some(was_certain) = broke.map(Failed::is_certain) else { return answers };
        let again = asked(&mut held, pool, statements, receipts, statement()).await;
        // What is not done now may have been done before: nobody knows.
        let ours = if was_certain { again.ours } else { answers.ours };
        Answers { done: again.done, ours }
    }

    pub(crate) async fn give_back(&self) {
        drop(self.0.lock().await.take());
    }
}

/// Says it once, on a new connection where there is none.
async fn asked(
    held: &mut Option<Lent>,
    pool: &PgPool,
    statements: &Statements,
    receipts: &Receipts,
    statement: Statement<'_>,
) -> Answers {
    let lent = match held.take() {
        Some(lent) => Ok(lent),
        None => Lent::from(pool).await,
    };
    let mut lent = match lent {
        Ok(lent) => lent,
        Err(failed) => return Answers { done: Found::new(), ours: Err(failed) },
    };
    let done = lent.run_bare(statement).await.and_then(found);
    let answers = match done {
        Err(failed) => Answers { done: Found::new(), ours: Err(failed) },
        Ok(done) if done.len() == receipts.ids.len() => Answers { done, ours: Ok(Found::new()) },
        Ok(done) => {
            let ours = sqlx::query(AssertSqlSafe(statements.ours.clone()));
            let ours = lent.run_bare(ours.bind(&receipts.ids).bind(&receipts.tokens)).await;
            // Whatever this says, the others were not done.
            Answers { done, ours: ours.and_then(found).map_err(Failed::not_applied) }
        }
    };
    *held = Some(lent).filter(Lent::is_sound);
    answers
}

fn found(rows: Vec<PgRow>) -> Result<Found, Failed> {
    let mut found = Found::new();
    for row in rows {
        let ids: Vec<i64> = row.try_get(0).map_err(Failed::behind_commit)?;
        let tokens: Vec<i64> = row.try_get(1).map_err(Failed::behind_commit)?;
        found.extend(ids.into_iter().zip(tokens));
    }
    found.sort_unstable();
    Ok(found)
}
