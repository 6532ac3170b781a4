//! An operation with a deadline: undone when it passes it, left to the caller otherwise.

mod time;
mod undoing;

use std::future::{IntoFuture, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::{Ledger, block_on, poll_times, roll_back, yields};
use watershed::timers::with_timeout;
use watershed::{
    BoxError, CancellationSource, Clock, CompensationPolicy, Error, ErrorCode, ManualClock,
    RetryPolicy, Sleep, StepContext, Tick, labelled,
};

const SECOND: Duration = Duration::from_secs(1);

fn context(clock: &ManualClock) -> StepContext {
    StepContext::new("t").with_clock(Arc::new(clock.clone()))
}

async fn never() -> Result<(), BoxError> {
    pending().await
}
