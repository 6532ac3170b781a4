//! The audit: reads the database back, on a connection of its own, and compares every message with
//! what it left.
//!
//! It trusts nothing that a run remembers. What a message should have left is worked out from its line;
//! what was done and undone, and in which order, from the journal that the database writes by itself.
//! All is read in one transaction, so that other workers may go on meanwhile.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use watershed::BoxError;

use crate::event::Earthquake;
use crate::input::{Feed, Input, Transport};
use crate::report::grouped;
use crate::schema;
use crate::transports::partition_log;

/// What the audit found.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) checks: Vec<Check>,
    pub(crate) feeds: Vec<Found>,
    /// Why messages are among the dead letters, with the run that put them there.
    pub(crate) dead: Vec<(i64, String)>,
}

/// One thing that must hold.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) holds: bool,
    pub(crate) text: String,
}

/// How many messages of a feed are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Took effect, and are settled.
    pub(crate) done: u64,
    /// Are among the dead letters, and settled.
    pub(crate) dead: u64,
    /// Are still in the queue or the log, and have left no trace.
    pub(crate) waiting: u64,
    /// Are still there, and have left something: of a worker that runs or was killed, or of one that
    /// had no answer to its accept. They come again.
    pub(crate) in_work: u64,
    /// How often something was undone.
    pub(crate) undone: u64,
}

impl Audit {
    /// Whether every check holds.
    pub(crate) fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }

    /// All feeds together.
    pub(crate) fn found(&self) -> Found {
        self.feeds.iter().fold(Found::default(), |all, feed| Found {
            done: all.done + feed.done,
            dead: all.dead + feed.dead,
            waiting: all.waiting + feed.waiting,
            in_work: all.in_work + feed.in_work,
            undone: all.undone + feed.undone,
        })
    }

    fn check(&mut self, holds: bool, text: String) {
        self.checks.push(Check { holds, text });
    }
}

/// A message: its feed and its place in it.
type Message = (u32, u32);

/// Reads everything back.
///
/// # Errors
///
/// When the database or a partition cannot be read. What does not hold is in the result.
pub(crate) fn audit(database: &Path, input: &Input) -> Result<Audit, BoxError> {
    let partitions = schema::partitions(database);
    let mut connection = schema::open_read_only(database)?;
    let snapshot = connection.transaction()?;
    let mut audit = Audit::default();
    messages(&mut audit, &snapshot, input)?;
    nothing_lost(&mut audit, &snapshot, &partitions, input)?;
    undoing(&mut audit, &snapshot)?;
    reports(&mut audit, &snapshot, input)?;
    Ok(audit)
}

/// What a message left in one table.
struct Trace {
    text: String,
    run: i64,
}

/// Every message took effect once, or is among the dead letters, or waits and has left no trace.
fn messages(audit: &mut Audit, database: &Connection, input: &Input) -> rusqlite::Result<()> {
    let mut stray = 0;
    let mut traces = |sql| traces(database, sql, &mut stray);
    let mut tokens = traces("SELECT feed, position, token, run FROM tokens")?;
    let mut events = traces("SELECT feed, position, token || ' ' || body, run FROM outbox")?;
    let mut letters = traces("SELECT feed, position, reason, run FROM dead")?;
    let token_of: HashMap<String, Message> =
        tokens.iter().map(|(message, trace)| (trace.text.clone(), *message)).collect();
    let unended: HashSet<i64> = {
        let mut runs = database.prepare("SELECT run FROM runs WHERE NOT ended")?;
        runs.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?
    };
    let (mut emitted, mut again, mut half_done, mut wrong) = (0, 0, 0, 0);

    for feed in &input.feeds {
        let mut found = Found::default();
        for (position, line) in feed.payloads() {
            let message = (feed.id, position);
            let traces = (tokens.remove(&message), events.remove(&message));
            let letter = letters.remove(&message);
            let settled = schema::is_settled(database, feed.id, position)?;
            match (settled, traces, letter) {
                (true, (Some(token), Some(event)), None) => {
                    found.done += 1;
                    emitted += 1;
                    let expected = traces_of(feed, position, line);
                    wrong += u64::from(expected != Some((token.text, event.text)));
                }
                (true, (None, None), Some(letter)) => {
                    found.dead += 1;
                    audit.dead.push((letter.run, letter.text));
                }
                // It brought an event that another message had brought before.
                (true, (None, None), None)
                    if traces_of(feed, position, line).is_some_and(|(token, _)| {
                        token_of.get(&token).is_some_and(|other| *other != message)
                    }) =>
                {
                    found.done += 1;
                    again += 1;
                }
                (false, (None, None), None) => found.waiting += 1,
                (false, (None, None), Some(_)) | (false, (Some(_), Some(_)), None) => {
                    found.in_work += 1;
                }
                (false, (Some(token), None), None) if unended.contains(&token.run) => {
                    found.in_work += 1;
                }
                _ => half_done += 1,
            }
        }
        audit.feeds.push(found);
    }

    let Found { done, dead, waiting, in_work, .. } = audit.found();
    let unfinished = match in_work {
        0 => String::new(),
        _ => format!(", {} in work elsewhere or come again", grouped(in_work)),
    };
    audit.check(
        half_done == 0,
        format!(
            "{} messages: {} took effect once, {} dead letters, {} wait{unfinished}, {} half done",
            grouped(input.messages()),
            grouped(done),
            grouped(dead),
            grouped(waiting),
            grouped(half_done),
        ),
    );
    let again = match again {
        0 => String::new(),
        _ => format!("; {} brought an event again, emitted once", grouped(again)),
    };
    stray += tokens.len() + events.len() + letters.len();
    audit.check(
        wrong == 0 && stray == 0,
        format!(
            "{} tokens with an event in the outbox, {} not as their line says, {} of no line{again}",
            grouped(emitted),
            grouped(wrong),
            grouped(stray as u64),
        ),
    );
    Ok(())
}

/// What a message should leave, worked out from its line: the token, and the row of the outbox.
fn traces_of(feed: &Feed, position: u32, line: &[u8]) -> Option<(String, String)> {
    let origin = feed.origin(position);
    let event = Earthquake::from_line(line, || origin.clone()).ok()?;
    let token = event.token(&origin);
    let row = format!("{token} {}", event.to_json());
    Some((token, row))
}

/// The rows of one of the tables, by the message that left them. `stray` counts those that are a second
/// one of their message.
fn traces(
    database: &Connection,
    sql: &str,
    stray: &mut usize,
) -> rusqlite::Result<HashMap<Message, Trace>> {
    let mut traces = HashMap::new();
    let mut rows = database.prepare(sql)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let trace = Trace { text: row.get(2)?, run: row.get(3)? };
        let first = traces.insert((row.get(0)?, row.get(1)?), trace);
        *stray += usize::from(first.is_some());
    }
    Ok(traces)
}

/// What waits in the queues, the whole log, and the dead letters are the lines byte for byte.
fn nothing_lost(
    audit: &mut Audit,
    database: &Connection,
    partitions: &Path,
    input: &Input,
) -> Result<(), BoxError> {
    let (mut found, mut wrong) = (0_u64, 0_u64);
    for sql in ["SELECT queue, number, body FROM queue", "SELECT feed, position, body FROM dead"] {
        let mut rows = database.prepare(sql)?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let (feed, position) = (row.get::<_, usize>(0)?, row.get(1)?);
            let feed = input.feeds.get(feed).filter(|feed| position < feed.messages());
            let body = row.get_ref(2)?.as_blob()?;
            if feed.is_some_and(|feed| feed.payload(position) == body) {
                found += 1;
            } else {
                wrong += 1;
            }
        }
    }
    for feed in input.feeds_of(Transport::Log) {
        let log = fs::read(partition_log::partition(partitions, feed.id))?;
        let mut records = log.split_inclusive(|byte| *byte == b'\n');
        for (_, line) in feed.payloads() {
            let record = records.next().and_then(|record| record.strip_suffix(b"\n"));
            if record == Some(line) { found += 1 } else { wrong += 1 }
        }
        wrong += records.count() as u64;
    }
    audit.check(
        wrong == 0,
        format!(
            "{} lines in the queues, the log and the dead letters as they were put there, {} not",
            grouped(found),
            grouped(wrong),
        ),
    );
    Ok(())
}

/// What was undone was undone in the reverse of its order, and nothing behind its settlement.
fn undoing(audit: &mut Audit, database: &Connection) -> rusqlite::Result<()> {
    let mut staged: HashMap<String, Vec<String>> = HashMap::new();
    let (mut undone, mut out_of_order) = (0, 0);
    let mut journal = database
        .prepare("SELECT act, feed, undo FROM journal WHERE undo IS NOT NULL ORDER BY step")?;
    let mut acts = journal.query([])?;
    while let Some(act) = acts.next()? {
        let (name, feed): (String, usize) = (act.get(0)?, act.get(1)?);
        let staged = staged.entry(act.get(2)?).or_default();
        let Some(effect) = name.strip_suffix(" undone") else {
            staged.extend(name.strip_suffix(" put").map(str::to_owned));
            continue;
        };
        undone += 1;
        out_of_order += u64::from(staged.pop().is_none_or(|last| last != effect));
        if let Some(found) = audit.feeds.get_mut(feed).filter(|_| effect == "token") {
            found.undone += 1;
        }
    }
    audit.check(
        out_of_order == 0,
        format!(
            "{} effects undone in the reverse order of their message, {} out of order",
            grouped(undone),
            grouped(out_of_order),
        ),
    );

    let too_late: u64 = database.query_row(
        "SELECT count(*) FROM journal undo WHERE act IN ('token undone', 'event undone')
            AND EXISTS (SELECT 1 FROM journal WHERE feed = undo.feed AND step < undo.step
                AND (act = 'settled' AND position = undo.position
                    OR act = 'committed' AND position > undo.position))",
        [],
        |row| row.get(0),
    )?;
    audit.check(
        too_late == 0,
        format!("{} effects undone after their message was settled", grouped(too_late)),
    );
    Ok(())
}

/// What the drains reported agrees with the database.
fn reports(audit: &mut Audit, database: &Connection, input: &Input) -> rusqlite::Result<()> {
    let settled = input.messages().saturating_sub(schema::left(database)?);
    let sum = "SELECT count(*), count(*) FILTER (WHERE ended), coalesce(sum(settled), 0),
        coalesce(sum(unsure), 0) FROM runs";
    let (runs, ended, reported, unsure): (u64, u64, u64, u64) =
        database
            .query_row(sum, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    // Whoever was killed or still runs has not reported what it settled.
    let known = reported <= settled && (ended < runs || settled <= reported + unsure);
    audit.check(
        known,
        format!(
            "{} messages settled; the drains of {} of {} runs reported {}, and were not sure of {}",
            grouped(settled),
            grouped(ended),
            grouped(runs),
            grouped(reported),
            grouped(unsure),
        ),
    );
    Ok(())
}
