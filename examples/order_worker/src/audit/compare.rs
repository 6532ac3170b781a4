//! What has to hold.

use std::collections::{HashMap, HashSet};

use super::store::{Kept, Produced};
use super::{Audit, Held, Row};
use crate::order::Order;

/// What became of one order.
enum Fate {
    Done,
    Dead,
    Unsent,
    Wrong(String),
}

/// Compares what was produced with what the store and the sources have.
pub(super) fn compare(kept: &Kept, held: &[(String, Held)]) -> Audit {
    let mut audit = Audit::default();
    let mut ids = HashSet::new();
    for (source, held) in held {
        let mut row = Row { source: source.clone(), ..Row::default() };
        let mut letters = counted(&held.letters);
        let log = held.log.as_ref().map(|log| counted(log));
        for produced in kept.produced.iter().filter(|produced| produced.source == *source) {
            ids.insert(produced.id.as_str());
            row.produced += 1;
            let is_dead = letters.remove(&*produced.body).is_some();
            let valid = valid(produced);
            let is_in_log = log.as_ref().is_none_or(|log| log.contains_key(&*produced.body));
            if produced.is_sent && !is_in_log {
                audit.findings.push(format!(
                    "{source}: the order {} was sent, and is not there",
                    produced.id
                ));
            }
            match fate(kept, produced, valid.as_ref(), is_dead) {
                Fate::Done => row.done += 1,
                Fate::Unsent => row.unsent += 1,
                Fate::Dead => {
                    row.dead += 1;
                    row.dead_and_valid += u64::from(valid.is_some());
                }
                Fate::Wrong(what) => {
                    row.wrong += 1;
                    audit.findings.push(format!("{source}: the order {}: {what}", produced.id));
                }
            }
        }
        for (letter, count) in letters {
            let letter = String::from_utf8_lossy(letter);
            audit.findings.push(format!("{source}: {count} dead letters of no order: {letter}"));
        }
        audit.findings.extend(held.open.iter().map(|open| format!("{source}: {open}")));
        audit.rows.push(row);
    }
    for id in kept.tokens.keys().filter(|id| !ids.contains(id.as_str())) {
        audit.findings.push(format!("there is a token of no order: {id}"));
    }
    for id in kept.events.keys().filter(|id| !ids.contains(id.as_str())) {
        audit.findings.push(format!("there is an event of no order: {id}"));
    }
    for produced in kept.produced.iter().filter(|produced| !ids.contains(produced.id.as_str())) {
        let Produced { id, source, .. } = produced;
        let what = format!("the order {id} is of {source}, which the configuration does not name");
        audit.findings.push(what);
    }
    audit
}

fn counted(bodies: &[Vec<u8>]) -> HashMap<&[u8], u64> {
    bodies.iter().fold(HashMap::new(), |mut counted, body| {
        *counted.entry(body.as_slice()).or_default() += 1;
        counted
    })
}

/// The order, if it is one that can be carried out.
fn valid(produced: &Produced) -> Option<Order> {
    Order::decode(&produced.body).ok().filter(|order| order.validate().is_ok())
}

fn fate(kept: &Kept, produced: &Produced, valid: Option<&Order>, is_dead: bool) -> Fate {
    let token = kept.tokens.get(&produced.id);
    let events = kept.events.get(&produced.id).map_or(&[][..], Vec::as_slice);
    let wrong = |what: String| Fate::Wrong(what);
    match (token, events) {
        (None, []) if is_dead => Fate::Dead,
        (None, []) if !produced.is_sent => Fate::Unsent,
        (None, []) => wrong("nothing became of it: no effect, and no dead letter".to_owned()),
        (None, events) => wrong(format!("half done: {} events without a token", events.len())),
        (Some(token), events) if !token.is_done => {
            wrong(format!("half done: its token is begun, with {} events", events.len()))
        }
        (Some(_), _) if is_dead => wrong("it took effect, and is a dead letter as well".to_owned()),
        (Some(token), _) if token.source != produced.source => {
            wrong(format!("it took effect as an order of {}", token.source))
        }
        (Some(_), [event]) => match valid {
            None => wrong("it took effect, and is not valid".to_owned()),
            Some(order) if order.event() != *event => {
                let event = String::from_utf8_lossy(event);
                wrong(format!("its event is not what the order says: {event}"))
            }
            Some(_) => Fate::Done,
        },
        (Some(_), events) => wrong(format!("it is done, with {} events", events.len())),
    }
}
