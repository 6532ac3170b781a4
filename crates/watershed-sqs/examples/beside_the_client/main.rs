//! Messages a second: a drain beside a loop over the SDK, each against a service in this process that
//! answers at once. Both delete a message only after its handler, ten in a call.
//!
//! ```text
//! cargo run --release -p watershed-sqs --example beside_the_sdk
//! ```

#[path = "../on_smol/http.rs"]
mod http;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../../tests/support/service.rs"]
mod service;

use std::time::{Duration, Instant};

use service::{Service, message};
use watershed::transport::Link;
use watershed::{BoxError, StepContext, fan_in};
use watershed_sqs::Queue;
use watershed_sqs::aws_sdk_sqs::config::{BehaviorVersion, Config, Credentials, Region};
use watershed_sqs::aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message};
use watershed_sqs::aws_sdk_sqs::{Client, error::BuildError};

const MESSAGES: u32 = 2_000;
const ROUNDS: usize = 7;

/// What is done for a message: nearly nothing, so that the rest is what is measured.
fn handle(message: &Message) -> Result<u32, BoxError> {
    Ok(message.body().ok_or("it is empty")?.parse()?)
}

fn client(service: &Service) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "here"))
        .http_client(http::Http)
        .sleep_impl(http::Timer)
        .endpoint_url(&service.address);
    Client::from_conf(config.build())
}

/// The loop: receive ten, handle them, delete them.
async fn by_loop(service: &Service) -> Result<u32, BoxError> {
    let (client, url) = (client(service), format!("{}/000000000000/orders", service.address));
    let mut handled = 0;
    while handled < MESSAGES {
        let receive = client.receive_message().queue_url(&url).max_number_of_messages(10);
        let messages = receive.visibility_timeout(60).send().await?.messages.unwrap_or_default();
        let entries = messages.iter().enumerate().map(|(index, message)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
            entry.set_receipt_handle(message.receipt_handle.clone()).build()
        });
        let entries = entries.collect::<Result<Vec<_>, BuildError>>()?;
        for message in &messages {
            handle(message)?;
            handled += 1;
        }
        let delete = client.delete_message_batch().queue_url(&url);
        let failed = delete.set_entries(Some(entries)).send().await?.failed;
        if !failed.is_empty() {
            return Err(format!("not deleted: {failed:?}").into());
        }
    }
    Ok(handled)
}

/// The drain: the same, and it renews, undoes, retries and stops as well.
async fn by_drain(service: &Service) -> Result<u32, BoxError> {
    let queue = Queue::new(client(service), format!("{}/000000000000/orders", service.address));
    let link = Link::new(queue);
    let context = StepContext::new("orders");
    let drain = fan_in(&context, [link.source()], async |message, _| handle(&message).map(drop));
    let report = drain.until_idle().await?;
    Ok(u32::try_from(report.accepted())?)
}

fn measure(
    run: &impl AsyncFn(&Service) -> Result<u32, BoxError>,
) -> Result<(Duration, usize), BoxError> {
    let service = Service::queue((0..MESSAGES).map(message), |_| None);
    let begin = Instant::now();
    let handled = smol::block_on(run(&service))?;
    let took = begin.elapsed();
    if handled != MESSAGES {
        return Err(format!("{handled} of {MESSAGES} messages").into());
    }
    Ok((took, service.calls().len()))
}

fn main() -> Result<(), BoxError> {
    let (mut drains, mut loops) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        drains.push(measure(&by_drain)?);
        loops.push(measure(&by_loop)?);
    }
    for (name, mut rounds) in [("the drain", drains), ("a loop over the SDK", loops)] {
        rounds.sort_unstable();
        let (took, calls) = rounds[ROUNDS / 2];
        let rate = f64::from(MESSAGES) / took.as_secs_f64();
        println!("{name}: {rate:.0} messages a second, {calls} calls for {MESSAGES} messages");
    }
    Ok(())
}
