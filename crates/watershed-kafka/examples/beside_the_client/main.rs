//! Messages a second with each of them committed behind its handler: this crate beside loops of
//! rust-rdkafka's own consumer.
//!
//! ```console
//! $ .ci/kafka cargo run --release -p watershed-kafka --example measure -- 20000
//! ```
//!
//! Counted from the first message to the last commit, over four partitions. Each contender has a topic
//! and a group of its own, and says how far a crash would have set it back.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use smol::Timer;
use watershed::transport::Link;
use watershed::{BoxError, StepContext, fan_in};
use watershed_kafka::{Consumer, rdkafka};

const PARTITIONS: i32 = 4;

/// What a handler does: nothing, or a call that takes a millisecond.
#[derive(Clone, Copy)]
enum Work {
    None,
    Call,
}

impl Work {
    const CALL: Duration = Duration::from_millis(1);
}

fn main() -> Result<(), BoxError> {
    let messages = match std::env::args().nth(1) {
        Some(messages) => messages.parse().map_err(|_| "how many messages?")?,
        None => 10_000,
    };
    let server = std::env::var("WATERSHED_KAFKA")
        .map_err(|_| "set WATERSHED_KAFKA to the host and port of a broker, or use .ci/kafka")?;
    let mut broker = ClientConfig::new();
    broker.set("bootstrap.servers", server);
    for (work, what) in [(Work::None, "handlers that do nothing"), (Work::Call, "calls of 1 ms")] {
        println!("{what}, {messages} messages:");
        let loops = |every| by_hand(&broker, messages, work, every);
        println!("  {:>7.0}/s  rdkafka, one by one, each committed", loops(1)?);
        println!("  {:>7.0}/s  rdkafka, one by one, every 100 committed", loops(100)?);
        let drained = |at_once| drained(&broker, messages, work, at_once);
        println!("  {:>7.0}/s  watershed, one at a time", drained(1)?);
        println!("  {:>7.0}/s  watershed, 16 at once", drained(16)?);
    }
    Ok(())
}

/// A topic with so many messages, and a member of a new group.
fn filled(broker: &ClientConfig, messages: u32) -> Result<(String, ClientConfig), BoxError> {
    let name = format!("measure-{}-{}", std::process::id(), moment());
    let admin: AdminClient<DefaultClientContext> = broker.create()?;
    let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1));
    for made in smol::block_on(admin.create_topics([&topic], &AdminOptions::new()))? {
        made.map_err(|(topic, code)| format!("making the topic {topic}: {code}"))?;
    }
    let producer: BaseProducer = broker.create()?;
    for number in 0..messages {
        let body = number.to_string();
        let partition = i32::try_from(number)? % PARTITIONS;
        let record = BaseRecord::<(), str>::to(&name).partition(partition).payload(&body);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(Duration::from_secs(60))?;
    let mut member = broker.clone();
    member.set("group.id", &name).set("session.timeout.ms", "6000");
    Ok((name, member))
}

/// Anything that was not there before.
fn moment() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}

fn a_second(messages: u32, since: Option<Instant>) -> Result<f64, BoxError> {
    let since = since.ok_or("there was no message")?;
    Ok(f64::from(messages) / since.elapsed().as_secs_f64())
}

/// The loop that one writes with the client alone. It handles one message at a time: with more, it would
/// have to keep track of which are done.
fn by_hand(broker: &ClientConfig, messages: u32, work: Work, every: u32) -> Result<f64, BoxError> {
    let (topic, mut member) = filled(broker, messages)?;
    member.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
    member.set("enable.auto.offset.store", "false");
    let consumer: BaseConsumer = member.create()?;
    consumer.subscribe(&[&topic])?;
    let (mut since, mut handled) = (None, 0);
    while handled < messages {
        // None also when the group has changed.
        let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
        let message = message?;
        since.get_or_insert_with(Instant::now);
        if let Work::Call = work {
            std::thread::sleep(Work::CALL);
        }
        consumer.store_offset_from_message(&message)?;
        handled += 1;
        if handled % every == 0 || handled == messages {
            consumer.commit_consumer_state(CommitMode::Sync)?;
        }
    }
    a_second(messages, since)
}

fn drained(
    broker: &ClientConfig,
    messages: u32,
    work: Work,
    at_once: usize,
) -> Result<f64, BoxError> {
    let (topic, member) = filled(broker, messages)?;
    let consumer = Consumer::new(member, [topic])?.until_empty();
    let caught_up = consumer.caught_up();
    let link = Link::new(consumer);
    let since = std::cell::Cell::new(None);
    let context = StepContext::new("measure");
    let drain = fan_in(&context, [], async |_, _| {
        if since.get().is_none() {
            since.set(Some(Instant::now()));
        }
        if let Work::Call = work {
            Timer::after(Work::CALL).await;
        }
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(link.assigned()).concurrency(at_once);
    let ended = caught_up.clone();
    smol::block_on(async {
        let (report, rate) = smol::future::zip(drain.shutdown(caught_up).into_future(), async {
            ended.cancelled().await;
            a_second(messages, since.get())
        })
        .await;
        if report?.accepted() != u64::from(messages) {
            return Err("not everything was accepted".into());
        }
        rate
    })
}
