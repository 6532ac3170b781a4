//! A transport that has all its messages in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_timer::Delay;
use watershed::transport::{Able, Fetched, Received, Settled, Transport, Verdict, Want};

/// Counts up to `messages`, and forgets what is accepted.
#[derive(Debug)]
pub(crate) struct Counter {
    next: AtomicU64,
    messages: u64,
    batch: usize,
    answers_after: Duration,
    pub(crate) accepted: AtomicU64,
}

impl Counter {
    pub(crate) fn new(messages: u64, batch: usize, answers_after: Duration) -> Self {
        let (next, accepted) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { next, messages, batch, answers_after, accepted }
    }

    /// One call, as a loop by hand makes it.
    pub(crate) async fn accept(&self, count: usize) {
        if !self.answers_after.is_zero() {
            Delay::new(self.answers_after).await;
        }
        self.accepted.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn take(&self, at_most: usize) -> std::ops::Range<u64> {
        let from = self.next.fetch_add(at_most as u64, Ordering::Relaxed).min(self.messages);
        from..(from + at_most as u64).min(self.messages)
    }
}

impl Transport for Counter {
    type Message = u64;
    type Receipt = u64;

    fn able(&self) -> Able {
        Able::each().batches_of(self.batch).prefetches(256)
    }

    async fn fetch(&self, want: Want) -> Fetched<u64, u64> {
        let taken = self.take(want.at_most);
        Ok((!taken.is_empty()).then(|| taken.map(|number| Received::new(number, number)).collect()))
    }

    async fn settle(&self, batch: Vec<(u64, Verdict)>) -> Vec<Settled> {
        self.accept(batch.len()).await;
        batch.iter().map(|_| Settled::Confirmed).collect()
    }
}
