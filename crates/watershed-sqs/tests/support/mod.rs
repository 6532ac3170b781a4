//! What the tests share: a client of the SDK's without tokio, and services to talk to.
#![allow(dead_code, reason = "each test uses some of it")]

#[path = "../../examples/on_smol/http.rs"]
pub(crate) mod http;
pub(crate) mod service;

use aws_sdk_sqs::config::{BehaviorVersion, Config, Credentials, Region};
use watershed_sqs::Queue;
use watershed_sqs::aws_sdk_sqs::Client;

/// A client of the service at this address.
pub(crate) fn client(address: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .http_client(http::Http)
        .sleep_impl(http::Timer)
        .endpoint_url(address);
    Client::from_conf(config.build())
}

/// The queue `orders` of the service at this address.
pub(crate) fn orders(address: &str) -> Queue {
    queue(address, "orders")
}

pub(crate) fn queue(address: &str, name: &str) -> Queue {
    Queue::new(client(address), url(address, name))
}

pub(crate) fn url(address: &str, name: &str) -> String {
    format!("{address}/000000000000/{name}")
}
