//! The SDK's client of SQS, on smol.

/// The HTTP client and the timer, as the adapter's own example has them.
#[path = "../../../../crates/watershed-sqs/examples/on_smol/http.rs"]
mod http;

use std::env;

use watershed::BoxError;
use watershed_sqs::aws_sdk_sqs::Client;
use watershed_sqs::aws_sdk_sqs::config::{BehaviorVersion, Config, Credentials, Region};

use crate::config::SqsSource;

/// A client of the service at the source's endpoint.
///
/// # Errors
///
/// When the environment has no credentials, and the endpoint is no emulator on this machine.
pub(crate) fn client(source: &SqsSource) -> Result<Client, BoxError> {
    let (key, secret) = credentials(&source.endpoint)?;
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(source.region.clone()))
        .credentials_provider(Credentials::new(key, secret, None, None, "the environment"))
        .http_client(http::Http)
        .sleep_impl(http::Timer)
        .endpoint_url(&source.endpoint)
        .build();
    Ok(Client::from_conf(config))
}

fn credentials(endpoint: &str) -> Result<(String, String), BoxError> {
    let is_here = ["http://127.", "http://localhost", "http://[::1]"];
    let is_here = is_here.iter().any(|here| endpoint.starts_with(here));
    match (env::var("AWS_ACCESS_KEY_ID"), env::var("AWS_SECRET_ACCESS_KEY")) {
        (Ok(key), Ok(secret)) => Ok((key, secret)),
        // An emulator takes any.
        _ if is_here => Ok(("key".to_owned(), "secret".to_owned())),
        _ => {
            Err("there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".into())
        }
    }
}
