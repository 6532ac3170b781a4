//! The adapter on a real broker. `.ci/kafka cargo test -p watershed-kafka` starts one.

mod support;

use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use watershed::testing::conformance;
use watershed::transport::Link;
use watershed::{BoxError, StepContext, fan_in};
use watershed_kafka::Consumer;
use watershed_kafka::rdkafka::message::OwnedMessage;

use support::{Broker, PATIENCE, broker, number, unique};

const PARTITIONS: i32 = 3;

struct Orders {
    broker: Broker,
    topic: String,
    group: String,
}

impl watershed::testing::Broker for Orders {
    type Transport = Consumer;
    const ASSIGNED: bool = true;

    async fn connect(&self) -> Result<Link<Consumer>, BoxError> {
        let config = self.broker.member(&self.group);
        Ok(Link::new(Consumer::new(config, [self.topic.as_str()])?))
    }

    async fn put(&self, numbers: Range<u32>) -> Result<(), BoxError> {
        self.broker.put(&self.topic, PARTITIONS, numbers)
    }

    fn number(&self, message: &OwnedMessage) -> u32 {
        number(message)
    }

    /// Until a member is there that joins after another has left without a word.
    fn comes_again_after(&self) -> Duration {
        Duration::from_secs(5)
    }
}

#[test]
fn it_does_what_every_transport_has_to_do() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let orders = Orders { topic: broker.topic("orders", PARTITIONS)?, group: unique("shop"), broker };
    let checks = smol::block_on(conformance(&StepContext::new("conformance"), &orders));
    match checks {
        Ok(checks) => assert_eq!(checks, 7),
        Err(error) => {
            let related = error.related().iter().map(|error| format!("{error:#}\n"));
            return Err(format!("{error:#}\n{}", related.collect::<String>()).into());
        }
    }
    Ok(())
}

#[test]
fn until_empty_reads_all_there_is_and_ends() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let topic = broker.topic("until-empty", PARTITIONS)?;
    broker.put(&topic, PARTITIONS, 0..100)?;
    let orders = Consumer::new(broker.member(&unique("shop")), [topic])?.until_empty();
    let caught_up = orders.caught_up();
    let link = Link::new(orders);
    let seen = Mutex::new(Vec::new());
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [], async |message, _| {
        seen.lock().unwrap().push(number(&message));
        Ok::<_, BoxError>(())
    })
    .incoming(link.assigned())
    .shutdown(caught_up)
    .timeout(PATIENCE);
    let report = smol::block_on(drain.into_future())?;
    let mut seen = seen.into_inner()?;
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..100));
    assert_eq!((report.fetched(), report.accepted()), (100, 100));
    Ok(())
}
