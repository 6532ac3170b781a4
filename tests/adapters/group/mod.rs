//! Groups of tasks: all of them are awaited, and nothing they staged is lost.

mod endings;
mod executors;
mod results;
mod waiting;

use crate::support::neighbours::Bomb;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::support::{Ledger, block_on, poll_times, roll_back, yields};
use futures::executor::ThreadPool;
use futures::task::{FutureObj, Spawn, SpawnError};
use watershed::group::{Group, GroupReport};
use watershed::{
    BoxError, CancellationSource, Clock, Compensated, CompensationPolicy, Error, ErrorCode,
    Failure, ManualClock, OnFailure, RetryPolicy, Sleep, StepContext, Tick, labelled,
};

const SECOND: Duration = Duration::from_secs(1);

fn context(clock: &ManualClock) -> StepContext {
    StepContext::new("t").with_clock(Arc::new(clock.clone()))
}

/// A group that the first failure stops.
fn err_group<'a>(context: &StepContext) -> Group<'a> {
    Group::new(context)
}

/// A group that waits for all.
fn wait_group<'a>(context: &StepContext) -> Group<'a> {
    Group::new(context).on_failure(OnFailure::Continue)
}

/// Waits for a group with the tasks it has; the handle stays, to look at it.
fn closed<'a>(
    group: &Group<'a>,
) -> impl Future<Output = Result<GroupReport, Failure<GroupReport>>> + Send + Unpin + use<'a> {
    group.close();
    group.clone().wait()
}

async fn never() -> Result<(), BoxError> {
    std::future::pending().await
}

/// The names of the tasks whose errors these are.
fn tasks(errors: &[Error]) -> Vec<&str> {
    errors.iter().map(|error| error.metadata("task").unwrap_or("?")).collect()
}

/// An executor that answers in its own way.
struct Answers<A>(A);

impl<A: Fn(FutureObj<'static, ()>) -> Result<(), SpawnError>> Spawn for Answers<A> {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        (self.0)(future)
    }
}

async fn never_with_a_bomb() -> Result<(), BoxError> {
    let bomb = Bomb;
    let result = never().await;
    drop(bomb);
    result
}
