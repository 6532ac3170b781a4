//! Waiting for all tasks, whatever they return.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures::task::Spawn;

use super::members::Members;
use super::report::GroupReport;
use super::wait::GroupWait;
use crate::error::Error;
use crate::outcome::HandlerOutput;
use crate::step::StepContext;

/// Tasks of one step, all of which are awaited.
///
/// Each task is a child step of the context with a scope of its own. As soon as a task has ended,
/// however it has, what it staged is on the context's scope; the caller decides what becomes of it.
/// A failure stops no other task.
///
/// When the context's token is cancelled or the timeout is over, the tasks are told by their token
/// and awaited, for as long as the [`grace`](WaitGroup::grace) says.
///
/// | option | default |
/// | --- | --- |
/// | [`timeout`](WaitGroup::timeout) | never |
/// | [`grace`](WaitGroup::grace) | however long they take |
///
/// A group is awaited once; a task that is added after the end is refused. Tasks in place may
/// borrow what lives longer than the group.
///
/// # Cancel safety
///
/// Dropping the group drops the tasks in place where they are, and tells those on an executor to
/// stop. Every compensation goes to the context's scope.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use watershed::group::WaitGroup;
/// use watershed::{BoxError, StepContext};
///
/// let sum = AtomicU32::new(0);
/// let group = WaitGroup::new(&StepContext::new("orders"));
/// for number in [1, 2, 3] {
///     let sum = &sum;
///     group.go(None, move |_| async move {
///         sum.fetch_add(number, Ordering::Relaxed);
///         Ok::<_, BoxError>(())
///     })?;
/// }
/// assert_eq!(group.wait().await?.succeeded(), 3);
/// assert_eq!(sum.load(Ordering::Relaxed), 6);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a group's tasks do nothing unless it is awaited"]
pub struct WaitGroup<'a> {
    members: Members<'a>,
}

impl<'a> WaitGroup<'a> {
    /// A group without tasks.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::group::WaitGroup;
    /// let group = WaitGroup::new(&watershed::StepContext::new("orders"));
    /// assert_eq!(group.wait().await?.completions(), 0);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn new(context: &StepContext) -> Self {
        Self { members: Members::apart(context) }
    }

    /// One absolute deadline for the tasks, counted from the first poll of the wait by the
    /// context's clock. Default: never. Zero times out before a task in place begins;
    /// [`Duration::MAX`] never does.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use watershed::group::WaitGroup;
    /// use watershed::{BoxError, ErrorCode, StepContext};
    ///
    /// let group = WaitGroup::new(&StepContext::new("orders")).timeout(Duration::ZERO);
    /// group.go("never", |_| std::future::pending::<Result<(), BoxError>>())?;
    /// assert_eq!(group.wait().await.unwrap_err().code(), ErrorCode::Timeout);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.members.settings.timeout = Some(timeout);
        self
    }

    /// How long the tasks are awaited, by the context's clock, after the group was told to stop.
    /// Those that are not done by then are dropped, and the error says how many. Default: however
    /// long they take.
    ///
    /// A task on an executor is dropped there, at its next poll; it goes on without its group until
    /// then, and what it stages goes to the context's scope.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use watershed::group::WaitGroup;
    /// use watershed::{BoxError, StepContext};
    ///
    /// let group = WaitGroup::new(&StepContext::new("orders"))
    ///     .timeout(Duration::from_millis(1))
    ///     .grace(Duration::ZERO);
    /// group.go("deaf", |_| std::future::pending::<Result<(), BoxError>>())?;
    /// let error = group.wait().await.unwrap_err();
    /// assert_eq!(error.metadata("dropped_tasks"), Some("1"));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.members.settings.grace = Some(grace);
        self
    }

    /// Adds a task that is polled in place, by whoever awaits the group, and begins there.
    ///
    /// `work` is called with a [`StepContext`] of its own, called `name`, or `NAME.waitgroup` after the
    /// group's context. What it returns is any [`HandlerOutput`](crate::HandlerOutput). Tasks can be
    /// added while the group is being awaited, by whoever has a reference to it. A task that has
    /// not begun when the group is told to stop does not begin.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation) when the group has ended: `work` is
    /// not called.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::group::WaitGroup;
    /// use watershed::{BoxError, Compensated, StepContext};
    ///
    /// let context = StepContext::new("orders");
    /// let group = WaitGroup::new(&context);
    /// group.go("seat", async |step| {
    ///     assert_eq!(step.name(), "seat");
    ///     step.register_compensation(async || { /* free the seat */ });
    ///     Ok::<_, BoxError>(())
    /// })?;
    /// group.go(None, async |step| {
    ///     assert_eq!(step.name(), "orders.waitgroup");
    ///     Ok::<_, BoxError>(Compensated::new(()).with_compensation(async || {}))
    /// })?;
    /// group.wait().await?;
    /// assert_eq!(context.scope().clear(), 2);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn go<'n, W, F>(&self, name: impl Into<Option<&'n str>>, work: W) -> Result<(), Error>
    where
        W: FnOnce(StepContext) -> F + Send + 'a,
        F: Future<Output: HandlerOutput> + Send + 'a,
    {
        self.members.go(name.into(), work)
    }

    /// The same as [`go`](WaitGroup::go) on an executor of the user's: the task begins and goes on
    /// whether or not the group is being awaited.
    ///
    /// A task that its executor drops has failed with
    /// [`ErrorCode::Canceled`](crate::ErrorCode::Canceled); its compensations are kept like those
    /// of any other.
    ///
    /// # Errors
    ///
    /// In each case `work` is not called and does not count as added.
    ///
    /// - [`ErrorCode::Validation`](crate::ErrorCode::Validation) when the group has ended
    /// - [`ErrorCode::Unspecified`](crate::ErrorCode::Unspecified) when the executor takes no task,
    ///   with its [`SpawnError`](futures::task::SpawnError) as the cause
    /// - [`ErrorCode::Panic`](crate::ErrorCode::Panic) when the executor panics
    ///
    /// ```
    /// use futures::executor::ThreadPool;
    /// use watershed::group::WaitGroup;
    /// use watershed::{BoxError, StepContext};
    ///
    /// let pool = ThreadPool::new()?;
    /// let group = WaitGroup::new(&StepContext::new("orders"));
    /// group.go_on(&pool, "mail", async |_| Ok::<_, BoxError>(()))?;
    /// assert_eq!(futures::executor::block_on(group.wait())?.succeeded(), 1);
    /// # Ok::<_, BoxError>(())
    /// ```
    pub fn go_on<'n, S, W, F>(
        &self,
        spawner: &S,
        name: impl Into<Option<&'n str>>,
        work: W,
    ) -> Result<(), Error>
    where
        S: Spawn + ?Sized,
        W: FnOnce(StepContext) -> F + Send + 'static,
        F: Future<Output: HandlerOutput> + Send + 'static,
    {
        self.members.go_on(spawner, name.into(), work)
    }

    /// Waits until every task has ended. The tasks in place make progress only while this is
    /// polled.
    ///
    /// # Errors
    ///
    /// The error of the failed task that was added first, or the reason the group was told to stop
    /// for. The errors of the other tasks are attached in the order of their addition, the first 31
    /// of them by value ([`Error::related`]). The metadata of a task's error has its name as `task`, that of the
    /// group's error the counts `succeeded` and `failed`, `dropped_tasks` (those that were dropped
    /// or did not begin) and `detached_tasks` (those left on their executor after the grace).
    ///
    /// - a task's own error under [`ErrorCode::Handler`](crate::ErrorCode::Handler), or the
    ///   [`Error`] it returned; [`ErrorCode::Panic`](crate::ErrorCode::Panic) when it, or the clock,
    ///   panicked
    /// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled) when the context's token was cancelled
    ///   before all tasks had ended
    /// - [`ErrorCode::Timeout`](crate::ErrorCode::Timeout) with its `duration` as metadata
    /// - [`ErrorCode::Validation`](crate::ErrorCode::Validation) when the group has ended, or is
    ///   being awaited already
    ///
    /// # Cancel safety
    ///
    /// That of [`GroupWait`].
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::group::WaitGroup;
    /// use watershed::{BoxError, StepContext};
    ///
    /// let group = WaitGroup::new(&StepContext::new("orders"));
    /// group.go("mail", async |_| Err::<(), _>("no connection"))?;
    /// group.go("print", async |_| Ok::<_, BoxError>(()))?;
    /// let error = group.wait().await.unwrap_err();
    /// assert_eq!(error.metadata("task"), Some("mail"));
    /// assert_eq!(error.metadata("succeeded"), Some("1"));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn wait(&self) -> GroupWait<'_, 'a> {
        self.members.wait()
    }

    /// The tasks so far, counted: while they run, and after the end, when tasks left behind on an
    /// executor may still come in.
    ///
    /// ```
    /// use watershed::group::WaitGroup;
    ///
    /// let group = WaitGroup::new(&watershed::StepContext::new("orders"));
    /// assert_eq!(group.report().additions(), 0);
    /// ```
    #[must_use]
    pub fn report(&self) -> GroupReport {
        self.members.board.report()
    }
}

impl fmt::Debug for WaitGroup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.members.fmt(f)
    }
}
