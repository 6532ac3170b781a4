//! The audit: reads the database back, on a connection of its own, and compares every message with
//! what it left.
//!
//! It trusts nothing that the run remembers. What a message should have left is worked out from its
//! line; what should have been undone, from the log of effects that was written with them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use rusqlite::Connection;
use watershed::BoxError;

use crate::event::Earthquake;
use crate::input::{Feed, Input, Transport};
use crate::partition_log;
use crate::report::grouped;
use crate::schema;

/// What the run says it did, which the audit compares with what it finds.
#[derive(Debug)]
pub(crate) struct Expectation {
    pub(crate) run: i64,
    /// The drain failed, and its failure was to undo every message of the run.
    pub(crate) everything_undone: bool,
    /// For each feed: messages done before the run.
    pub(crate) before: Vec<u64>,
    /// Messages handled, by the report of the drain.
    pub(crate) handled: u64,
}

/// What the audit found.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) checks: Vec<Check>,
    /// For each feed: messages that are done completely.
    pub(crate) done: Vec<u64>,
}

/// One thing that must hold.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) holds: bool,
    pub(crate) text: String,
}

impl Audit {
    /// Whether every check holds.
    pub(crate) fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }

    fn check(&mut self, holds: bool, text: String) {
        self.checks.push(Check { holds, text });
    }
}

/// The position of a message: its feed and its place in it.
type Message = (u32, u32);

/// Reads everything back.
///
/// # Errors
///
/// When the database or a partition cannot be read. What does not hold is in the result.
pub(crate) fn audit(
    database: &Connection,
    partitions: &Path,
    input: &Input,
    expectation: &Expectation,
) -> Result<Audit, BoxError> {
    let mut audit = Audit::default();
    messages(&mut audit, database, input)?;
    leases(&mut audit, database)?;
    nothing_lost(&mut audit, database, partitions, input)?;
    rollback(&mut audit, database, input, expectation)?;
    counts(&mut audit, input, expectation);
    Ok(audit)
}

/// Every message is done completely, or has left no trace.
fn messages(audit: &mut Audit, database: &Connection, input: &Input) -> rusqlite::Result<()> {
    let mut tokens = traces(database, "tokens", "token")?;
    let mut events = traces(database, "outbox", "token || ' ' || body")?;
    let mut duplicates = traces(database, "duplicates", "token")?;
    let (mut untouched, mut half_done, mut wrong) = (0, 0, 0);
    let (mut emitted, mut repeated) = (0, 0);

    for feed in &input.feeds {
        let settled = schema::settled(database, feed)?;
        let mut done = 0;
        for (position, settled) in (0..).zip(settled) {
            let message = (feed.id, position);
            let token = tokens.remove(&message);
            let event = events.remove(&message);
            let duplicate = duplicates.remove(&message);
            if !settled && [&token, &event, &duplicate].iter().all(|trace| trace.is_none()) {
                untouched += 1;
                continue;
            }
            let (expected_token, expected_event) = traces_of(feed, position);
            let right = match (settled, token, event, duplicate) {
                (true, Some(token), Some(event), None) => {
                    emitted += 1;
                    token == expected_token && event == expected_event
                }
                (true, None, None, Some(token)) => {
                    repeated += 1;
                    token == expected_token
                }
                _ => {
                    half_done += 1;
                    continue;
                }
            };
            done += 1;
            wrong += u64::from(!right);
        }
        audit.done.push(done);
    }

    let all = input.messages();
    audit.check(
        half_done == 0 && all == emitted + repeated + untouched,
        format!(
            "{} messages: {} done completely, {} left no trace, {} half done",
            grouped(all),
            grouped(emitted + repeated),
            grouped(untouched),
            grouped(half_done),
        ),
    );
    let again = match repeated {
        0 => String::new(),
        _ => format!("; {} brought an event again, emitted once", grouped(repeated)),
    };
    let stray = (tokens.len() + events.len() + duplicates.len()) as u64;
    audit.check(
        wrong == 0 && stray == 0,
        format!(
            "{} tokens and {} events in the outbox, {} not as their line says, {} of no line{again}",
            grouped(emitted),
            grouped(emitted),
            grouped(wrong),
            grouped(stray),
        ),
    );
    Ok(())
}

/// What the message should leave, worked out from its line: the token, and the row of the outbox.
fn traces_of(feed: &Feed, position: u32) -> (String, String) {
    let origin = feed.origin(position);
    let event = Earthquake::from_line(feed.payload(position), || origin.clone());
    let traces = event.map(|event| {
        let token = event.token(&origin);
        let row = format!("{token} {}", event.to_json());
        (token, row)
    });
    // A line that is not valid should leave nothing; no token is empty.
    traces.unwrap_or_default()
}

/// No lease is held.
fn leases(audit: &mut Audit, database: &Connection) -> rusqlite::Result<()> {
    let count = |state: &str| -> rusqlite::Result<u64> {
        let sql = "SELECT count(*) FROM leases WHERE state = ?1";
        database.query_row(sql, [state], |row| row.get(0))
    };
    let (held, completed, available) = (count("leased")?, count("completed")?, count("available")?);
    audit.check(
        held == 0,
        format!(
            "{} leases held, {} completed, {} available",
            grouped(held),
            grouped(completed),
            grouped(available),
        ),
    );
    Ok(())
}

/// The queue and the log still hold every line, byte for byte.
fn nothing_lost(
    audit: &mut Audit,
    database: &Connection,
    partitions: &Path,
    input: &Input,
) -> Result<(), BoxError> {
    let (mut found, mut wrong) = (0_u64, 0_u64);
    let mut payload =
        database.prepare("SELECT payload FROM leases WHERE feed = ?1 AND position = ?2")?;
    for feed in &input.feeds {
        match feed.transport {
            Transport::LeaseQueue => {
                for (position, line) in feed.payloads(0) {
                    let mut rows = payload.query([feed.id, position])?;
                    let same = match rows.next()? {
                        Some(row) => row.get_ref(0)?.as_blob()? == line,
                        None => false,
                    };
                    if same { found += 1 } else { wrong += 1 }
                }
            }
            Transport::Log => {
                let partition = fs::File::open(partition_log::partition(partitions, feed))?;
                let mut records = BufReader::new(partition).split(b'\n');
                for (_, line) in feed.payloads(0) {
                    let same = records.next().transpose()?.is_some_and(|record| record == line);
                    if same { found += 1 } else { wrong += 1 }
                }
                wrong += records.map(|record| record.map(|_| 1)).sum::<io::Result<u64>>()?;
            }
            // The sender reads the input itself.
            Transport::Tcp => {}
        }
    }
    audit.check(
        wrong == 0,
        format!(
            "{} lines still in the queue and the log as they were put there, {} not",
            grouped(found),
            grouped(wrong),
        ),
    );
    Ok(())
}

/// An effect of this run, or its compensation: its number, and the message it belongs to.
type Step = (i64, Message);

/// What was undone is exactly what should have been, in the reverse of its order.
fn rollback(
    audit: &mut Audit,
    database: &Connection,
    input: &Input,
    expectation: &Expectation,
) -> rusqlite::Result<()> {
    let steps = |sql: &str| -> rusqlite::Result<Vec<Step>> {
        let mut steps = database.prepare(sql)?;
        let step = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)));
        steps.query_map([expectation.run], step)?.collect()
    };
    let effects = steps(
        "SELECT sequence, feed, position FROM effects WHERE run = ?1 ORDER BY sequence DESC",
    )?;
    let undone = steps(
        "SELECT sequence, feed, position FROM rollbacks JOIN effects USING (sequence)
            WHERE rollbacks.run = ?1 ORDER BY step",
    )?;

    let mut unsettled = HashSet::new();
    for feed in &input.feeds {
        let settled = schema::settled(database, feed)?;
        let messages = (0..).zip(settled).filter(|(_, settled)| !settled);
        unsettled.extend(messages.map(|(position, _)| (feed.id, position)));
    }
    let is_undone =
        |(_, message): &Step| expectation.everything_undone || unsettled.contains(message);
    let expected: Vec<Step> = effects.iter().copied().filter(is_undone).collect();

    let mut sorted = undone.clone();
    sorted.sort_unstable_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
    audit.check(
        sorted == expected,
        format!(
            "{} effects in this run, {} to be undone, {} undone",
            grouped(effects.len() as u64),
            grouped(expected.len() as u64),
            grouped(undone.len() as u64),
        ),
    );
    if undone.is_empty() {
        return Ok(());
    }
    // Messages that were rolled back each alone may have been so at the same time.
    let mut last: HashMap<Option<Message>, i64> = HashMap::new();
    let mut out_of_order = 0;
    for (sequence, message) in &undone {
        let group = (!expectation.everything_undone).then_some(*message);
        let before = last.insert(group, *sequence);
        out_of_order += u64::from(before.is_some_and(|before| before <= *sequence));
    }
    let of_what = match last.keys().next() {
        Some(Some(_)) => format!("each of {} messages", grouped(last.len() as u64)),
        _ => "the whole run".to_owned(),
    };
    audit.check(
        out_of_order == 0,
        format!("undone in the reverse order of {of_what}, {out_of_order} out of order"),
    );
    Ok(())
}

/// The drain's own count agrees with the database.
fn counts(audit: &mut Audit, input: &Input, expectation: &Expectation) {
    let sum = |counts: &[u64]| counts.iter().sum::<u64>();
    let (before, done) = (sum(&expectation.before), sum(&audit.done));
    let handled = expectation.handled;
    let kept = if expectation.everything_undone { 0 } else { handled };
    audit.check(
        done == before + kept && done <= input.messages(),
        format!(
            "{} done before this run, {} handled by it, {} kept, {} done now",
            grouped(before),
            grouped(handled),
            grouped(kept),
            grouped(done),
        ),
    );
}

/// The rows of one of the tables of traces, by the message that left them.
fn traces(
    database: &Connection,
    table: &str,
    what: &str,
) -> rusqlite::Result<HashMap<Message, String>> {
    let mut traces = database.prepare(&format!("SELECT feed, position, {what} FROM {table}"))?;
    let trace = |row: &rusqlite::Row<'_>| Ok(((row.get(0)?, row.get(1)?), row.get(2)?));
    traces.query_map([], trace)?.collect()
}
