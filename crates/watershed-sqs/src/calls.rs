//! Batches: up to ten messages in one call, and an answer for each of them.
//!
//! The SDK's own retries are off. After one of them nobody could say whether the first try was applied,
//! and an accept that was refused for certain is undone. The drain tries again, by its clock.

use std::future::Future;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
};

use crate::answers::{Refusal, Why};

/// What became of one message.
pub(crate) type Answer = Result<(), Refusal>;

/// The entries of a call that were done, by their ids, and those that were not.
pub(crate) type Answers = (Vec<String>, Vec<BatchResultErrorEntry>);

/// The same client, which tries nothing again. One for all calls: an override of each is applied anew by
/// each.
pub(crate) fn once(client: &Client) -> Client {
    let config = client.config().to_builder().retry_config(RetryConfig::disabled());
    Client::from_conf(config.build())
}

/// The name of a queue, as its address ends.
pub(crate) fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// Calls with all entries at once. Where the service refuses the whole call because of what is in it,
/// the halves are tried, so that one bad entry does not keep the others from being done.
pub(crate) async fn each<E, C, F>(what: &str, name: &str, entries: &[E], call: C) -> Vec<Answer>
where
    C: Fn(&[E]) -> F,
    F: Future<Output = Result<Answers, Refusal>>,
{
    let mut answers = Vec::with_capacity(entries.len());
    let mut waiting = if entries.is_empty() { vec![] } else { vec![entries] };
    while let Some(part) = waiting.pop() {
        match call(part).await {
            Ok((done, failed)) => answers.extend((0..part.len()).map(|index| {
                let id = index.to_string();
                let failed = failed.iter().find(|entry| entry.id() == id);
                match failed {
                    Some(entry) => Err(Refusal::of_entry(what, name, entry)),
                    None if done.contains(&id) => Ok(()),
                    None => {
                        let text = format!("{what} {name}: the service says nothing of a message");
                        Err(Refusal::new(Why::NoAnswer, text))
                    }
                }
            })),
            Err(refusal) if part.len() > 1 && splits(refusal.why) => {
                let (first, second) = part.split_at(part.len() / 2);
                waiting.extend([second, first]);
            }
            Err(refusal) => answers.extend(part.iter().map(|_| Err(refusal.clone()))),
        }
    }
    answers
}

/// Whether a call failed because of one of its entries.
fn splits(why: Why) -> bool {
    matches!(why, Why::Invalid | Why::Lost | Why::Beyond)
}

/// Deletes messages by their receipt handles.
pub(crate) async fn delete(client: &Client, url: &str, handles: &[&str]) -> Vec<Answer> {
    let (what, name) = ("deleting from", name(url));
    each(what, name, handles, |part| {
        let entries = part.iter().enumerate().map(|(index, handle)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
            entry.receipt_handle(*handle).build()
        });
        let entries: Result<Vec<_>, _> = entries.collect();
        let call = client.delete_message_batch().queue_url(url);
        async move {
            let call = call.set_entries(Some(entries.map_err(incomplete)?));
            // Large, as every call of the SDK is.
            let answer = Box::pin(call.send()).await;
            let answer = answer.map_err(|error| Refusal::of_call(what, name, error))?;
            let done = answer.successful.into_iter().map(|entry| entry.id).collect();
            Ok((done, answer.failed))
        }
    })
    .await
}

/// Makes messages visible again after so many seconds, from now on.
pub(crate) async fn hide(client: &Client, url: &str, messages: &[(&str, i32)]) -> Vec<Answer> {
    let (what, name) = ("changing the visibility in", name(url));
    each(what, name, messages, |part| {
        let entries = part.iter().enumerate().map(|(index, (handle, seconds))| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(index.to_string());
            entry.receipt_handle(*handle).visibility_timeout(*seconds).build()
        });
        let entries: Result<Vec<_>, _> = entries.collect();
        let call = client.change_message_visibility_batch().queue_url(url);
        async move {
            let call = call.set_entries(Some(entries.map_err(incomplete)?));
            // Large, as every call of the SDK is.
            let answer = Box::pin(call.send()).await;
            let answer = answer.map_err(|error| Refusal::of_call(what, name, error))?;
            let done = answer.successful.into_iter().map(|entry| entry.id).collect();
            Ok((done, answer.failed))
        }
    })
    .await
}

/// An entry lacks what every one of ours has.
pub(crate) fn incomplete(error: aws_sdk_sqs::error::BuildError) -> Refusal {
    let refusal = Refusal::new(Why::Lasts, "an entry of a batch is incomplete".to_owned());
    Refusal { error: refusal.error.with_source(error), ..refusal }
}
