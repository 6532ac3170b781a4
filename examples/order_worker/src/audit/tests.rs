//! The audit finds each kind of wrong.

use super::compare::compare;
use super::store::{Kept, Produced, Token};
use super::{Audit, Held};
use crate::order::Order;

/// Orders 0 to 3 of one source: 0 and 1 took effect, 2 is poison and a dead letter, 3 was never sent.
fn clean() -> (Kept, Held) {
    let (mut kept, mut held) = (Kept::default(), Held::default());
    let mut log = Vec::new();
    for number in 0..4 {
        let pieces = if number == 2 { 0 } else { 3 };
        let (feed, earthquake) = ("ak".to_owned(), "ak18247005".to_owned());
        let id = number.to_string();
        let order = Order { id: id.clone(), feed, earthquake, magnitude: Some(2.3), pieces };
        let body = serde_json::to_vec(&order).unwrap();
        if number < 2 {
            kept.tokens.insert(id.clone(), token(true));
            kept.events.insert(id.clone(), vec![order.event()]);
        }
        if number == 2 {
            // A letter may be there twice.
            held.letters.extend([body.clone(), body.clone()]);
        }
        if number < 3 {
            log.push(body.clone());
        }
        let source = "kafka".to_owned();
        kept.produced.push(Produced { id, source, body, is_sent: number < 3 });
    }
    held.log = Some(log);
    (kept, held)
}

fn token(is_done: bool) -> Token {
    Token { source: "kafka".to_owned(), is_done }
}

fn audit(kept: &Kept, held: Held) -> Audit {
    compare(kept, &[("kafka".to_owned(), held)])
}

#[test]
fn what_is_as_it_should_be_is_clean_and_counted() {
    let (kept, held) = clean();
    let audit = audit(&kept, held);
    assert!(audit.is_clean(), "{audit}");
    let row = &audit.rows[0];
    assert_eq!((row.produced, row.done, row.dead, row.unsent, row.wrong), (4, 2, 1, 1, 0));
    assert_eq!(row.dead_and_valid, 0);
}

/// Something that is made wrong, and what the finding says.
type Wrong = (&'static str, fn(&mut Kept, &mut Held));

const WRONG: [Wrong; 17] = [
    ("the order 0: nothing became of it", |kept, _| {
        kept.tokens.remove("0");
        kept.events.remove("0");
    }),
    ("the order 0: half done: its token is begun, with 1 events", |kept, _| {
        kept.tokens.insert("0".to_owned(), token(false));
    }),
    ("the order 0: half done: its token is begun, with 0 events", |kept, _| {
        kept.tokens.insert("0".to_owned(), token(false));
        kept.events.remove("0");
    }),
    ("the order 0: half done: 1 events without a token", |kept, _| {
        kept.tokens.remove("0");
    }),
    ("the order 0: it is done, with 0 events", |kept, _| {
        kept.events.remove("0");
    }),
    ("the order 0: it is done, with 2 events", |kept, _| {
        let events = kept.events.entry("0".to_owned()).or_default();
        events.push(events[0].clone());
    }),
    ("the order 0: its event is not what the order says: {}", |kept, _| {
        kept.events.insert("0".to_owned(), vec![b"{}".to_vec()]);
    }),
    ("the order 0: it took effect, and is a dead letter as well", |kept, held| {
        held.letters.push(kept.produced[0].body.clone());
    }),
    ("the order 0: it took effect as an order of sqs", |kept, _| {
        kept.tokens.insert("0".to_owned(), Token { source: "sqs".to_owned(), is_done: true });
    }),
    ("the order 2: it took effect, and is not valid", |kept, held| {
        kept.tokens.insert("2".to_owned(), token(true));
        kept.events.insert("2".to_owned(), vec![Vec::new()]);
        held.letters.clear();
    }),
    ("the order 2: half done: its token is begun, with 0 events", |kept, _| {
        kept.tokens.insert("2".to_owned(), token(false));
    }),
    ("the order 2: nothing became of it", |_, held| held.letters.clear()),
    ("the order 1 was sent, and is not there", |kept, held| {
        let lost = kept.produced[1].body.clone();
        held.log.as_mut().unwrap().retain(|body| *body != lost);
    }),
    ("1 dead letters of no order: {\"id\":\"9\"}", |_, held| {
        held.letters.push(b"{\"id\":\"9\"}".to_vec());
    }),
    ("there is a token of no order: 9", |kept, _| {
        kept.tokens.insert("9".to_owned(), token(true));
    }),
    ("there is an event of no order: 9", |kept, _| {
        kept.events.insert("9".to_owned(), vec![Vec::new()]);
    }),
    ("kafka: partition 1 ends at 20, and the group is at 12", |_, held| {
        held.open.push("partition 1 ends at 20, and the group is at 12".to_owned());
    }),
];

#[test]
fn each_kind_of_wrong_is_one_finding() {
    for (expected, make_wrong) in WRONG {
        let (mut kept, mut held) = clean();
        make_wrong(&mut kept, &mut held);
        let audit = audit(&kept, held);
        assert_eq!(audit.findings.len(), 1, "{expected}\n{audit}");
        assert!(audit.findings[0].contains(expected), "{expected}\n{audit}");
    }
}

#[test]
fn a_valid_order_among_the_dead_letters_is_told() {
    let (mut kept, mut held) = clean();
    kept.tokens.remove("0");
    kept.events.remove("0");
    held.letters.push(kept.produced[0].body.clone());
    let audit = audit(&kept, held);
    assert!(audit.is_clean() && audit.rows[0].dead_and_valid == 1);
    assert!(audit.to_string().contains("of the dead letters of kafka, 1 are valid orders"));
}

#[test]
fn orders_of_a_source_that_nobody_has_asked_about_are_a_finding() {
    let (mut kept, held) = clean();
    kept.produced[3].source = "sqs".to_owned();
    let audit = audit(&kept, held);
    assert_eq!(audit.findings.len(), 1, "{audit}");
    assert!(audit.findings[0].contains("the order 3 is of sqs"), "{audit}");
}
