//! Many sources into one destination, and into one stream.

mod endings;
mod panics;
mod turns;

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::{block_on, filled, left_in, poll_times};
use futures::stream::{self, FusedStream, Stream, StreamExt, TryStreamExt};
use watershed::channels::{Destination, Refused, merge, merge_into};
use watershed::{CancellationSource, Error, ErrorCode, ManualClock, Source, StepContext};

const SECOND: Duration = Duration::from_secs(1);

fn context() -> StepContext {
    StepContext::new("t")
}

fn on(clock: &ManualClock) -> StepContext {
    context().with_clock(Arc::new(clock.clone()))
}

/// Counts how often its stream is polled.
struct Counted<S>(S, Arc<AtomicUsize>);

impl<S: Stream + Unpin> Stream for Counted<S> {
    type Item = S::Item;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.poll_next_unpin(cx)
    }
}
