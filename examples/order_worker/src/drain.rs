//! The drain: all sources, one handler, what becomes of messages that fail, and how it ends.

use std::time::Duration;

use watershed::{
    CompensationPolicy, Error, Failure, FanInReport, OnFailure, Progress, RetryPolicy, StepContext,
    fan_in,
};

use crate::config;
use crate::letters::Letters;
use crate::message::Message;
use crate::signals::Stop;
use crate::sources::Sources;
use crate::worker::{Worker, may_pass};

/// The longest wait between two attempts at a message, or at an undo.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long what a second signal has cancelled may take to be undone and given back.
const GRACE: Duration = Duration::from_secs(10);

/// Storing a dead letter has no limit of the drain's: whoever stores it waits for its place.
const FOR_EVER: Duration = Duration::from_hours(365 * 24);

/// How a drain ended.
pub(crate) struct Drained {
    pub(crate) outcome: Result<FanInReport, Failure<FanInReport>>,
    /// What could not be undone: their messages come again, and finish or undo it then.
    pub(crate) left: usize,
}

impl Drained {
    /// What it did, however it ended.
    pub(crate) fn report(&self) -> &FanInReport {
        self.outcome.as_ref().unwrap_or_else(Failure::report)
    }

    /// What it failed with.
    pub(crate) fn error(&self) -> Option<&Error> {
        self.outcome.as_ref().err().map(Failure::error)
    }
}

/// Drains the sources until it is stopped, or one of them fails for good.
pub(crate) async fn drain(
    worker: Worker,
    sources: Sources,
    letters: Letters,
    settings: &config::Worker,
    stop: &Stop,
    progress: &Progress,
) -> Drained {
    let Sources { fixed, assigned, links, .. } = sources;
    // An undo that fails for good would make a dead letter of its message. The store being away is no
    // reason for that: it is tried as long as there is time.
    let undoing = CompensationPolicy::sequential_reverse()
        .retry(RetryPolicy::exponential(u32::MAX, Duration::from_millis(100)).cap(LONGEST_WAIT))
        .attempt_timeout(settings.message_timeout);
    // What is no valid order does not become one. What was too slow, or has panicked, may pass.
    let attempts = settings.retries.saturating_add(1);
    let retrying = RetryPolicy::exponential(attempts, Duration::from_millis(200))
        .cap(LONGEST_WAIT)
        .only_if(may_pass);
    let context = StepContext::new("orders");

    let outcome = fan_in(&context, fixed, async |message: Message, step: StepContext| {
        worker.handle(message, step).await
    })
    .incoming(assigned)
    .concurrency(settings.concurrency)
    .ordered_by(|message: &Message| message.order().id.clone())
    .message_timeout(settings.message_timeout)
    .retry(retrying)
    .message_compensation(undoing.clone())
    .on_failure(OnFailure::Continue)
    .dead_letters(async |letter| letters.put_aside(letter).await)
    .dead_letter_timeout(FOR_EVER)
    .progress(progress)
    .shutdown(stop.finish())
    .finish_within(settings.finish_within)
    .cancellation(stop.undo())
    .grace(GRACE)
    .await;
    drop(links);

    // What the drain had no time to undo by itself.
    let mut left = context.scope().len();
    if left > 0 {
        tracing::warn!(left, "undoing what the drain had no time for");
        let undoing = undoing.retry(RetryPolicy::exponential(6, Duration::from_millis(100)));
        if let Err(failure) = context.roll_back(&undoing).await {
            tracing::error!("not undone: {:#}", failure.error());
        }
        left = context.scope().len();
    }
    Drained { outcome, left }
}
