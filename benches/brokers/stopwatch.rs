//! From the first message in hand to the last settlement that is confirmed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use watershed::{BoxError, CancellationSource, CancellationToken, Progress};

/// Counts messages as they are handled, by a loop or a drain.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    messages: u32,
    /// What a handler waits for before it has done its work.
    call: Duration,
    began: OnceLock<Instant>,
    handled: AtomicU32,
    all_handled: CancellationSource,
    settled: CancellationSource,
}

impl Stopwatch {
    pub(crate) fn new(messages: u32) -> Self {
        let (all_handled, settled) = (CancellationSource::new(), CancellationSource::new());
        let (began, handled) = (OnceLock::new(), AtomicU32::new(0));
        Self { messages, call: Duration::ZERO, began, handled, all_handled, settled }
    }

    /// Each message has a call that takes so long.
    pub(crate) fn calling(self, call: Duration) -> Self {
        Self { call, ..self }
    }

    /// What an async handler does.
    pub(crate) async fn work(&self, body: &[u8]) -> Result<(), BoxError> {
        if !self.call.is_zero() {
            self.began.get_or_init(Instant::now);
            smol::Timer::after(self.call).await;
        }
        self.handle(body).map(drop)
    }

    /// What a handler without a call does: nearly nothing, so that the rest is what is measured.
    /// Says how many were handled, this one among them.
    pub(crate) fn handle(&self, body: &[u8]) -> Result<u32, BoxError> {
        self.began.get_or_init(Instant::now);
        let number: u32 = std::str::from_utf8(body)?.parse()?;
        std::hint::black_box(number);
        let handled = self.handled.fetch_add(1, Ordering::Relaxed) + 1;
        if handled == self.messages {
            self.all_handled.cancel();
        }
        Ok(handled)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.handled.load(Ordering::Relaxed) >= self.messages
    }

    /// Since the first message; for a loop whose last settlement has its answer.
    pub(crate) fn elapsed(&self) -> Result<Duration, BoxError> {
        match (self.began.get(), self.handled.load(Ordering::Relaxed)) {
            (Some(began), handled) if handled == self.messages => Ok(began.elapsed()),
            (_, handled) => Err(format!("{handled} of {} messages", self.messages).into()),
        }
    }

    /// Cancelled when the drain has all settled: what it is shut down by.
    pub(crate) fn shutdown(&self) -> CancellationToken {
        self.settled.token()
    }

    /// For a drain, beside which it is polled: waits until every message is accepted.
    pub(crate) async fn all_accepted(&self, progress: &Progress) -> Result<Duration, BoxError> {
        self.all_handled.token().cancelled().await;
        while progress.report().accepted() < u64::from(self.messages) {
            smol::Timer::after(Duration::from_micros(200)).await;
        }
        let elapsed = self.elapsed();
        self.settled.cancel();
        elapsed
    }
}
