//! What one writes over the SDK alone.

use std::cell::RefCell;
use std::time::Duration;

use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream;
use watershed::BoxError;
use watershed_sqs::aws_sdk_sqs::error::BuildError;
use watershed_sqs::aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message};

use crate::Orders;
use crate::stopwatch::Stopwatch;

/// Ten are received; each is handled and deleted, one after another.
pub(crate) fn one_by_one(orders: &Orders) -> Result<Duration, BoxError> {
    let watch = Stopwatch::new(orders.messages);
    smol::block_on(async {
        while !watch.is_done() {
            for message in received(orders).await? {
                handled(&watch, &message).await?;
                deleted(orders, &message).await?;
            }
        }
        watch.elapsed()
    })
}

/// Ten are received at a time; several messages are handled at once, and each is deleted by itself.
pub(crate) fn concurrent(
    orders: &Orders,
    at_once: usize,
    call: Duration,
) -> Result<Duration, BoxError> {
    let watch = Stopwatch::new(orders.messages).calling(call);
    let failed = RefCell::new(None);
    smol::block_on(async {
        let messages = stream::unfold((Vec::new(), 0), async |(mut left, taken)| {
            if taken == orders.messages || failed.borrow().is_some() {
                return None;
            }
            if left.is_empty() {
                match received(orders).await {
                    Ok(messages) => left = messages,
                    Err(error) => return Some((Err(error), (left, taken))),
                }
                left.reverse();
            }
            left.pop().map(|message| (Ok(message), (left, taken + 1)))
        });
        messages
            .for_each_concurrent(at_once, async |message| {
                let done = async {
                    let message = message?;
                    handled(&watch, &message).await?;
                    deleted(orders, &message).await
                };
                if let Err(error) = done.await {
                    failed.borrow_mut().get_or_insert(error);
                }
            })
            .await;
    });
    ended(&watch, failed)
}

/// Ten are received, handled at once, and deleted in one call; so many receives are on their way at once.
pub(crate) fn by_tens(
    orders: &Orders,
    at_once: usize,
    call: Duration,
) -> Result<Duration, BoxError> {
    let watch = Stopwatch::new(orders.messages).calling(call);
    let failed = RefCell::new(None);
    smol::block_on(async {
        let goes_on = || !watch.is_done() && failed.borrow().is_none();
        stream::repeat(())
            .take_while(|()| std::future::ready(goes_on()))
            .for_each_concurrent(at_once, async |()| {
                if let Err(error) = ten(orders, &watch).await {
                    failed.borrow_mut().get_or_insert(error);
                }
            })
            .await;
    });
    ended(&watch, failed)
}

fn ended(watch: &Stopwatch, failed: RefCell<Option<BoxError>>) -> Result<Duration, BoxError> {
    match failed.into_inner() {
        Some(error) => Err(error),
        None => watch.elapsed(),
    }
}

async fn ten(orders: &Orders, watch: &Stopwatch) -> Result<(), BoxError> {
    let messages = received(orders).await?;
    if messages.is_empty() {
        return Ok(());
    }
    try_join_all(messages.iter().map(|message| handled(watch, message))).await?;
    let entries = messages.iter().enumerate().map(|(index, message)| {
        let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
        entry.set_receipt_handle(message.receipt_handle.clone()).build()
    });
    let entries = entries.collect::<Result<Vec<_>, BuildError>>()?;
    let delete = orders.client.delete_message_batch().queue_url(&orders.url);
    let failed = delete.set_entries(Some(entries)).send().await?.failed;
    if failed.is_empty() { Ok(()) } else { Err(format!("not deleted: {failed:?}").into()) }
}

async fn handled(watch: &Stopwatch, message: &Message) -> Result<(), BoxError> {
    watch.work(message.body().ok_or("it is empty")?.as_bytes()).await
}

async fn received(orders: &Orders) -> Result<Vec<Message>, BoxError> {
    let receive = orders.client.receive_message().queue_url(&orders.url);
    let receive = receive.max_number_of_messages(10).wait_time_seconds(10).visibility_timeout(60);
    Ok(receive.send().await?.messages.unwrap_or_default())
}

async fn deleted(orders: &Orders, message: &Message) -> Result<(), BoxError> {
    let delete = orders.client.delete_message().queue_url(&orders.url);
    delete.set_receipt_handle(message.receipt_handle.clone()).send().await?;
    Ok(())
}
