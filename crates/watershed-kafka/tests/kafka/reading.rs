//! What is read, and when reading ends.

use watershed::transport::Link;
use watershed::{BoxError, ErrorCode, StepContext, fan_in};
use watershed_kafka::Consumer;
use watershed_kafka::rdkafka::Message as _;

use crate::support::{PATIENCE, broker, number, unique, until_empty};

#[test]
fn until_empty_reads_all_there_is_and_ends() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let topic = broker.topic("until-empty", 3)?;
    broker.put(&topic, 3, 0..100)?;
    let group = unique("shop");
    let orders = Consumer::new(broker.member(&group), [&topic])?;
    let (report, messages) = until_empty(orders)?;
    let mut seen: Vec<_> = messages.iter().map(number).collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..100));
    assert_eq!((report.fetched(), report.accepted()), (100, 100));
    assert_eq!(broker.committed(&group, &topic, 3)?, [Some(34), Some(33), Some(33)]);
    Ok(())
}

#[test]
fn several_topics_are_read_and_each_message_knows_its_own() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let (orders, returns) = (broker.topic("orders", 2)?, broker.topic("returns", 1)?);
    broker.put(&orders, 2, 0..4)?;
    broker.put(&returns, 1, 4..6)?;
    let consumer = Consumer::new(broker.member(&unique("shop")), [&orders, &returns])?;
    let (report, messages) = until_empty(consumer)?;
    let of = |topic: &str| {
        let of = messages.iter().filter(|message| message.topic() == topic);
        let mut numbers: Vec<_> = of.map(number).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!((of(&orders), of(&returns)), (vec![0, 1, 2, 3], vec![4, 5]));
    assert_eq!(report.accepted(), 6);
    Ok(())
}

#[test]
fn a_record_without_a_value_is_a_message_without_a_body() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let topic = broker.topic("tombstones", 1)?;
    broker.put_records(&topic, [(0, None), (0, Some(b"1".to_vec())), (0, None)])?;
    let orders = Consumer::new(broker.member(&unique("shop")), [topic])?;
    let (report, messages) = until_empty(orders)?;
    let bodies: Vec<_> = messages.iter().map(|message| message.payload()).collect();
    assert_eq!(bodies, [None, Some(&b"1"[..]), None]);
    assert_eq!((report.accepted(), report.failed()), (3, 0));
    Ok(())
}

#[test]
fn a_topic_that_is_not_there_ends_the_drain_and_is_named() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let topic = unique("nowhere");
    let link = Link::new(Consumer::new(broker.member(&unique("shop")), [&topic])?);
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [], async |_, _| Ok::<_, BoxError>(()));
    let drain = drain.incoming(link.assigned()).timeout(PATIENCE);
    let failure = smol::block_on(drain.into_future()).expect_err("the topic is not there");
    assert_eq!(failure.error().code(), ErrorCode::Source);
    assert!(format!("{:#}", failure.error()).contains(&topic), "{:#}", failure.error());
    Ok(())
}

#[test]
fn nothing_can_be_read_ahead_with_no_bytes() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let orders = Consumer::new(broker.member(&unique("shop")), ["orders"])?.ahead_bytes(0);
    let link = Link::new(orders);
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [], async |_, _| Ok::<_, BoxError>(()));
    let drain = drain.incoming(link.assigned()).timeout(PATIENCE);
    let failure = smol::block_on(drain.into_future()).expect_err("0 bytes");
    assert!(format!("{:#}", failure.error()).contains("`ahead_bytes`"), "{:#}", failure.error());
    Ok(())
}
