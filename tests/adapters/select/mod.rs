//! `channels::select`: one winner a run, and nothing taken from the others.

mod dropping;
mod interruptions;
mod winning;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::support::{Ledger, block_on, filled, left_in, poll_times, roll_back, yields};
use futures::future::{pending, ready};
use futures::{FutureExt, StreamExt, stream};
use watershed::channels::Select;
use watershed::{
    BoxError, CancellationSource, Clock, Compensated, Error, ErrorCode, ManualClock, Sleep, Source,
    StepContext, Tick,
};

const SECOND: Duration = Duration::from_secs(1);

fn context(clock: &ManualClock) -> StepContext {
    StepContext::new("t").with_clock(Arc::new(clock.clone()))
}
