//! What a broker answers when it is not well, or has lost something: on the client's own broker, which
//! says so on demand.

use std::cell::Cell;
use std::time::Duration;

use watershed::transport::Link;
use watershed::{BoxError, CancellationSource, FanInReport, StepContext, fan_in};
use watershed_kafka::rdkafka::Message as _;
use watershed_kafka::rdkafka::message::OwnedMessage;
use watershed_kafka::rdkafka::mocking::MockCluster;
use watershed_kafka::rdkafka::producer::DefaultProducerContext;
use watershed_kafka::rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use watershed_kafka::{Consumer, Start};

use crate::support::{Broker, PATIENCE, number, unique, until_empty};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn mock(topics: &[(&str, i32)]) -> Result<(Cluster, Broker), BoxError> {
    let cluster = MockCluster::new(1)?;
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1)?;
    }
    let broker = Broker::at(cluster.bootstrap_servers());
    Ok((cluster, broker))
}

#[test]
fn a_group_that_starts_at_the_end_has_what_comes_later() -> Result<(), BoxError> {
    let (_cluster, broker) = mock(&[("latest", 2)])?;
    let (topic, group) = ("latest", unique("shop"));
    broker.put(topic, 2, 0..10)?;
    let latest = || {
        let consumer = Consumer::new(broker.member(&group), [topic])?;
        Ok::<_, BoxError>(consumer.start_at(Start::Latest))
    };
    let (report, _) = until_empty(latest()?)?;
    assert_eq!(report.fetched(), 0);
    assert_eq!(broker.committed(&group, topic, 2)?, [Some(5), Some(5)]);
    broker.put(topic, 2, 10..14)?;
    let (_, messages) = until_empty(latest()?)?;
    let mut seen: Vec<_> = messages.iter().map(number).collect();
    seen.sort_unstable();
    assert_eq!(seen, [10, 11, 12, 13]);
    Ok(())
}

#[test]
fn a_position_that_the_log_does_not_hold_is_a_fault_that_says_what_it_holds() -> Result<(), BoxError>
{
    let (_cluster, broker) = mock(&[("gone", 1)])?;
    let (topic, group) = ("gone", unique("shop"));
    broker.put(topic, 1, 0..3)?;
    broker.commit(&group, topic, &[(0, 1000)])?;
    let link = Link::new(Consumer::new(broker.member(&group), [topic])?);
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [], async |_, _| Ok::<_, BoxError>(()));
    let drain = drain.incoming(link.assigned()).timeout(PATIENCE);
    let failure = smol::block_on(drain.into_future()).expect_err("the position is gone");
    let text = format!("{:#}", failure.error());
    assert!(text.contains(&format!("partition 0 of `{topic}`")), "{text}");
    assert!(text.contains("position 1000") && text.contains("0 up to 3"), "{text}");
    // It stays where it was.
    assert_eq!(broker.committed(&group, topic, 1)?, [Some(1000)]);
    Ok(())
}

/// The client's own broker holds at most 5 MB of a partition.
#[test]
fn what_the_log_does_not_hold_any_more_is_passed_over_and_counted_where_asked_for()
-> Result<(), BoxError> {
    let (_cluster, broker) = mock(&[("short", 1)])?;
    let group = unique("shop");
    broker.commit(&group, "short", &[(0, 0)])?;
    for number in 0..20 {
        broker.put_records("short", [(0, Some(vec![number; 900_000]))])?;
    }
    let consumer = Consumer::new(broker.member(&group), ["short"])?;
    let consumer = consumer.if_gone(Start::Earliest).until_empty();
    let caught_up = consumer.caught_up();
    let link = Link::new(consumer);
    let first = Cell::new(None);
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [], async |message: OwnedMessage, _| {
        first.set(first.get().or(Some(message.offset())));
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(link.assigned()).shutdown(caught_up).timeout(PATIENCE);
    let report = smol::block_on(drain.into_future())?;
    let passed_over = link.transport().passed_over();
    assert!(passed_over > 0 && report.accepted() > 0, "{report:?}");
    assert_eq!(passed_over + report.accepted(), 20);
    assert_eq!(first.get(), Some(i64::try_from(passed_over)?));
    Ok(())
}

/// Handles one message, whose commit is answered with these errors, and ends.
fn answered(errors: &[RDKafkaRespErr]) -> Result<(FanInReport, Option<i64>), BoxError> {
    let (cluster, broker) = mock(&[("orders", 1)])?;
    let group = unique("shop");
    broker.put("orders", 1, 0..1)?;
    let link = Link::new(Consumer::new(broker.member(&group), ["orders"])?);
    let stop = CancellationSource::new();
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [], async |_, _| {
        // Behind the commit of where the group starts.
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, errors);
        stop.cancel();
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(link.assigned()).shutdown(stop.token()).timeout(PATIENCE);
    let report = smol::block_on(drain.into_future())?;
    cluster.clear_request_errors(RDKafkaApiKey::OffsetCommit);
    Ok((report, broker.committed(&group, "orders", 1)?[0]))
}

#[test]
fn a_commit_that_the_broker_refuses_is_sent_again() -> Result<(), BoxError> {
    let refusals = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
    ];
    let (report, committed) = answered(&refusals)?;
    assert_eq!((report.accepted(), report.fetched(), committed), (1, 1, Some(1)));
    Ok(())
}

#[test]
fn a_commit_of_somebody_who_is_not_in_the_group_any_more_is_lost() -> Result<(), BoxError> {
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
    ] {
        let (report, committed) = answered(&[error; 8])?;
        assert_eq!((report.lost(), report.accepted(), committed), (1, 0, Some(0)), "{error:?}");
    }
    Ok(())
}

/// It has partitions and asks where they start, and the group goes on without it, for it was frozen or is
/// slow. The client joins again when it has an answer, and not before.
#[test]
fn a_member_that_is_put_out_before_it_has_started_joins_again() -> Result<(), BoxError> {
    for strategy in ["cooperative-sticky", "range"] {
        for (error, times) in [
            // The client itself is out of the group then, and its further commits fail.
            (RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, 1),
            // The next one succeeds.
            (RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, 1),
            // The client is answered before one succeeds, and does not ask again: it has them already.
            (RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, 5),
        ] {
            let (cluster, broker) = mock(&[("orders", 2)])?;
            broker.put("orders", 2, 0..4)?;
            cluster.request_errors(RDKafkaApiKey::OffsetCommit, &vec![error; times]);
            let mut member = broker.member(&unique("shop"));
            member.set("partition.assignment.strategy", strategy);
            let (report, messages) = until_empty(Consumer::new(member, ["orders"])?)?;
            assert_eq!(
                (report.accepted(), messages.len()),
                (4, 4),
                "{strategy}, {error:?} {times}"
            );
        }
    }
    Ok(())
}

#[test]
fn brokers_that_cannot_be_reached_end_the_drain_where_that_is_asked_for() -> Result<(), BoxError> {
    let (cluster, broker) = mock(&[("orders", 1)])?;
    broker.put("orders", 1, 0..1)?;
    let consumer = Consumer::new(broker.member(&unique("shop")), ["orders"])?;
    let link = Link::new(consumer).unreachable_for(Duration::from_secs(1));
    let handled = Cell::new(0);
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [], async |_, _| {
        handled.set(handled.get() + 1);
        cluster.broker_down(1)?;
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(link.assigned()).finish_within(Duration::from_secs(1));
    let drain = drain.timeout(PATIENCE);
    let failure = smol::block_on(drain.into_future()).expect_err("nobody is there");
    assert_eq!(handled.get(), 1);
    assert!(format!("{:#}", failure.error()).contains("connection"), "{:#}", failure.error());
    Ok(())
}
