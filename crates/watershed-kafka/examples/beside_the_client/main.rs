//! Messages a second with each of them committed behind its handler: a drain with everything on beside
//! loops of rust-rdkafka's own consumers; and how that grows with processes.
//!
//! ```text
//! .ci/kafka cargo run --release -p watershed-kafka --example beside_the_client
//! .ci/kafka cargo run --release -p watershed-kafka --example beside_the_client -- scale
//! ```
//!
//! Arguments: `[ROUNDS [TIMES [ONLY]]]` (7 rounds; times as many messages; only contenders of that name),
//! or `scale [ROUNDS]`.

#[path = "../../../../benches/brokers/contest.rs"]
mod contest;
mod drain;
mod loops;
mod scale;
#[path = "../../../../benches/brokers/stopwatch.rs"]
mod stopwatch;
mod topic;
#[path = "../../../../benches/brokers/workers.rs"]
mod workers;

use std::time::Duration;

use contest::{Contender, Promise, Settings, contest};
use drain::Drain;
use topic::Topic;
use watershed::BoxError;

/// How many handlers run at once, and how many messages a loop commits at once.
const AT_ONCE: usize = 100;

fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1).peekable();
    let server = std::env::var("WATERSHED_KAFKA")
        .map_err(|_| "set WATERSHED_KAFKA to the host and port of a broker, or use .ci/kafka")?;
    match arguments.peek().map(String::as_str) {
        Some("scale") => return scale::measure(&server, arguments.skip(1)),
        Some("work") => return scale::work(&server, arguments.skip(1)),
        _ => {}
    }
    let settings = Settings::of(arguments)?;
    one_by_one(&server, &settings)?;
    in_batches(&server, &settings)?;
    with_calls(&server, &settings)
}

/// The commit of each message is confirmed before the next one is handled.
fn one_by_one(server: &str, settings: &Settings) -> Result<(), BoxError> {
    let topic = |messages| Topic::filled(server, "one-by-one", messages);
    let drain = Drain { at_once: 1, unsettled: 1, call: Duration::ZERO };
    let piped = Drain { at_once: 1, unsettled: 1_024, call: Duration::ZERO };
    let contenders = vec![
        Contender::new("watershed", Promise::Ours, |messages| drain.run(&topic(messages)?)),
        Contender::new("`BaseConsumer::poll`, commit of each", Promise::Same, |messages| {
            loops::one_after_another(&topic(messages)?, 1)
        }),
        Contender::new("`for_each_concurrent(1)`, commit of each", Promise::Same, |messages| {
            loops::concurrent(&topic(messages)?, 1, true, Duration::ZERO)
        }),
        Contender::new(
            "the same, commit on a thread that may wait (`unblock`)",
            Promise::Same,
            |messages| loops::concurrent(&topic(messages)?, 1, false, Duration::ZERO),
        ),
        Contender::new(
            "watershed, as it is by itself",
            Promise::Apart("the next message is handled while the last one is committed"),
            |messages| piped.run(&topic(messages)?),
        ),
        Contender::new(
            "asynchronous commit of each",
            Promise::Apart(
                "nobody hears of one that is refused; a crash repeats what had no answer",
            ),
            |messages| loops::unconfirmed(&topic(messages)?, 1),
        ),
        Contender::new(
            "auto-commit",
            Promise::Apart(
                "what a crash, or an error, leaves half done is committed, and never comes again; what \
                 was done in the last 5 s comes again",
            ),
            |messages| loops::automatic(&topic(messages)?),
        ),
    ];
    contest("Kafka, one by one", 10_000, settings, contenders)
}

/// Many messages are in flight, and commits cover many of them.
fn in_batches(server: &str, settings: &Settings) -> Result<(), BoxError> {
    let topic = |messages| Topic::filled(server, "in-batches", messages);
    let every = u32::try_from(AT_ONCE)?;
    let mut contenders = at_once(&topic, Duration::ZERO);
    contenders.extend([
        Contender::new("`BaseConsumer::poll`, commit of every 100", Promise::Same, |messages| {
            loops::one_after_another(&topic(messages)?, every)
        }),
        Contender::new(
            "asynchronous commit of every 100",
            Promise::Apart(
                "nobody hears of one that is refused; a crash repeats what had no answer",
            ),
            |messages| loops::unconfirmed(&topic(messages)?, every),
        ),
        Contender::new("auto-commit", Promise::Apart("as above"), |messages| {
            loops::automatic(&topic(messages)?)
        }),
    ]);
    contest("Kafka, in batches", 50_000, settings, contenders)
}

/// The same with handlers that wait for somebody else.
fn with_calls(server: &str, settings: &Settings) -> Result<(), BoxError> {
    let topic = |messages| Topic::filled(server, "with-calls", messages);
    let contenders = at_once(&topic, Duration::from_millis(1));
    contest("Kafka, calls of 1 ms, 100 at once", 20_000, settings, contenders)
}

/// Those that handle a hundred messages at once.
fn at_once(topic: &impl Fn(u32) -> Result<Topic, BoxError>, call: Duration) -> Vec<Contender<'_>> {
    let drain = Drain { at_once: AT_ONCE, unsettled: 1_024, call };
    vec![
        Contender::new("watershed, 100 at once", Promise::Ours, move |messages| {
            drain.run(&topic(messages)?)
        }),
        Contender::new(
            "`ready_chunks(100)`, `for_each_concurrent(100)`, commit",
            Promise::Same,
            move |messages| loops::concurrent(&topic(messages)?, AT_ONCE, true, call),
        ),
        Contender::new(
            "the same, commit on a thread that may wait (`unblock`)",
            Promise::Same,
            move |messages| loops::concurrent(&topic(messages)?, AT_ONCE, false, call),
        ),
    ]
}
