//! One operation, again and again.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use super::held::Held;
use super::race::{Ended, Event, Race, enter, with_dropped};
use crate::cancellation::CancellationToken;
use crate::clock::Alarm;
use crate::diagnostics::COUNTERS;
use crate::error::{BoxError, Error, Gathered};
use crate::execution::ExecutionPolicy;
use crate::limits::Limits;
use crate::panics;
use crate::step::StepContext;

/// Runs an operation until it succeeds or the policy gives up.
///
/// Every attempt is a step of its own. What a failed attempt did is undone before the next one
/// starts; the compensations of the attempt that succeeded are staged on the context's scope. Waits
/// go by the context's clock.
///
/// # Errors
///
/// The error of the last attempt, with those of the earlier ones attached in their order (the first
/// 31; the others are counted by [`related_total`](Error::related_total)), and as metadata `attempts`
/// and, if there were any, `waits` (between the attempts, the first 32, as in `100ms, 200ms`).
/// [`RetryPolicy::only_if`](crate::RetryPolicy::only_if) can end it sooner. Further:
///
/// - a rollback that fails ends the retrying: its error is attached last, and what could not be
///   undone is staged on the context's scope
/// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled) when the context's token is cancelled:
///   before the first attempt the operation is not called, and during a wait there is no further
///   one; during an attempt it is told to stop and awaited for the grace (`dropped_handlers` is 1
///   in the metadata when it was dropped then), and what it did is undone; a rollback goes on to
///   its end first
/// - [`ErrorCode::Validation`](crate::ErrorCode::Validation) for a policy of no attempts
/// - [`ErrorCode::Clock`](crate::ErrorCode::Clock) when the clock cannot wait,
///   [`ErrorCode::Panic`](crate::ErrorCode::Panic) when it panicked
///
/// # Cancel safety
///
/// Dropping the future drops the attempt, or its rollback, where it is; every compensation that has
/// not succeeded is on the context's scope.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use watershed::{ExecutionPolicy, RetryPolicy, StepContext, combinators::retry_with_policy};
///
/// let context = StepContext::new("orders");
/// let policy = ExecutionPolicy::new().retry(RetryPolicy::fixed(3, Duration::ZERO));
/// let mut attempts = 0;
/// let value = retry_with_policy(&context, &policy, |_| {
///     attempts += 1;
///     let attempt = attempts;
///     async move { if attempt < 3 { Err("no connection") } else { Ok(attempt) } }
/// });
/// assert_eq!(value.await?, 3);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub async fn retry_with_policy<T, E, F>(
    context: &StepContext,
    policy: &ExecutionPolicy,
    operation: impl FnMut(StepContext) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    let result = retry(context, policy, operation).await;
    COUNTERS.count_operation(&result);
    result
}

async fn retry<T, E, F>(
    context: &StepContext,
    policy: &ExecutionPolicy,
    mut operation: impl FnMut(StepContext) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    policy.retry.validate()?;
    policy.compensation.check()?;
    let mut history = History::default();
    loop {
        let (token, what) = (CancellationToken::never(), "the operation");
        let mut race = match Race::new(context, what, &token, None, policy.grace) {
            Ok(race) => race,
            Err(error) => return Err(history.into_error(error)),
        };
        history.attempts = history.attempts.saturating_add(1);
        race.add(0, |step| enter(step, 0, Held::new(&mut operation)));
        let mut ending = None;
        let mut failure = None;
        loop {
            match race.next().await {
                Event::Ended(Ended { result, .. }) => match result {
                    Ok(value) if ending.is_none() => {
                        if let Some(value) = value.take() {
                            return Ok(value);
                        }
                    }
                    result => failure = result.err(),
                },
                Event::Over(error) => ending = Some(error),
                Event::Dropped(dropped) => history.dropped = dropped,
                Event::AllEnded => break,
            }
        }
        let rollback = race.roll_back(&policy.compensation).await;
        drop(race);
        if let Some(ending) = ending {
            if let Some(failure) = failure {
                drop(history.failures.add(0, failure));
            }
            return Err(history.into_error(ending).with_related(rollback.err()));
        }
        let Some(error) = failure else { continue };
        let wait = policy.retry.wait_after_error(history.attempts, &error);
        let (Some(wait), Ok(_)) = (wait, &rollback) else {
            return Err(history.into_error(error).with_related(rollback.err()));
        };
        history.add(error, wait);
        if let Err(error) = pause(context, wait).await {
            return Err(history.into_error(error));
        }
    }
}

/// Waits between two attempts, unless the context's token is cancelled.
async fn pause(context: &StepContext, wait: Duration) -> Result<(), Error> {
    let panicked = |message: String| Error::panic("the clock", &message);
    let mut limits = Limits::by_token(context.cancellation().clone());
    let alarm = panics::contain(|| Alarm::after(context.clock(), wait));
    let mut alarm = alarm.map_err(panicked)??;
    let mut yielded = !wait.is_zero();
    poll_fn(|cx| {
        if let Poll::Ready(exceeded) = limits.poll_exceeded(cx) {
            return Poll::Ready(Err(exceeded.into_error("the operation")));
        }
        if !std::mem::replace(&mut yielded, true) {
            // Between attempts that do not wait, others get their turn.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match panics::contain(|| alarm.poll(cx)) {
            Ok(poll) => poll.map(Ok),
            Err(message) => Poll::Ready(Err(panicked(message))),
        }
    })
    .await
}

/// So many waits are told in full.
const WAITS_TOLD: usize = 32;

/// What has happened so far. However long that goes on, it does not grow.
#[derive(Default)]
struct History {
    attempts: u32,
    /// The first of them.
    waits: Vec<Duration>,
    more_waits: u64,
    failures: Gathered,
    /// Whether the attempt that was told to stop was dropped when the grace was over.
    dropped: usize,
}

impl History {
    fn add(&mut self, error: Error, wait: Duration) {
        drop(self.failures.add(0, error));
        if self.waits.len() < WAITS_TOLD {
            self.waits.push(wait);
        } else {
            self.more_waits += 1;
        }
    }

    fn into_error(self, error: Error) -> Error {
        let error = error.with_metadata("attempts", self.attempts).with_gathered(self.failures);
        // An operation that retries something itself has said how long it waited.
        let error = with_dropped(error, self.dropped).without_metadata("waits");
        if self.waits.is_empty() {
            return error;
        }
        let mut waits: Vec<_> = self.waits.iter().map(|wait| format!("{wait:?}")).collect();
        if self.more_waits > 0 {
            waits.push(format!("{} more", self.more_waits));
        }
        error.with_metadata("waits", waits.join(", "))
    }
}
