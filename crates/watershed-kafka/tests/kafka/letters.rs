//! A topic for what was given up.

use std::time::Duration;

use watershed::transport::Link;
use watershed::{BoxError, ErrorCode, Letter, RetryPolicy, Source, StepContext, fan_in};
use watershed_kafka::rdkafka::Message as _;
use watershed_kafka::rdkafka::message::{Header, Headers as _, OwnedHeaders, OwnedMessage};
use watershed_kafka::rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use watershed_kafka::{Consumer, DeadLetters};

use crate::support::{Broker, PATIENCE, broker, unique, until_empty};

/// A record as it was, and what its handler needs of it.
#[derive(Clone)]
struct Order {
    record: OwnedMessage,
    pieces: u32,
}

fn parse(record: OwnedMessage) -> Result<Order, BoxError> {
    let text = record.payload().ok_or("there is no body")?;
    let pieces = std::str::from_utf8(text)?.parse()?;
    Ok(Order { record, pieces })
}

/// Drains orders of which those of no pieces fail.
fn drain(
    broker: &Broker,
    topic: &str,
    group: &str,
    letters: &DeadLetters,
) -> Result<u64, BoxError> {
    let orders = Consumer::new(broker.member(group), [topic])?.until_empty();
    let caught_up = orders.caught_up();
    let link = Link::new(orders);
    let context = StepContext::new("orders");
    let sources = futures::StreamExt::map(link.assigned(), |source| source.decoded(parse));
    let drain = fan_in(&context, [], async |order: Order, _| {
        if order.pieces == 0 { Err("there is nothing to deliver") } else { Ok(()) }
    })
    .incoming(sources)
    .retry(RetryPolicy::fixed(2, Duration::from_millis(1)))
    .dead_letters(async |letter: Letter<Order>| letters.store(&letter, |order| &order.record).await)
    .shutdown(caught_up)
    .timeout(PATIENCE);
    let report = smol::block_on(drain.into_future())?;
    assert_eq!(report.accepted() + report.rejected(), report.fetched());
    Ok(report.rejected())
}

fn header<'a>(record: &'a OwnedMessage, key: &str) -> Option<&'a str> {
    let headers = record.headers()?;
    let value = headers.iter().find(|header| header.key == key)?.value?;
    std::str::from_utf8(value).ok()
}

#[test]
fn a_letter_has_the_record_as_it_was_and_the_position_passes_it() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let (topic, dead) = (broker.topic("orders", 1)?, broker.topic("dead", 1)?);
    let producer: BaseProducer = broker.config().create()?;
    let headers = OwnedHeaders::new().insert(Header { key: "trace", value: Some("abc") });
    let order = BaseRecord::to(&topic).key("tea").payload("0").timestamp(1_700_000_000_000);
    producer.send(order.headers(headers)).map_err(|(error, _)| error)?;
    producer.flush(PATIENCE)?;
    broker.put_records(&topic, [(0, Some(b"3".to_vec())), (0, Some(vec![255])), (0, None)])?;
    let group = unique("shop");
    let letters = smol::block_on(DeadLetters::open(broker.config(), &dead))?;
    assert_eq!(drain(&broker, &topic, &group, &letters)?, 3);
    // Nothing is left, and the letters are there.
    assert_eq!(broker.committed(&group, &topic, 1)?, [Some(4)]);
    let (_, stored) = until_empty(Consumer::new(broker.member(&unique("clerk")), [&dead])?)?;
    let bodies: Vec<_> = stored.iter().map(|letter| letter.payload()).collect();
    assert_eq!(bodies, [Some(&b"0"[..]), Some(&[255][..]), None]);
    let first = &stored[0];
    assert_eq!(first.key(), Some(&b"tea"[..]));
    assert_eq!(first.timestamp().to_millis(), Some(1_700_000_000_000));
    assert_eq!(header(first, "trace"), Some("abc"));
    assert_eq!(header(first, "watershed.topic"), Some(&*topic));
    assert_eq!(header(first, "watershed.offset"), Some("0"));
    assert_eq!(header(first, "watershed.attempts"), Some("2"));
    let why = header(first, "watershed.error").ok_or("there is no reason")?;
    assert!(why.contains("there is nothing to deliver"), "{why}");
    assert_eq!(header(&stored[1], "watershed.offset"), Some("2"));
    Ok(())
}

#[test]
fn a_record_that_fits_only_alone_is_stored_alone() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let (topic, dead) = (broker.topic("large", 1)?, broker.topic("dead", 1)?);
    // A number with many digits, and then one that does not fit at all.
    broker.put_records(&topic, [(0, Some(vec![b'0'; 1_880]))])?;
    let mut config = broker.config();
    config.set("message.max.bytes", "2000");
    let letters = smol::block_on(DeadLetters::open(config.clone(), &dead))?;
    let group = unique("shop");
    assert_eq!(drain(&broker, &topic, &group, &letters)?, 1);
    let (_, stored) = until_empty(Consumer::new(broker.member(&unique("clerk")), [&dead])?)?;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].payload().map(<[u8]>::len), Some(1_880));
    assert!(header(&stored[0], "watershed.topic").is_none());

    broker.put_records(&topic, [(0, Some(vec![b'0'; 2_500]))])?;
    let failed = drain(&broker, &topic, &group, &letters).expect_err("it does not fit");
    let failed = failed.downcast_ref::<watershed::Failure<watershed::FanInReport>>();
    let text = failed.map(|failure| {
        let error = failure.error();
        format!("{error:#} {:?}", error.related())
    });
    let text = text.ok_or("another error")?;
    assert!(text.contains("2500 bytes") && text.contains("limit is 2000"), "{text}");
    // It is not lost.
    assert_eq!(broker.committed(&group, &topic, 1)?, [Some(1)]);
    Ok(())
}

#[test]
fn letters_need_a_topic_that_keeps_them_and_answers() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let compacted = broker.topic_with("compacted", 1, &[("cleanup.policy", "compact,delete")])?;
    let error = smol::block_on(DeadLetters::open(broker.config(), &compacted));
    let error = error.expect_err("it is compacted");
    assert_eq!(error.code(), ErrorCode::Validation, "{error:#}");
    assert!(error.to_string().contains("compacted"), "{error:#}");
    let error = smol::block_on(DeadLetters::open(broker.config(), unique("nowhere")));
    let error = error.expect_err("it is not there");
    assert!(error.to_string().contains("nowhere"), "{error:#}");
    let mut config = broker.config();
    config.set("acks", "1");
    let error = smol::block_on(DeadLetters::open(config, broker.topic("dead", 1)?));
    let error = error.expect_err("nobody confirms");
    assert_eq!(error.code(), ErrorCode::Validation, "{error:#}");
    Ok(())
}
