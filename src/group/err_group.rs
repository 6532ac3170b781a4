//! Tasks that succeed together: the first failure stops the others.

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
use crate::undo::CompensationPolicy;

/// Tasks of one step that succeed together.
///
/// The first task that fails, in time, cancels the token of all others at once; the group waits for
/// them, for as long as the [`grace`](ErrGroup::grace) says, and ends with that failure. So it does
/// when it is [cancelled](ErrGroup::cancel), when the context's token is, or the timeout is over.
///
/// Each task is a child step of the context with a scope of its own. When the group has ended,
/// however it has, what the tasks staged is on the context's scope and the caller decides; with
/// [`roll_back`](ErrGroup::roll_back) a group that fails runs it itself.
///
/// | option | default |
/// | --- | --- |
/// | [`timeout`](ErrGroup::timeout) | never |
/// | [`grace`](ErrGroup::grace) | however long they take |
/// | [`roll_back`](ErrGroup::roll_back) | the caller does |
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
/// use watershed::group::ErrGroup;
/// use watershed::{BoxError, CompensationPolicy, ErrorCode, StepContext};
///
/// let context = StepContext::new("orders");
/// let group = ErrGroup::new(&context).roll_back(CompensationPolicy::sequential_reverse());
/// group.go("seat", async |step| {
///     step.register_compensation(async || { /* free the seat */ });
///     step.cancellation().cancelled().await;
///     Ok::<_, BoxError>(())
/// })?;
/// group.go("card", async |_| Err::<(), _>("declined"))?;
///
/// let error = group.wait().await.unwrap_err();
/// assert_eq!((error.code(), error.metadata("task")), (ErrorCode::Handler, Some("card")));
/// assert!(context.scope().is_empty(), "the seat is free");
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a group's tasks do nothing unless it is awaited"]
pub struct ErrGroup<'a> {
    members: Members<'a>,
}

impl<'a> ErrGroup<'a> {
    /// A group without tasks.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::group::ErrGroup;
    /// let group = ErrGroup::new(&watershed::StepContext::new("orders"));
    /// assert_eq!(group.wait().await?.completions(), 0);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn new(context: &StepContext) -> Self {
        Self { members: Members::together(context) }
    }

    /// One absolute deadline for the tasks, counted from the first poll of the wait by the
    /// context's clock. Default: never. Zero times out before a task in place begins;
    /// [`Duration::MAX`] never does.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use watershed::group::ErrGroup;
    /// use watershed::{BoxError, ErrorCode, StepContext};
    ///
    /// let group = ErrGroup::new(&StepContext::new("orders")).timeout(Duration::ZERO);
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
    /// use watershed::group::ErrGroup;
    /// use watershed::{BoxError, StepContext};
    ///
    /// let group = ErrGroup::new(&StepContext::new("orders"))
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

    /// What the tasks staged is run by the group when it has failed, after all tasks have ended:
    /// over all of them, the compensation registered last first. The waits between attempts are
    /// those of the context's clock. What fails is attached to the error and stays staged on the
    /// context's scope. Default: everything goes to the context's scope, and the caller runs it.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::group::ErrGroup;
    /// use watershed::{CompensationPolicy, StepContext};
    ///
    /// let context = StepContext::new("orders");
    /// let group = ErrGroup::new(&context).roll_back(CompensationPolicy::parallel());
    /// group.go("seat", async |step| {
    ///     step.register_compensation(async || { /* free the seat */ });
    ///     Err::<(), _>("no seat like that")
    /// })?;
    /// group.wait().await.unwrap_err();
    /// assert!(context.scope().is_empty());
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn roll_back(mut self, policy: CompensationPolicy) -> Self {
        self.members.settings.roll_back = Some(policy);
        self
    }

    /// Adds a task that is polled in place, by whoever awaits the group, and begins there.
    ///
    /// `work` is called with a [`StepContext`] of its own, called `name`, or `NAME.errgroup` after the
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
    /// use watershed::group::ErrGroup;
    /// use watershed::{BoxError, Compensated, StepContext};
    ///
    /// let context = StepContext::new("orders");
    /// let group = ErrGroup::new(&context);
    /// group.go("seat", async |step| {
    ///     assert_eq!(step.name(), "seat");
    ///     step.register_compensation(async || { /* free the seat */ });
    ///     Ok::<_, BoxError>(())
    /// })?;
    /// group.go(None, async |step| {
    ///     assert_eq!(step.name(), "orders.errgroup");
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

    /// The same as [`go`](ErrGroup::go) on an executor of the user's: the task begins and goes on
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
    /// use watershed::group::ErrGroup;
    /// use watershed::{BoxError, StepContext};
    ///
    /// let pool = ThreadPool::new()?;
    /// let group = ErrGroup::new(&StepContext::new("orders"));
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

    /// Tells the tasks to stop: the group ends with
    /// [`ErrorCode::Canceled`](crate::ErrorCode::Canceled), unless it has failed already or has
    /// ended.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::group::ErrGroup;
    /// use watershed::{BoxError, ErrorCode, StepContext};
    ///
    /// let group = ErrGroup::new(&StepContext::new("orders"));
    /// group.go("never", |_| std::future::pending::<Result<(), BoxError>>())?;
    /// group.cancel();
    /// assert_eq!(group.wait().await.unwrap_err().code(), ErrorCode::Canceled);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn cancel(&self) {
        self.members.board.stop_for(Error::canceled());
    }

    /// Waits until every task has ended. The tasks in place make progress only while this is
    /// polled.
    ///
    /// # Errors
    ///
    /// The first failure in time, or the reason the group was told to stop for. The errors of the
    /// other tasks are attached in the order of their addition, the first 31 of them by value
    /// ([`Error::related`]), and behind them that of the rollback. The metadata of a task's error has its name as `task`, that of
    /// the group's error the counts `succeeded` and `failed`, `dropped_tasks` (those that were
    /// dropped or did not begin) and `detached_tasks` (those left on their executor after the
    /// grace).
    ///
    /// - a task's own error under [`ErrorCode::Handler`](crate::ErrorCode::Handler), or the
    ///   [`Error`] it returned; [`ErrorCode::Panic`](crate::ErrorCode::Panic) when it, or the clock,
    ///   panicked
    /// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled) when the group, or the context's token,
    ///   was cancelled before all tasks had ended
    /// - [`ErrorCode::Timeout`](crate::ErrorCode::Timeout) with its `duration` as metadata
    /// - [`ErrorCode::Validation`](crate::ErrorCode::Validation) when the group has ended, or is
    ///   being awaited already
    ///
    /// # Cancel safety
    ///
    /// That of [`GroupWait`]. A rollback that has begun goes back to the context's scope with
    /// everything that has not succeeded.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::group::ErrGroup;
    /// use watershed::{BoxError, StepContext};
    ///
    /// let group = ErrGroup::new(&StepContext::new("orders"));
    /// group.go("mail", async |step| {
    ///     step.cancellation().cancelled().await;
    ///     Err::<(), _>("was told to stop")
    /// })?;
    /// group.go("print", async |_| Err::<(), _>("no paper"))?;
    /// let error = group.wait().await.unwrap_err();
    /// assert_eq!(error.metadata("task"), Some("print"));
    /// assert_eq!(error.related()[0].metadata("task"), Some("mail"));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn wait(&self) -> GroupWait<'_, 'a> {
        self.members.wait()
    }

    /// The tasks so far, counted: while they run, and after the end, when tasks left behind on an
    /// executor may still come in.
    ///
    /// ```
    /// use watershed::group::ErrGroup;
    ///
    /// let group = ErrGroup::new(&watershed::StepContext::new("orders"));
    /// assert_eq!(group.report().additions(), 0);
    /// ```
    #[must_use]
    pub fn report(&self) -> GroupReport {
        self.members.board.report()
    }
}

impl fmt::Debug for ErrGroup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.members.fmt(f)
    }
}
