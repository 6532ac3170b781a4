//! What every contender does with a message, and the loop around a merged stream.

use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use async_channel::Receiver;
use futures::executor::block_on;
use futures::stream::{Stream, StreamExt};
use watershed::{BoxError, StepContext, fan_in};

/// What every message is handed to. One thread only: two plain instructions are enough to add.
pub(crate) async fn handle(message: u64, sum: &AtomicU64) -> Result<(), BoxError> {
    sum.store(sum.load(Ordering::Relaxed) + black_box(message), Ordering::Relaxed);
    Ok(())
}

/// The loop around every merged stream.
pub(crate) async fn by_loop(messages: impl Stream<Item = u64>) -> u64 {
    let sum = AtomicU64::new(0);
    let loop_by_hand = async {
        let mut messages = pin!(messages);
        while let Some(message) = messages.next().await {
            handle(message, &sum).await?;
        }
        Ok::<_, BoxError>(())
    };
    loop_by_hand.await.expect("no handler fails");
    sum.into_inner()
}

pub(crate) async fn by_fan_in(channels: Vec<Receiver<u64>>) -> u64 {
    let sum = AtomicU64::new(0);
    let context = StepContext::new("sum");
    let drain = fan_in(&context, channels, |message, _| handle(message, &sum));
    drain.await.expect("no handler fails");
    sum.into_inner()
}

pub(crate) fn drain(messages: impl Stream<Item = u64>) -> u64 {
    block_on(by_loop(messages))
}
