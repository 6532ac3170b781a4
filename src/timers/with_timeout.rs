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
use crate::diagnostics::COUNTERS;
use crate::error::{BoxError, Error, ErrorCode};
use crate::limits::{Exceeded, Limits};
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
    /// How the operation is undone when its time is over. Default:
    /// [`CompensationPolicy::sequential_reverse`]. It goes by the context's clock.
    /// [`CompensationPolicy::none`] leaves everything staged on the context's scope.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use watershed::timers::with_timeout;
    /// use watershed::{BoxError, CompensationPolicy, StepContext};
    ///
    /// let context = StepContext::new("orders");
    /// with_timeout(&context, Duration::from_millis(50), async |step| {
    ///     step.register_compensation(async || {});
    ///     std::future::pending::<Result<(), BoxError>>().await
    /// })
    /// .compensation(CompensationPolicy::none())
    /// .await
    /// .unwrap_err();
    /// assert_eq!(context.scope().clear(), 1);
    /// # });
    /// ```
    pub fn compensation(mut self, policy: CompensationPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// A token that ends the operation, beside that of the context.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use watershed::timers::with_timeout;
    /// use watershed::{BoxError, CancellationSource, ErrorCode, StepContext};
    ///
    /// let stop = CancellationSource::new();
    /// stop.cancel();
    /// let context = StepContext::new("orders");
    /// let error = with_timeout(&context, Duration::MAX, async |_| Ok::<_, BoxError>(()))
    ///     .cancellation(stop.token())
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.code(), ErrorCode::Canceled);
    /// # });
    /// ```
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }
}

impl<O, F, T, E> IntoFuture for WithTimeout<O>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;
    type IntoFuture = WithTimeoutFuture<O, F, T, E>;

    fn into_future(self) -> Self::IntoFuture {
        WithTimeoutFuture { operation: None, waiting: Some(self), running: None }
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

type Settle<T, E> = fn(Result<T, E>) -> Result<T, Error>;

pin_project! {
    /// The future of [`with_timeout`]. It is `Send` when the operation and its future are.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::future::IntoFuture;
    /// use std::time::Duration;
    /// use watershed::timers::with_timeout;
    /// use watershed::{BoxError, StepContext};
    ///
    /// let context = StepContext::new("orders");
    /// let operation = with_timeout(&context, Duration::MAX, async |_| Ok::<_, BoxError>(7));
    /// let mut future = Box::pin(operation.into_future());
    /// assert_eq!((&mut future).await?, 7);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    #[must_use = "an operation does nothing unless it is awaited"]
    pub struct WithTimeoutFuture<O, F, T, E> {
        #[pin]
        operation: Option<Contained<F, Settle<T, E>>>,
        waiting: Option<WithTimeout<O>>,
        running: Option<Running>,
    }

    /// Whoever still works for the operation hears that it is gone.
    impl<O, F, T, E> PinnedDrop for WithTimeoutFuture<O, F, T, E> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(running) = this.running {
                running.child.cancel();
            }
            this.operation.set(None);
        }
    }
}

/// An operation between its first poll and its result.
struct Running {
    limits: Limits,
    policy: CompensationPolicy,
    rollback: Option<(Error, Rollback)>,
    /// Behind the rollback, which puts back what it holds before the scope is handed over.
    child: ChildStep,
}

impl Running {
    fn poll_rollback(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let Some((error, rollback)) = &mut self.rollback else { return Poll::Pending };
        let result = ready!(Pin::new(rollback).poll(cx));
        Poll::Ready(error.clone().with_related(result.err().map(Error::from)))
    }
}

impl<O, F, T, E> WithTimeoutFuture<O, F, T, E>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    fn start(
        mut self: Pin<&mut Self>,
        start: WithTimeout<O>,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        let WithTimeout { context, timeout, cancellation, policy, operation } = start;
        policy.check()?;
        let child = ChildStep::new(&context, None, &cancellation);
        let token = child.step().cancellation().clone();
        let mut limits = Limits::new(context.clock(), token, Some(timeout))?;
        if let Poll::Ready(exceeded) = limits.poll_exceeded(cx) {
            return Err(exceeded.into_error("the operation"));
        }
        let step = child.step();
        // There before the operation is called: what it stages at once is not lost.
        let mut this = self.as_mut().project();
        *this.running = Some(Running { limits, policy, rollback: None, child });
        let settle: Settle<T, E> = |result| result.map_err(|error| Error::from(error.into()));
        let operation = Contained::call("the operation", || operation(step), settle)?;
        this.operation.set(Some(operation));
        Ok(())
    }

    fn poll_running(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        if let Some(start) = self.as_mut().project().waiting.take() {
            self.as_mut().start(start, cx)?;
        }
        let mut this = self.project();
        let Some(running) = this.running else {
            let error = Error::new(ErrorCode::Unspecified, "the operation had ended already");
            return Poll::Ready(Err(error));
        };
        if let Some(mut operation) = this.operation.as_mut().as_pin_mut() {
            if let Poll::Ready(result) = operation.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            let exceeded = ready!(running.limits.poll_exceeded(cx));
            running.child.cancel();
            let panicked = operation.abandon();
            this.operation.set(None);
            let cancelled = matches!(exceeded, Exceeded::Cancelled(_));
            let error = exceeded.into_error("the operation").with_related(panicked);
            if cancelled {
                return Poll::Ready(Err(error));
            }
            let rollback = running.child.context().roll_back(&running.policy);
            running.rollback = Some((error, rollback));
        }
        running.poll_rollback(cx).map(Err)
    }
}

impl<O, F, T, E> Future for WithTimeoutFuture<O, F, T, E>
where
    O: FnOnce(StepContext) -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What may panic here outside the operation and its rollback is the clock.
        let polled = panics::contain(|| self.as_mut().poll_running(cx));
        let mut this = self.project();
        let result = match polled {
            Ok(poll) => ready!(poll),
            Err(message) => {
                let panic = Error::panic("the clock", &message);
                let rollback = this.running.as_mut().and_then(|running| running.rollback.take());
                Err(match rollback {
                    Some((error, _)) => error.with_related([panic]),
                    None => panic,
                })
            }
        };
        this.operation.set(None);
        *this.running = None;
        COUNTERS.count_operation(&result);
        Poll::Ready(result)
    }
}

impl<O, F, T, E> fmt::Debug for WithTimeoutFuture<O, F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rolling_back = self.running.as_ref().is_some_and(|running| running.rollback.is_some());
        f.debug_struct("WithTimeoutFuture")
            .field("started", &self.waiting.is_none())
            .field("rolling_back", &rolling_back)
            .finish_non_exhaustive()
    }
}
