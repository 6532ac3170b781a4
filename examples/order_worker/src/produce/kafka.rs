//! Topics of Kafka: made where they are missing, and written to.

use std::sync::{Arc, Mutex, PoisonError};

use watershed::BoxError;
use watershed_kafka::rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use watershed_kafka::rdkafka::client::{ClientContext, DefaultClientContext};
use watershed_kafka::rdkafka::error::RDKafkaErrorCode;
use watershed_kafka::rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext,
};

use super::{PATIENCE, Produced};
use crate::config::KafkaSource;

/// A topic, and whoever writes to it.
pub(super) struct Topic {
    name: String,
    producer: Arc<BaseProducer<Refused>>,
}

/// Notes what the broker did not take.
#[derive(Default)]
struct Refused(Mutex<Option<String>>);

impl ClientContext for Refused {}

impl ProducerContext for Refused {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            refused.get_or_insert_with(|| error.to_string());
        }
    }
}

impl Topic {
    /// Makes the topic, and that for its dead letters, where they are missing.
    ///
    /// # Errors
    ///
    /// When the broker does not make them.
    pub(super) async fn open(source: &KafkaSource) -> Result<Self, BoxError> {
        let admin: AdminClient<DefaultClientContext> = source.client().create()?;
        let topic = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topics = [topic(&source.topic, source.partitions), topic(&source.dead_topic, 1)];
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let made = admin.create_topics(&topics, &options).await.map_err(|error| {
            let brokers = &source.brokers;
            format!("no broker answers at {brokers}: start one, or mend `brokers`: {error}")
        })?;
        for made in made {
            match made {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(format!("making the topic {topic}: {code}").into());
                }
            }
        }
        let mut config = source.client();
        config.set("enable.idempotence", "true");
        config.set("delivery.timeout.ms", PATIENCE.as_millis().to_string());
        let producer = Arc::new(config.create_with_context(Refused::default())?);
        Ok(Self { name: source.topic.clone(), producer })
    }

    /// Sends the orders, and waits until the broker has all of them.
    ///
    /// # Errors
    ///
    /// When it does not take one.
    pub(super) async fn send(&self, orders: &[Produced]) -> Result<(), BoxError> {
        for order in orders {
            let record = BaseRecord::to(&self.name).key(&order.id).payload(&order.body);
            self.producer.send(record).map_err(|(error, _)| error)?;
        }
        let producer = Arc::clone(&self.producer);
        smol::unblock(move || producer.flush(PATIENCE)).await?;
        let refused = &self.producer.context().0;
        match refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}
