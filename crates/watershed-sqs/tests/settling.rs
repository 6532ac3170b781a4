//! What an answer of the service's means for a message, against a service that answers on demand.

mod support;

use serde_json::{Value, json};
use support::service::{Answer, Call, Service};
use watershed::Error;
use watershed::transport::{Settled, Transport, Verdict};
use watershed_sqs::{Queue, Receipt};

fn ids(call: &Call) -> Vec<String> {
    let entries = call.input["Entries"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["Id"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn smoke() {
    let service = Service::new(|call| {
        let done: Vec<_> = ids(call).into_iter().map(|id| json!({"Id": id})).collect();
        Answer::Json(json!({"Successful": done, "Failed": []}))
    });
    let client = support::client(&service.address);
    let answer = smol::block_on(client.list_queues().send());
    println!("{answer:?}");
    let queue = Queue::new(client, "http://x/1/orders");
    let renewed = smol::block_on(queue.renew(vec![]));
    assert!(renewed.is_empty());
    let _ : Option<(Value, Error, Settled, Verdict, Receipt)> = None;
}
