//! One operation, again and again.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::race::{CombinatorOptions, EndedOperation, Entered, Race, RaceEvent, with_dropped};
use crate::cancellation::CancellationToken;
use crate::clock::Alarm;
use crate::error::{BoxError, Error, Gathered};
use crate::operation::{Limits, Operation, OperationFuture, option};
use crate::panics::{self, Held};
use crate::retry::RetryPolicy;
use crate::step::StepContext;
use crate::undo::{Rollback, RollbackReport};

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
/// [`RetryPolicy::only_if`] can end it sooner. Further:
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
/// use watershed::{RetryPolicy, StepContext, combinators::retry};
///
/// let context = StepContext::new("orders");
/// let mut attempts = 0;
/// let value = retry(&context, RetryPolicy::fixed(3, Duration::ZERO), |_| {
///     attempts += 1;
///     let attempt = attempts;
///     async move { if attempt < 3 { Err("no connection") } else { Ok(attempt) } }
/// });
/// assert_eq!(value.await?, 3);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub fn retry<O, F>(context: &StepContext, policy: RetryPolicy, operation: O) -> Retry<O>
where
    O: FnMut(StepContext) -> F,
{
    Retry {
        context: context.clone(),
        policy,
        operation: Held::new(operation),
        options: CombinatorOptions::default(),
    }
}

/// An operation that has not started, made by [`retry`]. Awaiting it starts it.
///
/// | option | default |
/// | --- | --- |
/// | [`compensation`](Retry::compensation) | sequential, in reverse, one attempt |
/// | [`timeout`](Retry::timeout), of all attempts and waits | never |
/// | [`grace`](Retry::grace) | 5 seconds |
/// | [`cancellation`](Retry::cancellation) | that of the context alone |
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use watershed::{BoxError, ErrorCode, RetryPolicy, StepContext, combinators::retry};
///
/// let context = StepContext::new("orders");
/// let hourly = RetryPolicy::fixed(24, Duration::from_secs(3600));
/// let connecting = retry(&context, hourly, async |_| Err::<(), _>("no connection"))
///     .timeout(Duration::from_millis(1));
/// assert_eq!(connecting.await.unwrap_err().code(), ErrorCode::Timeout);
/// # });
/// ```
#[must_use = "an operation does nothing unless it is awaited"]
pub struct Retry<O> {
    context: StepContext,
    policy: RetryPolicy,
    operation: Held<O>,
    options: CombinatorOptions,
}

impl<O> Retry<O> {
    option!(compensation: options.compensation);
    option!(timeout: options.timeout);
    option!(grace: options.grace);
    option!(cancellation: options.cancellation);
}

impl<O, F, T, E> IntoFuture for Retry<O>
where
    O: FnMut(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;
    type IntoFuture = OperationFuture<Self, RunningRetry<O, F, T, E>>;

    fn into_future(self) -> Self::IntoFuture {
        OperationFuture::new(self)
    }
}

impl<O, F, T, E> Operation for Retry<O>
where
    O: FnMut(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;
    type Running = RunningRetry<O, F, T, E>;
    const COUNTED: bool = true;

    fn start(self) -> Self::Running {
        let Self { context, policy, operation, options } = self;
        let mut running = RunningRetry {
            context,
            policy,
            operation,
            options,
            limits: None,
            stage: RetryStage::Next,
            history: History::default(),
        };
        if let Err(error) = running.begin() {
            running.stage = RetryStage::Refused(error);
        }
        running
    }

    fn poll(running: Pin<&mut Self::Running>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        running.get_mut().poll(cx)
    }
}

/// An operation that is retried, between the first poll and the result.
#[expect(missing_debug_implementations, reason = "nobody can name it")]
pub struct RunningRetry<O, F, T, E> {
    context: StepContext,
    policy: RetryPolicy,
    operation: Held<O>,
    options: CombinatorOptions,
    /// What ends all attempts and waits.
    limits: Option<Limits>,
    stage: RetryStage<F, T, E>,
    history: History,
}

impl<O, F, T, E> Unpin for RunningRetry<O, F, T, E> {}

type Attempting<F, T, E> = Race<Entered<fn(StepContext) -> F, F, T, E>>;

enum RetryStage<F, T, E> {
    Refused(Error),
    /// An attempt is to begin.
    Next,
    Attempt {
        race: Attempting<F, T, E>,
        ended: Ends,
    },
    Undoing {
        /// Before the race, which hands the scope over when the rollback has put back what it holds.
        rollback: Rollback,
        _race: Attempting<F, T, E>,
        ended: Ends,
    },
    Waiting {
        alarm: Alarm,
        /// Between attempts that do not wait, others get their turn.
        yielded: bool,
    },
}

/// How an attempt ended.
#[derive(Default)]
struct Ends {
    /// Why the retrying was ended from outside.
    ending: Option<Error>,
    failure: Option<Error>,
}

impl<O, F, T, E> RunningRetry<O, F, T, E>
where
    O: FnMut(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    fn begin(&mut self) -> Result<(), Error> {
        self.policy.validate()?;
        self.options.compensation.check()?;
        let tokens = [self.context.cancellation().clone(), self.options.cancellation.clone()];
        let token = CancellationToken::linked(tokens);
        self.limits = Some(Limits::new(self.context.clock(), token, self.options.timeout)?);
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        loop {
            let error = match &mut self.stage {
                RetryStage::Refused(error) => error.clone(),
                RetryStage::Next => match self.attempt() {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                RetryStage::Attempt { .. } => match ready!(self.poll_attempt(cx)) {
                    Some(value) => return Poll::Ready(Ok(value)),
                    None => continue,
                },
                RetryStage::Undoing { rollback, .. } => {
                    let undone = ready!(Pin::new(rollback).poll(cx)).map_err(Error::from);
                    match self.undone(undone) {
                        Ok(()) => continue,
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                RetryStage::Waiting { .. } => match ready!(self.poll_wait(cx)) {
                    Ok(()) => {
                        self.stage = RetryStage::Next;
                        continue;
                    }
                    Err(error) => error,
                },
            };
            return Poll::Ready(Err(std::mem::take(&mut self.history).into_error(error)));
        }
    }

    /// Begins the next attempt.
    fn attempt(&mut self) -> Result<(), Error> {
        let mut race =
            Race::new(&self.context, "the operation", &self.options, self.limits.as_ref())?;
        self.history.attempts = self.history.attempts.saturating_add(1);
        let Some(operation) = self.operation.get_mut() else { return Ok(()) };
        race.add(0, |step| Entered::called(0, || operation(step)));
        self.stage = RetryStage::Attempt { race, ended: Ends::default() };
        Ok(())
    }

    /// Ready when the attempt has ended: with the value, if it succeeded.
    fn poll_attempt(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let RetryStage::Attempt { race, ended } = &mut self.stage else { return Poll::Ready(None) };
        loop {
            match ready!(race.poll_next(cx)) {
                RaceEvent::Ended(EndedOperation { result, .. }) => match result {
                    Ok(value) if ended.ending.is_none() => {
                        if let Some(value) = value.take() {
                            return Poll::Ready(Some(value));
                        }
                    }
                    result => ended.failure = result.err(),
                },
                RaceEvent::Over(error) => ended.ending = Some(error),
                RaceEvent::Dropped(dropped) => self.history.dropped = dropped,
                RaceEvent::AllEnded => break,
            }
        }
        let stage = std::mem::replace(&mut self.stage, RetryStage::Next);
        if let RetryStage::Attempt { race, ended } = stage {
            let rollback = race.roll_back(&self.options.compensation);
            self.stage = RetryStage::Undoing { rollback, _race: race, ended };
        }
        Poll::Ready(None)
    }

    /// Goes on behind the rollback of an attempt, or gives the error of all.
    fn undone(&mut self, undone: Result<RollbackReport, Error>) -> Result<(), Error> {
        let stage = std::mem::replace(&mut self.stage, RetryStage::Next);
        let RetryStage::Undoing { ended: Ends { ending, failure }, .. } = stage else {
            return Ok(());
        };
        if let Some(ending) = ending {
            if let Some(failure) = failure {
                drop(self.history.failures.add(0, failure));
            }
            let error = std::mem::take(&mut self.history).into_error(ending);
            return Err(error.with_related(undone.err()));
        }
        let Some(error) = failure else { return Ok(()) };
        let wait = self.policy.wait_after_error(self.history.attempts, &error);
        let (Some(wait), Ok(_)) = (wait, &undone) else {
            let error = std::mem::take(&mut self.history).into_error(error);
            return Err(error.with_related(undone.err()));
        };
        self.history.add(error, wait);
        let alarm = panics::contain(|| Alarm::after(self.context.clock(), wait));
        match alarm.unwrap_or_else(|message| Err(Error::panic("the clock", &message))) {
            Ok(alarm) => self.stage = RetryStage::Waiting { alarm, yielded: !wait.is_zero() },
            Err(error) => return Err(std::mem::take(&mut self.history).into_error(error)),
        }
        Ok(())
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { stage, limits, .. } = self;
        let (RetryStage::Waiting { alarm, yielded }, Some(limits)) = (stage, limits) else {
            return Poll::Ready(Ok(()));
        };
        let polled = panics::contain(|| {
            if let Poll::Ready(exceeded) = limits.poll_exceeded(cx) {
                return Poll::Ready(Err(exceeded.into_error("the operation")));
            }
            if !std::mem::replace(yielded, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            alarm.poll(cx).map(Ok)
        });
        polled.unwrap_or_else(|message| Poll::Ready(Err(Error::panic("the clock", &message))))
    }
}

impl<O> fmt::Debug for Retry<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("context", &self.context)
            .field("policy", &self.policy)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
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
