//! Groups: how many tasks run at once, what they return, and when a group is open.

mod limits;
mod open;
mod values;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{block_on, poll_times, roll_back, yields};
use futures::executor::ThreadPool;
use watershed::group::Group;
use watershed::{
    BoxError, CancellationSource, Compensated, CompensationPolicy, ErrorCode, ManualClock,
    OnFailure, StepContext,
};

fn context() -> StepContext {
    StepContext::new("t")
}

/// Counts who is there, and who was at most.
#[derive(Clone, Default)]
struct Gauge(Arc<(AtomicUsize, AtomicUsize)>);

impl Gauge {
    async fn pass(self, polls: usize) -> Result<(), BoxError> {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        yields(polls).await;
        self.0.0.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// Counts how many are alive.
#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
