//! Messages a second with each of them deleted behind its handler: a drain with everything on beside
//! loops over the SDK; and how that grows with processes. All talk to a service in this process that
//! answers at once, or after 5 ms, by an HTTP client that makes a connection for each request.
//!
//! ```text
//! cargo run --release -p watershed-sqs --example beside_the_client
//! cargo run --release -p watershed-sqs --example beside_the_client -- scale
//! ```
//!
//! Arguments: `[ROUNDS [TIMES [ONLY]]]` (7 rounds; times as many messages; only contenders of that name),
//! or `scale [ROUNDS]`.

#[path = "../../../../benches/brokers/contest.rs"]
mod contest;
mod drain;
#[path = "../on_smol/http.rs"]
mod http;
mod loops;
mod scale;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../../tests/support/service.rs"]
mod service;
#[path = "../../../../benches/brokers/stopwatch.rs"]
mod stopwatch;
#[path = "../../../../benches/brokers/workers.rs"]
mod workers;

use std::time::Duration;

use contest::{Contender, Promise, Settings, contest};
use drain::Drain;
use service::{Service, message};
use watershed::BoxError;
use watershed_sqs::aws_sdk_sqs::Client;
use watershed_sqs::aws_sdk_sqs::config::{BehaviorVersion, Config, Credentials, Region};

/// How many receives are on their way at once.
const RECEIVES: usize = 8;

fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1).peekable();
    match arguments.peek().map(String::as_str) {
        Some("scale") => return scale::measure(arguments.skip(1)),
        Some("work") => return scale::work(arguments.skip(1)),
        _ => {}
    }
    let settings = Settings::of(arguments)?;
    one_by_one(&settings)?;
    let (at_once, [one, five]) = (Duration::ZERO, [1, 5].map(Duration::from_millis));
    in_batches("SQS, in batches, answered at once", (at_once, at_once), &settings)?;
    in_batches("SQS, in batches, answered after 5 ms", (five, at_once), &settings)?;
    in_batches("SQS, calls of 1 ms, answered after 5 ms", (five, one), &settings)
}

/// The queue `orders` of a service with messages.
pub(crate) struct Orders {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) messages: u32,
}

impl Orders {
    pub(crate) fn at(address: &str, messages: u32) -> Self {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "here"))
            .http_client(http::Http)
            .sleep_impl(http::Timer)
            .endpoint_url(address);
        let url = format!("{address}/000000000000/orders");
        Self { client: Client::from_conf(config.build()), url, messages }
    }

    fn filled(messages: u32, answers_after: Duration) -> Self {
        let service = Service::queue((0..messages).map(message), move |_| {
            // Each connection has a thread.
            if !answers_after.is_zero() {
                std::thread::sleep(answers_after);
            }
            None
        });
        Self::at(&service.address, messages)
    }
}

/// The delete of each message is answered before the next one is handled.
fn one_by_one(settings: &Settings) -> Result<(), BoxError> {
    let (orders, call) = (|messages| Orders::filled(messages, Duration::ZERO), Duration::ZERO);
    let drain = Drain { at_once: 1, unsettled: 1, receives: 1, call };
    let piped = Drain { at_once: 1, unsettled: 1_024, receives: 1, call };
    let contenders = vec![
        Contender::new("watershed", Promise::Ours, |messages| drain.run(&orders(messages))),
        Contender::new("receive 10, delete each", Promise::Same, |messages| {
            loops::one_by_one(&orders(messages))
        }),
        Contender::new("`for_each_concurrent(1)`, delete each", Promise::Same, |messages| {
            loops::concurrent(&orders(messages), 1, call)
        }),
        Contender::new(
            "watershed, as it is by itself",
            Promise::Apart("the next message is handled while the last one is deleted"),
            |messages| piped.run(&orders(messages)),
        ),
    ];
    contest("SQS, one by one, answered at once", 1_000, settings, contenders)
}

/// Ten are deleted in one call.
fn in_batches(
    title: &str,
    (answers_after, call): (Duration, Duration),
    settings: &Settings,
) -> Result<(), BoxError> {
    let orders = |messages| Orders::filled(messages, answers_after);
    let one = Drain { at_once: 100, unsettled: 1_024, receives: 1, call };
    let drain = Drain { receives: RECEIVES, ..one };
    let contenders = vec![
        Contender::new("watershed, 8 sources", Promise::Ours, |messages| {
            drain.run(&orders(messages))
        }),
        Contender::new(
            "watershed, 1 source",
            Promise::Apart("one receive at a time"),
            |messages| one.run(&orders(messages)),
        ),
        Contender::new("receive 10, delete 10", Promise::Same, |messages| {
            loops::by_tens(&orders(messages), 1, call)
        }),
        Contender::new(
            "`for_each_concurrent(8)`: receive 10, delete 10",
            Promise::Same,
            |messages| loops::by_tens(&orders(messages), RECEIVES, call),
        ),
        Contender::new("receive 10, `for_each_concurrent(100)`, delete each", Promise::Same, {
            |messages| loops::concurrent(&orders(messages), 100, call)
        }),
    ];
    contest(title, 4_000, settings, contenders)
}
