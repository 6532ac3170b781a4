//! Orders in a topic: reserved, shipped once, undone where that fails, and put aside where it never works.
//! `.ci/kafka cargo run -p watershed-kafka --example kafka_orders` runs it beside a broker of its own.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use watershed::transport::Link;
use watershed::{BoxError, Letter, RetryPolicy, Source, StepContext, fan_in};
use watershed_kafka::rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use watershed_kafka::rdkafka::client::DefaultClientContext;
use watershed_kafka::rdkafka::config::ClientConfig;
use watershed_kafka::rdkafka::message::{Message, OwnedMessage};
use watershed_kafka::rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use watershed_kafka::{Consumer, DeadLetters, Start};

/// An order, and the record that it was. What may be tried again is cloned for it.
#[derive(Clone)]
struct Order {
    record: Arc<OwnedMessage>,
    pieces: u32,
}

fn parse(record: OwnedMessage) -> Result<Order, BoxError> {
    let text = std::str::from_utf8(record.payload().ok_or("an order has a body")?)?;
    Ok(Order { pieces: text.parse()?, record: Arc::new(record) })
}

/// What an operator and a shop do: makes two topics, and sends orders.
async fn place_orders(broker: &ClientConfig) -> Result<(), BoxError> {
    let admin: AdminClient<DefaultClientContext> = broker.create()?;
    let topic = |name| NewTopic::new(name, 2, TopicReplication::Fixed(1));
    // Of each topic it says whether it was made: those that are there already are as well.
    admin.create_topics(&[topic("orders"), topic("orders.dead")], &AdminOptions::new()).await?;
    let producer: BaseProducer = broker.create()?;
    for order in ["3", "0", "many", "4"] {
        let record = BaseRecord::to("orders").key(order).payload(order);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(Duration::from_secs(10))?)
}

fn main() -> Result<(), BoxError> {
    let server = std::env::var("WATERSHED_KAFKA").unwrap_or("127.0.0.1:9092".to_owned());
    let mut broker = ClientConfig::new();
    broker.set("bootstrap.servers", server);
    let mut member = broker.clone();
    member.set("group.id", "shop").set("partition.assignment.strategy", "cooperative-sticky");
    member.set("session.timeout.ms", "6000");

    smol::block_on(async {
        place_orders(&broker).await?;
        let orders = Consumer::new(member, ["orders"])?.start_at(Start::Earliest).until_empty();
        let stop = orders.caught_up(); // a service leaves `until_empty` away, and has a token of its own
        let link = Link::new(orders).revoke_within(Duration::from_secs(30));
        let letters = DeadLetters::open(broker, "orders.dead").await?;

        let context = StepContext::new("shop");
        let report = fan_in(&context, [], async |order: Order, step: StepContext| {
            println!("{} pieces reserved, attempt {}", order.pieces, step.attempt());
            // Undone in reverse order, if the handler fails behind it.
            step.register_compensation_with(order.pieces, async |pieces| {
                println!("{pieces} pieces back");
            });
            if order.pieces == 0 { Err("there is nothing to ship") } else { Ok(()) }
        })
        .incoming(link.assigned().map(|partition| partition.named("orders").decoded(parse)))
        .concurrency(16)
        .retry(RetryPolicy::exponential(2, Duration::from_millis(200)))
        .dead_letters(async |letter: Letter<Order>| {
            println!("given up: {:#}", letter.error());
            letters.store(&letter, |order| &*order.record).await
        })
        .shutdown(stop)
        .finish_within(Duration::from_secs(20)) // then what runs is cancelled, and undone
        .await?;
        println!("{} done, {} put aside", report.accepted(), report.rejected());
        Ok(())
    })
}
