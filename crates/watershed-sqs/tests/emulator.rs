//! A whole queue: the suite for transports, and what goes wrong between two drains, on an emulator.

mod support;

use std::io::Write;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use support::client;
use watershed::testing::{Broker, conformance};
use watershed::transport::Link;
use watershed::{BoxError, CancellationSource, OnFailure, Progress, StepContext, fan_in};
use watershed_sqs::Queue;
use watershed_sqs::aws_sdk_sqs::Client;
use watershed_sqs::aws_sdk_sqs::types::{
    Message, QueueAttributeName, SendMessageBatchRequestEntry,
};

/// Seconds.
const VISIBILITY: u64 = 3;

/// The address of the emulator. Without one there is nothing to be tried.
fn emulator() -> Option<String> {
    let address = std::env::var("WATERSHED_SQS").ok();
    if address.is_none() {
        let text = "no SQS: run this by `.ci/sqs cargo test -p watershed-sqs`, or set WATERSHED_SQS to \
                    the address of an emulator";
        let required = std::env::var("WATERSHED_SERVERS").is_ok_and(|it| it == "required");
        assert!(!required, "{text}");
        // Where nobody captures it.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
    address
}

struct Orders {
    client: Client,
    url: String,
    is_fifo: bool,
}

impl Orders {
    async fn new(address: &str, name: &str, policy: Option<String>) -> Result<Self, BoxError> {
        let client = client(address);
        let (name, is_fifo) = (format!("{name}-{}", std::process::id()), name.ends_with("fifo"));
        let queue = client.create_queue();
        let queue =
            queue.set_attributes(policy.map(|it| [(QueueAttributeName::RedrivePolicy, it)].into()));
        let queue = if is_fifo {
            queue.queue_name(name + ".fifo").attributes(QueueAttributeName::FifoQueue, "true")
        } else {
            queue.queue_name(name)
        };
        let url = queue.send().await?.queue_url;
        Ok(Self { client, url: url.ok_or("the queue has no address")?, is_fifo })
    }

    fn queue(&self) -> Queue {
        let queue = Queue::new(self.client.clone(), &self.url);
        queue.visibility(Duration::from_secs(VISIBILITY))
    }

    async fn arn(&self) -> Result<String, BoxError> {
        let attributes = self.client.get_queue_attributes().queue_url(&self.url);
        let which = QueueAttributeName::QueueArn;
        let attributes = attributes.attribute_names(which.clone()).send().await?.attributes;
        Ok(attributes.and_then(|mut all| all.remove(&which)).ok_or("the queue has no ARN")?)
    }

    async fn count(&self) -> Result<usize, BoxError> {
        let received = self.client.receive_message().queue_url(&self.url);
        let received = received.max_number_of_messages(10).send().await?;
        Ok(received.messages().len())
    }
}

fn number(message: &Message) -> u32 {
    message.body().and_then(|body| body.parse().ok()).unwrap_or(u32::MAX)
}

impl Broker for Orders {
    type Transport = Queue;

    async fn connect(&self) -> Result<Link<Queue>, BoxError> {
        Ok(Link::new(self.queue()))
    }

    async fn put(&self, numbers: Range<u32>) -> Result<(), BoxError> {
        let numbers: Vec<_> = numbers.collect();
        for batch in numbers.chunks(10) {
            let entries = batch.iter().map(|number| {
                let entry = SendMessageBatchRequestEntry::builder().id(number.to_string());
                let entry = entry.message_body(number.to_string());
                if !self.is_fifo {
                    return entry.build();
                }
                let entry = entry.message_deduplication_id(number.to_string());
                entry.message_group_id((number % 3).to_string()).build()
            });
            let entries = entries.collect::<Result<Vec<_>, _>>()?;
            let send = self.client.send_message_batch().queue_url(&self.url);
            let failed = send.set_entries(Some(entries)).send().await?.failed;
            if !failed.is_empty() {
                return Err(format!("not sent: {failed:?}").into());
            }
        }
        Ok(())
    }

    fn number(&self, message: &Message) -> u32 {
        number(message)
    }

    fn comes_again_after(&self) -> Duration {
        Duration::from_secs(VISIBILITY)
    }
}

#[test]
fn it_does_what_every_transport_does() -> Result<(), BoxError> {
    let Some(address) = emulator() else { return Ok(()) };
    all_checks(&address, "standard")
}

#[test]
fn so_does_a_fifo_queue() -> Result<(), BoxError> {
    let Some(address) = emulator() else { return Ok(()) };
    all_checks(&address, "fifo")
}

fn all_checks(address: &str, name: &str) -> Result<(), BoxError> {
    smol::block_on(async {
        let orders = Orders::new(address, name, None).await?;
        let context = StepContext::new("conformance");
        match conformance(&context, &orders).await {
            Ok(checks) => assert_eq!(checks, 7),
            Err(error) => {
                let failed: Vec<_> = error.related().iter().map(|it| format!("{it:#}")).collect();
                panic!("{error:#}: {failed:#?}");
            }
        }
        Ok(())
    })
}

#[test]
fn what_is_rejected_is_in_the_other_queue() -> Result<(), BoxError> {
    let Some(address) = emulator() else { return Ok(()) };
    smol::block_on(async {
        let orders = Orders::new(&address, "rejecting", None).await?;
        let dead = Orders::new(&address, "rejected", None).await?;
        orders.put(0..4).await?;
        let link = Link::new(orders.queue().letters(&dead.url)).max_deliveries(2);
        let context = StepContext::new("orders");
        let (handled, progress) = (Mutex::new(Vec::new()), Progress::new());
        let stop = CancellationSource::new();
        let drain = fan_in(&context, [link.source()], async |message, _| {
            handled.lock().unwrap().push(number(&message));
            if number(&message) == 2 { Err("never") } else { Ok(()) }
        });
        let drain = drain.on_failure(OnFailure::Continue).progress(&progress);
        // One drain: what an ending one has fetched goes back, and the queue counts that as well.
        let until_rejected = async {
            while progress.report().rejected() == 0 {
                smol::Timer::after(Duration::from_millis(20)).await;
            }
            stop.cancel();
        };
        let drained = drain.shutdown(stop.token()).into_future();
        let (report, ()) = smol::future::zip(drained, until_rejected).await;
        let report = report?;
        assert_eq!(report.rejected(), 1);
        let mut handled = handled.into_inner()?;
        handled.sort_unstable();
        assert_eq!(handled, [0, 1, 2, 2, 3]);
        let received = dead.client.receive_message().queue_url(&dead.url);
        let received = received.message_attribute_names("All").send().await?;
        let letter = received.messages().first().ok_or("there is no letter")?;
        assert_eq!(number(letter), 2);
        let error = letter.message_attributes().and_then(|all| all.get("watershed-error"));
        let error = error.and_then(|it| it.string_value()).unwrap_or_default();
        // The others came once. Whatever comes again before the answer to its release is there goes back
        // unbegun, and the queue counts that as well.
        let times = format!("was delivered {} times", report.fetched() - 3);
        assert!(error.contains(&times), "{error}: {report:?}");
        Ok(())
    })
}

#[test]
fn what_comes_too_often_is_put_aside_by_the_queue() -> Result<(), BoxError> {
    let Some(address) = emulator() else { return Ok(()) };
    smol::block_on(async {
        let dead = Orders::new(&address, "aside", None).await?;
        let arn = dead.arn().await?;
        let policy = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":2}}"#);
        let orders = Orders::new(&address, "redriven", Some(policy)).await?;
        orders.put(0..3).await?;
        let link = Link::new(orders.queue().redriven());
        let context = StepContext::new("orders");
        let (mut accepted, mut released) = (0, 0);
        while dead.count().await? == 0 {
            let drain = fan_in(&context, [link.source()], async |message, _| {
                if number(&message) == 1 { Err("never") } else { Ok(()) }
            });
            let report = drain.on_failure(OnFailure::Continue).until_idle().await?;
            (accepted, released) = (accepted + report.accepted(), released + report.released());
        }
        assert_eq!((accepted, released), (2, 2));

        // The drain itself has to be the first to give up.
        let link = Link::new(orders.queue()).max_deliveries(2);
        let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
        let error = drain.until_idle().await.unwrap_err();
        assert!(format!("{error}").contains("maxReceiveCount"), "{error}");
        Ok(())
    })
}
