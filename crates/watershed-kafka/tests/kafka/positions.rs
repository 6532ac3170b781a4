//! Where a group starts. What needs right bounds of single partitions is in `answers`.

use std::sync::Mutex;

use watershed::transport::Link;
use watershed::{BoxError, CancellationSource, StepContext, fan_in};
use watershed_kafka::{Consumer, Start};

use crate::support::{PATIENCE, broker, number, unique, until_empty};

#[test]
fn the_start_is_committed_before_the_first_message_is_handed_on() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let (topic, group) = (broker.topic("first", 1)?, unique("shop"));
    broker.put(&topic, 1, 0..3)?;
    let link = Link::new(Consumer::new(broker.member(&group), [&topic])?);
    let (stop, before) = (CancellationSource::new(), Mutex::new(None));
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [], async |_, _| {
        stop.cancel();
        let mut before = before.lock().map_err(|_| "a handler has panicked")?;
        before.get_or_insert(broker.committed(&group, &topic, 1)?);
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(link.assigned()).shutdown(stop.token()).timeout(PATIENCE);
    smol::block_on(drain.into_future())?;
    assert_eq!(before.into_inner()?, Some(vec![Some(0)]));
    Ok(())
}

#[test]
fn a_new_partition_of_a_known_topic_starts_at_its_beginning() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let (topic, group) = (broker.topic("grown", 2)?, unique("shop"));
    broker.put(&topic, 2, 0..10)?;
    // The group has been here when there was one partition.
    broker.commit(&group, &topic, &[(0, 5)])?;
    let consumer = Consumer::new(broker.member(&group), [&topic])?.start_at(Start::Latest);
    let (_, messages) = until_empty(consumer)?;
    let seen: Vec<_> = messages.iter().map(number).collect();
    assert_eq!(seen, [1, 3, 5, 7, 9]);
    Ok(())
}
