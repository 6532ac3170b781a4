//! One source into many destinations.

mod delivery;
mod endings;

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::{block_on, filled, left_in, poll_times};
use async_channel::{Receiver, Sender, bounded};
use futures::channel::mpsc;
use futures::stream::{self, StreamExt};
use futures::{FutureExt, future};
use watershed::channels::{
    BroadcastReport, DestinationReport, OnClosed, Overflow, SenderDestination, SinkDestination,
    Undelivered, broadcast, fan_out,
};
use watershed::{CancellationSource, ErrorCode, ManualClock, Source, StepContext};

const SECOND: Duration = Duration::from_secs(1);

fn context() -> StepContext {
    StepContext::new("t")
}

fn on(clock: &ManualClock) -> StepContext {
    context().with_clock(Arc::new(clock.clone()))
}

/// Channels of these capacities.
fn channels<const N: usize>(capacities: [usize; N]) -> ([Sender<u32>; N], [Receiver<u32>; N]) {
    let channels = capacities.map(bounded);
    (channels.each_ref().map(|(s, _)| s.clone()), channels.map(|(_, r)| r))
}

/// The item, who has it and who does not.
fn parts(missed: Undelivered<u32>) -> (u32, Vec<usize>, Vec<usize>) {
    let (has, lacks) = (missed.delivered_to().to_vec(), missed.missed_by().to_vec());
    (missed.into_message().expect("it is at hand"), has, lacks)
}

/// How many items each destination got.
fn delivered(report: &BroadcastReport) -> Vec<u64> {
    report.destinations().iter().map(DestinationReport::delivered).collect()
}
