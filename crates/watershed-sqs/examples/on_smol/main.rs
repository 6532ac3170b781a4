//! Orders from an SQS queue, handled on smol; nothing starts tokio. Run it on an emulator by
//! `.ci/sqs cargo run -p watershed-sqs --example on_smol`.

mod http; // 60 lines: the SDK's HTTP client over hyper and smol, and its timer

use std::time::Duration;

use watershed::transport::Link;
use watershed::{BoxError, Letter, RetryPolicy, Source, StepContext, fan_in};
use watershed_sqs::Queue;
use watershed_sqs::aws_sdk_sqs::config::{BehaviorVersion, Config, Credentials, Region};
use watershed_sqs::aws_sdk_sqs::{Client, types::Message};

fn pieces(message: &Message) -> Result<u32, BoxError> {
    Ok(message.body().ok_or("the order is empty")?.parse()?)
}

async fn work(client: Client) -> Result<(), BoxError> {
    let orders = client.create_queue().queue_name("orders").send().await?;
    let orders = orders.queue_url().ok_or("the queue has no address")?;
    let dead = client.create_queue().queue_name("dead-orders").send().await?;
    let dead = dead.queue_url().ok_or("the queue has no address")?;
    for order in ["3", "0", "many", "4"] {
        client.send_message().queue_url(orders).message_body(order).send().await?;
    }

    let queue = Queue::new(client.clone(), orders).visibility(Duration::from_mins(1)).letters(dead);
    let link = Link::new(queue).max_deliveries(5);
    let orders = link.source().named("orders").decoded(|message| pieces(&message));
    let context = StepContext::new("shop");
    let report = fan_in(&context, [orders], async |pieces: u32, step: StepContext| {
        println!("{pieces} pieces reserved, attempt {}", step.attempt());
        // Undone in reverse order, if the handler fails behind it.
        step.register_compensation_with(pieces, async |pieces| println!("{pieces} pieces back"));
        if pieces == 0 { Err("there is nothing to ship") } else { Ok(()) }
    })
    .retry(RetryPolicy::exponential(2, Duration::from_millis(200)))
    .dead_letters(async |letter: Letter<u32>| {
        // For your log: the message itself goes to `dead-orders`, with this error.
        println!("given up: {:#}", letter.error());
    })
    .until_idle() // a service says `.shutdown(stop.token())`, and something calls `stop.cancel()`
    .await?;
    println!("{} accepted, {} rejected", report.accepted(), report.rejected());
    Ok(())
}

fn main() -> Result<(), BoxError> {
    let address = std::env::var("WATERSHED_SQS").map_err(|_| "WATERSHED_SQS is no address")?;
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "here"))
        .http_client(http::Http)
        .sleep_impl(http::Timer)
        .endpoint_url(address)
        .build();
    smol::block_on(work(Client::from_conf(config)))
}
