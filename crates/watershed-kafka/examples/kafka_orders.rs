//! Orders from a topic of Kafka's, under smol: each is committed when it is shipped, and what cannot be
//! shipped is in another topic.
//!
//! ```console
//! $ .ci/kafka cargo run -p watershed-kafka --example kafka_orders
//! ```
//!
//! With a broker of your own, set `WATERSHED_KAFKA` to its host and port; the topics `orders` and
//! `orders.dead` are made there if they are missing.

use std::time::Duration;

use futures::StreamExt;
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use watershed::transport::Link;
use watershed::{BoxError, Letter, RetryPolicy, Source, StepContext, fan_in};
use watershed_kafka::{Consumer, DeadLetters, Start, rdkafka};

/// An order, and the record that it was.
#[derive(Clone)]
struct Order {
    record: OwnedMessage,
    what: String,
    pieces: u32,
}

fn parse(record: OwnedMessage) -> Result<Order, BoxError> {
    let text = std::str::from_utf8(record.payload().ok_or("an order has a body")?)?;
    let (what, pieces) = text.split_once(' ').ok_or("an order is WHAT PIECES")?;
    Ok(Order { what: what.to_owned(), pieces: pieces.parse()?, record })
}

fn main() -> Result<(), BoxError> {
    let server = std::env::var("WATERSHED_KAFKA")
        .map_err(|_| "set WATERSHED_KAFKA to the host and port of a broker, or use .ci/kafka")?;
    let mut broker = ClientConfig::new();
    broker.set("bootstrap.servers", server);
    smol::block_on(async {
        place_orders(&broker).await?;
        let mut member = broker.clone();
        member.set("group.id", "shop").set("session.timeout.ms", "6000");
        let orders = Consumer::new(member, ["orders"])?.start_at(Start::Earliest).until_empty();
        let caught_up = orders.caught_up();
        let orders = Link::new(orders);
        let letters = DeadLetters::open(broker, "orders.dead").await?;

        let context = StepContext::new("orders");
        let report = fan_in(&context, [], async |order: Order, step| {
            // Where a database has the effect, its token and its undo go into the same transaction: see
            // the chapter `acknowledging` of the guide.
            let receipt = step.receipt::<watershed_kafka::Receipt>(0).ok_or("no receipt")?;
            if order.pieces == 0 {
                return Err("there is nothing to ship".into());
            }
            println!("{}: {} of {}", receipt.offset(), order.pieces, order.what);
            Ok::<_, BoxError>(())
        })
        .incoming(orders.assigned().map(|source| source.named("orders").decoded(parse)))
        .ordered_by(|order: &Order| order.what.clone())
        .concurrency(8)
        .retry(RetryPolicy::exponential(3, Duration::from_millis(50)))
        .dead_letters(async |letter: Letter<Order>| {
            println!("put aside: {:#}", letter.error());
            letters.store(&letter, |order| &order.record).await
        })
        .shutdown(caught_up)
        .finish_within(Duration::from_secs(20))
        .await?;
        println!("{} shipped, {} put aside", report.accepted(), report.rejected());
        Ok(())
    })
}

/// Makes the topics, and orders something.
async fn place_orders(broker: &ClientConfig) -> Result<(), BoxError> {
    let admin: AdminClient<DefaultClientContext> = broker.create()?;
    let topic = |name| NewTopic::new(name, 2, TopicReplication::Fixed(1));
    let (topics, options) = ([topic("orders"), topic("orders.dead")], AdminOptions::new());
    for made in admin.create_topics(&topics, &options).await? {
        match made {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(format!("making the topic {topic}: {code}").into()),
        }
    }
    let producer: BaseProducer = broker.create()?;
    for order in ["tea 2", "rum 0", "ice 5", "gold", "tea 1", "rum 3"] {
        let record = BaseRecord::to("orders").key(&order[..3]).payload(order);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(Duration::from_secs(10))?)
}
