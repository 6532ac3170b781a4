//! What is read, and when reading ends.

use std::sync::Mutex;

use watershed::transport::Link;
use watershed::{BoxError, CancellationSource, ErrorCode, StepContext, fan_in};
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

/// The source would look by itself as well, but only once a second.
#[test]
fn a_message_that_comes_wakes_whoever_waits() -> Result<(), BoxError> {
    const MESSAGES: u32 = 60;
    let Some(broker) = broker() else { return Ok(()) };
    let topic = broker.topic("one-by-one", 1)?;
    broker.put(&topic, 1, 0..1)?;
    let link = Link::new(Consumer::new(broker.member(&unique("shop")), [&topic])?);
    let (stop, context) = (CancellationSource::new(), StepContext::new("orders"));
    let drain = fan_in(&context, [], async |message, _| {
        let next = number(&message) + 1;
        if next == MESSAGES {
            stop.cancel();
            return Ok(());
        }
        broker.put(&topic, 1, next..next + 1)
    });
    let drain = drain.incoming(link.assigned()).shutdown(stop.token()).timeout(PATIENCE);
    let report = smol::block_on(drain.into_future())?;
    assert_eq!(report.accepted(), u64::from(MESSAGES));
    Ok(())
}

#[test]
fn the_next_drain_of_a_link_goes_on_where_one_that_was_dropped_had_come_to() -> Result<(), BoxError>
{
    let Some(broker) = broker() else { return Ok(()) };
    let topic = broker.topic("again", 1)?;
    broker.put(&topic, 1, 0..5)?;
    let link = Link::new(Consumer::new(broker.member(&unique("shop")), [&topic])?);
    let context = StepContext::new("first");
    let second = CancellationSource::new();
    let drain = fan_in(&context, [], async |message, _| {
        if number(&message) == 0 {
            return Ok(());
        }
        second.cancel();
        std::future::pending::<Result<(), BoxError>>().await
    });
    let drain = drain.incoming(link.assigned()).timeout(PATIENCE).into_future();
    let begun = second.token();
    let ended = smol::block_on(smol::future::or(async { Some(drain.await.map(drop)) }, async {
        begun.cancelled().await;
        None
    }));
    assert!(ended.is_none(), "{ended:?}");
    context.scope().clear();
    let (stop, seen) = (CancellationSource::new(), Mutex::new(Vec::new()));
    let context = StepContext::new("second");
    let drain = fan_in(&context, [], async |message, _| {
        let mut seen = seen.lock().map_err(|_| "a handler has panicked")?;
        seen.push(number(&message));
        if seen.last() == Some(&4) {
            stop.cancel();
        }
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(link.assigned()).shutdown(stop.token()).timeout(PATIENCE);
    smol::block_on(drain.into_future())?;
    let seen = seen.into_inner()?;
    // The accept of the first one may have been on its way.
    assert!(seen == [0, 1, 2, 3, 4] || seen == [1, 2, 3, 4], "{seen:?}");
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

#[test]
fn until_idle_waits_for_a_partition() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let topic = broker.topic("until-idle", 1)?;
    broker.put(&topic, 1, 0..3)?;
    let link = Link::new(Consumer::new(broker.member(&unique("shop")), [&topic])?);
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [], async |_, _| Ok::<_, BoxError>(()));
    let drain = drain.incoming(link.assigned()).until_idle().timeout(PATIENCE);
    assert_eq!(smol::block_on(drain.into_future())?.accepted(), 3);
    Ok(())
}

/// Instead of waiting for ever for partitions that nobody assigns.
#[test]
fn a_consumer_that_has_left_says_so() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let topic = broker.topic("left", 1)?;
    let consumer = Consumer::new(broker.member(&unique("shop")), [&topic])?.until_empty();
    let (caught_up, link) = (consumer.caught_up(), Link::new(consumer));
    let context = StepContext::new("orders");
    let drain = || fan_in(&context, [], async |_, _| Ok::<_, BoxError>(()));
    let first = drain().incoming(link.assigned()).shutdown(caught_up).timeout(PATIENCE);
    assert_eq!(smol::block_on(first.into_future())?.accepted(), 0);
    let second = drain().incoming(link.assigned()).timeout(PATIENCE);
    let failure = smol::block_on(second.into_future()).expect_err("it has left its group");
    assert_eq!(failure.error().code(), ErrorCode::Validation);
    assert!(format!("{:#}", failure.error()).contains("make another one"));
    Ok(())
}

#[test]
fn a_source_of_no_partition_is_told() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let link = Link::new(Consumer::new(broker.member(&unique("shop")), ["orders"])?);
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    let failure = smol::block_on(drain.timeout(PATIENCE).into_future()).expect_err("no partition");
    assert_eq!(failure.error().code(), ErrorCode::Validation);
    Ok(())
}
