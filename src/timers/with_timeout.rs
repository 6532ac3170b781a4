//! An operation with a deadline, undone when it passes it.
//!
//! The operation runs as a child step. While its time lasts the future only drives it; once the
//! time is over the operation is dropped and the future drives the rollback of the child's scope.
//! Whatever the child's scope holds at the end goes to the context's scope with the child.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::cancellation::CancellationToken;
#[cfg(doc)]
use crate::error::ErrorCode;
use crate::error::{BoxError, Error};
use crate::operation::{Exceeded, Limits, Operation, OperationFuture, option};
use crate::outcome::Contained;
use crate::panics;
use crate::step::{ChildStep, StepContext};
use crate::undo::{CompensationPolicy, Rollback};

/// Runs an operation that must be done within `timeout`, counted from the first poll by the
/// context's clock.
///
/// The operation is called with a [`StepContext`] of its own. When its time is over it is dropped,
/// the compensations it has registered there run, and only then the timeout is reported. However
/// else it ends, its compensations are staged on the context's scope and the caller decides. A
/// result that is there when the operation is polled counts, however late that poll is.
///
/// Zero times out before the operation is called; [`Duration::MAX`] never does.
///
/// # Errors
///
/// - [`ErrorCode::Timeout`] with its `duration` as metadata. An error of the rollback is attached
///   ([`Error::related`]); what could not be undone is staged on the context's scope.
/// - [`ErrorCode::Canceled`] when the context's token is cancelled: the operation is dropped. A
///   rollback that has begun is not stopped by it.
/// - the operation's own error; one that is not an [`Error`] yet becomes
///   [`ErrorCode::Unspecified`] with the error as its cause
/// - [`ErrorCode::Clock`] when the clock cannot wait: the operation is not called
/// - [`ErrorCode::Panic`] when the operation or the clock panicked
///
/// # Cancel safety
///
/// Dropping the future drops the operation, or its rollback, where it is. Every compensation that
/// has not succeeded is staged on the context's scope.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use watershed::timers::with_timeout;
/// use watershed::{BoxError, ErrorCode, StepContext};
///
/// let context = StepContext::new("orders");
/// let outcome = with_timeout(&context, Duration::from_millis(50), async |step| {
///     step.register_compensation(async || { /* release the seat */ });
///     std::future::pending::<Result<(), BoxError>>().await
/// })
/// .await;
/// assert_eq!(outcome.unwrap_err().code(), ErrorCode::Timeout);
/// assert!(context.scope().is_empty(), "the seat was released");
/// # });
/// ```
pub fn with_timeout<O, F, T, E>(
    context: &StepContext,
    timeout: Duration,
    operation: O,
) -> WithTimeout<O>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    let cancellation = CancellationToken::never();
    let policy = CompensationPolicy::default();
    WithTimeout { context: context.clone(), timeout, cancellation, policy, operation }
}

/// An operation with a deadline that has not started, made by [`with_timeout`]. Awaiting it starts
/// it.
///
/// | option | default |
/// | --- | --- |
/// | [`compensation`](WithTimeout::compensation) | sequential, in reverse, one attempt |
/// | [`cancellation`](WithTimeout::cancellation) | that of the context alone |
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use watershed::timers::with_timeout;
/// use watershed::StepContext;
///
/// let context = StepContext::new("orders");
/// let second = Duration::from_secs(1);
/// let number = with_timeout(&context, second, async |_| "17".parse::<u32>()).await?;
/// assert_eq!(number, 17);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "an operation does nothing unless it is awaited"]
pub struct WithTimeout<O> {
    context: StepContext,
    timeout: Duration,
    cancellation: CancellationToken,
    policy: CompensationPolicy,
    operation: O,
}

impl<O> WithTimeout<O> {
    option!(compensation: policy);
    option!(cancellation: cancellation);
}

impl<O, F, T, E> IntoFuture for WithTimeout<O>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;
    type IntoFuture = OperationFuture<Self, RunningTimeout<F, T, E>>;

    fn into_future(self) -> Self::IntoFuture {
        OperationFuture::new(self)
    }
}

impl<O> fmt::Debug for WithTimeout<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithTimeout")
            .field("context", &self.context)
            .field("timeout", &self.timeout)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

type TimeoutSettle<T, E> = fn(Result<T, E>) -> Result<T, Error>;

pin_project! {
    /// An operation between its first poll and its result.

    pub struct RunningTimeout<F, T, E> {
        #[pin]
        operation: Option<Contained<F, TimeoutSettle<T, E>>>,
        // Why it was not called.
        refused: Option<Error>,
        begun: Option<Begun>,
    }

    /// Whoever still works for the operation hears that it is gone.
    impl<F, T, E> PinnedDrop for RunningTimeout<F, T, E> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(begun) = this.begun {
                begun.child.cancel();
            }
            this.operation.set(None);
        }
    }
}

/// The child step of an operation, and how long it may take.
struct Begun {
    limits: Limits,
    policy: CompensationPolicy,
    rollback: Option<(Error, Rollback)>,
    /// Behind the rollback, which puts back what it holds before the scope is handed over.
    child: ChildStep,
}

impl Begun {
    fn poll_rollback(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let Some((error, rollback)) = &mut self.rollback else { return Poll::Pending };
        let result = ready!(Pin::new(rollback).poll(cx));
        Poll::Ready(error.clone().with_related(result.err().map(Error::from)))
    }
}

impl<F, T, E> RunningTimeout<F, T, E>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    fn begin<O>(&mut self, start: WithTimeout<O>) -> Result<(), Error>
    where
        O: FnOnce(StepContext) -> F,
    {
        let WithTimeout { context, timeout, cancellation, policy, operation } = start;
        policy.check()?;
        let child = ChildStep::new(&context, None, &cancellation);
        let token = child.step().cancellation().clone();
        let limits = Limits::new(context.clock(), token, Some(timeout))?;
        if let Some(exceeded) = limits.exceeded() {
            return Err(exceeded.into_error("the operation"));
        }
        let step = child.step();
        // There before the operation is called: what it stages at once is not lost.
        self.begun = Some(Begun { limits, policy, rollback: None, child });
        let settle: TimeoutSettle<T, E> =
            |result| result.map_err(|error| Error::from(error.into()));
        self.operation = Some(Contained::call("the operation", || operation(step), settle)?);
        Ok(())
    }

    fn poll_begun(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        let mut this = self.project();
        if let Some(error) = this.refused.take() {
            return Poll::Ready(Err(error));
        }
        let Some(begun) = this.begun else { return Poll::Pending };
        if let Some(mut operation) = this.operation.as_mut().as_pin_mut() {
            if let Poll::Ready(result) = operation.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            let exceeded = ready!(begun.limits.poll_exceeded(cx));
            begun.child.cancel();
            let panicked = operation.abandon();
            this.operation.set(None);
            let cancelled = matches!(exceeded, Exceeded::Cancelled(_));
            let error = exceeded.into_error("the operation").with_related(panicked);
            if cancelled {
                return Poll::Ready(Err(error));
            }
            let rollback = begun.child.context().roll_back(&begun.policy);
            begun.rollback = Some((error, rollback));
        }
        begun.poll_rollback(cx).map(Err)
    }
}

impl<O, F, T, E> Operation for WithTimeout<O>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;
    type Running = RunningTimeout<F, T, E>;
    const COUNTED: bool = true;

    fn start(self) -> Self::Running {
        let mut running = RunningTimeout { operation: None, refused: None, begun: None };
        // What may panic here outside the operation is the clock.
        running.refused = panics::contain(|| running.begin(self))
            .unwrap_or_else(|message| Err(Error::panic("the clock", &message)))
            .err();
        running
    }

    fn poll(mut running: Pin<&mut Self::Running>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = panics::contain(|| running.as_mut().poll_begun(cx));
        let result = match polled {
            Ok(poll) => ready!(poll),
            Err(message) => {
                let panic = Error::panic("the clock", &message);
                let begun = running.as_mut().project().begun;
                Err(match begun.as_mut().and_then(|begun| begun.rollback.take()) {
                    Some((error, _)) => error.with_related([panic]),
                    None => panic,
                })
            }
        };
        let mut this = running.project();
        this.operation.set(None);
        *this.begun = None;
        Poll::Ready(result)
    }
}
