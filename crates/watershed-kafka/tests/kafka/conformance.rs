//! What every transport has to do.

use std::ops::Range;
use std::time::Duration;

use watershed::testing::conformance;
use watershed::transport::Link;
use watershed::{BoxError, StepContext};
use watershed_kafka::Consumer;
use watershed_kafka::rdkafka::message::OwnedMessage;

use crate::support::{Broker, broker, number, unique};

const PARTITIONS: i32 = 3;

struct Orders {
    broker: Broker,
    topic: String,
    group: String,
}

impl watershed::testing::Broker for Orders {
    type Transport = Consumer;

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

    /// Joining takes 3 s with this broker.
    fn comes_again_after(&self) -> Duration {
        Duration::from_secs(4)
    }
}

#[test]
fn it_does_what_every_transport_has_to_do() -> Result<(), BoxError> {
    let Some(broker) = broker() else { return Ok(()) };
    let topic = broker.topic("orders", PARTITIONS)?;
    let orders = Orders { topic, group: unique("shop"), broker };
    let checks = smol::block_on(conformance(&StepContext::new("conformance"), &orders));
    let checks = checks.map_err(|error| {
        let related = error.related().iter().map(|error| format!("{error:#}\n"));
        format!("{error:#}\n{}", related.collect::<String>())
    })?;
    assert_eq!(checks, 7);
    Ok(())
}
