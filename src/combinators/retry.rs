//! One operation, again and again.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::race::{Ended, Event, Race, enter};
use crate::cancellation::CancellationToken;
use crate::context::StepContext;
use crate::error::{BoxError, Error};
use crate::execution::ExecutionPolicy;
use crate::limits::{Exceeded, Limits};

/// Runs an operation until it succeeds or the policy gives up.
///
/// Every attempt is a step of its own. What a failed attempt did is undone before the next one
/// starts; the compensations of the attempt that succeeded are staged on the context's scope. Waits
/// go by the context's clock.
///
/// # Errors
///
/// The error of the last attempt, with those of the earlier ones attached in their order, and as
/// metadata `attempts` and, if there were any, `waits` (between the attempts, as in `100ms, 200ms`).
/// [`RetryPolicy::only_if`](crate::RetryPolicy::only_if) can end it sooner. Further:
///
/// - a rollback that fails ends the retrying: its error is attached last, and what could not be
///   undone is staged on the context's scope
/// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled) when the context's token is cancelled:
///   before the first attempt the operation is not called, and during a wait there is no further
///   one; during an attempt it is told to stop and awaited for the grace, and what it did is
///   undone
///
/// # Cancel safety
///
/// Dropping the future drops the attempt, or its rollback, where it is; every compensation that has
/// not succeeded is on the context's scope.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::{num::NonZeroU32, time::Duration};
/// use watershed::{ExecutionPolicy, RetryPolicy, StepContext, combinators::retry_with_policy};
///
/// let context = StepContext::new("orders");
/// let three = NonZeroU32::new(3).unwrap();
/// let policy = ExecutionPolicy::new().retry(RetryPolicy::fixed(three, Duration::ZERO));
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
    mut operation: impl FnMut(StepContext) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    let mut history = History::default();
    loop {
        let mut race = Race::new(context, &CancellationToken::never(), None, policy.grace);
        if let Some(exceeded) = race.exceeded() {
            return Err(history.into_error(exceeded.into_error("the operation")));
        }
        history.attempts += 1;
        race.add(enter(race.step(), 0, &mut operation));
        let mut ending = None;
        let mut failure = None;
        loop {
            match race.next().await {
                Event::Ended(Ended { result: Ok(value), .. }) if ending.is_none() => {
                    return Ok(value);
                }
                Event::Ended(Ended { result, .. }) => failure = result.err(),
                Event::Exceeded(exceeded) => ending = Some(exceeded.into_error("the operation")),
                Event::Dropped(_) => {}
                Event::AllEnded => break,
            }
        }
        let rollback = race.roll_back(&policy.compensation).await;
        drop(race);
        if let Some(ending) = ending {
            history.failures.extend(failure);
            return Err(history.into_error(ending).with_related(rollback.err()));
        }
        let Some(error) = failure else { continue };
        let wait = policy.retry.wait_after_error(history.attempts, &error);
        let (Some(wait), Ok(_)) = (wait, &rollback) else {
            return Err(history.into_error(error).with_related(rollback.err()));
        };
        history.failures.push(error);
        history.waits.push(wait);
        if let Some(exceeded) = sleep(context, wait).await {
            return Err(history.into_error(exceeded.into_error("the operation")));
        }
    }
}

/// Waits, unless the context's token is cancelled.
async fn sleep(context: &StepContext, wait: Duration) -> Option<Exceeded> {
    let clock = context.clock();
    let mut limits = Limits::new(clock, context.cancellation().clone(), None);
    let mut sleep = clock.sleep_until(clock.now() + wait);
    let waited = poll_fn(|cx| {
        if let Poll::Ready(exceeded) = limits.poll_exceeded(cx) {
            return Poll::Ready(Some(exceeded));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    });
    pin!(waited).await
}

/// What has happened so far.
#[derive(Default)]
struct History {
    attempts: u32,
    waits: Vec<Duration>,
    failures: Vec<Error>,
}

impl History {
    fn into_error(self, error: Error) -> Error {
        let error = error.with_metadata("attempts", self.attempts).with_related(self.failures);
        if self.waits.is_empty() {
            return error;
        }
        let waits: Vec<_> = self.waits.iter().map(|wait| format!("{wait:?}")).collect();
        error.with_metadata("waits", waits.join(", "))
    }
}
