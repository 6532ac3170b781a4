//! The handle of a group: its options, adding tasks, and awaiting them.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::task::Spawn;

use super::report::GroupReport;
use super::shared::GroupShared;
use super::wait::GroupWait;
use crate::drain::OnFailure;
use crate::error::{Error, Failure};
use crate::outcome::HandlerOutput;
use crate::step::StepContext;
use crate::undo::CompensationPolicy;

/// Tasks of one step that are awaited together.
///
/// The first task that fails, in time, cancels the token of all others at once; the group waits for
/// them, for as long as the [`grace`](Group::grace) says, and ends with that failure. So it does when
/// it is [cancelled](Group::cancel), when the context's token is, or the timeout is over. With
/// [`OnFailure::Continue`] a failure stops no other task.
///
/// Each task is a child step of the context with a scope of its own. When it has ended, however it
/// has, what it staged is on the context's scope and the caller decides; with
/// [`roll_back`](Group::roll_back) a group that fails undoes it itself.
///
/// | option | default |
/// | --- | --- |
/// | [`concurrency`](Group::concurrency) | all at once |
/// | [`on_failure`](Group::on_failure) | [`OnFailure::Abort`]: the others are told to stop |
/// | [`timeout`](Group::timeout) | never |
/// | [`grace`](Group::grace) | however long they take |
/// | [`roll_back`](Group::roll_back) | the caller does |
///
/// Clones are handles of one group. It is awaited once, by one of them, and ends when its tasks have
/// ended and no other handle is left, or it was [closed](Group::close): so a group that is awaited
/// while it is empty stays open for those who still have a handle. A task that is added after that is
/// refused. Tasks in place may borrow what lives longer than the group.
///
/// # Cancel safety
///
/// Dropping the last handle of a group that nobody awaits drops the tasks in place where they are, and
/// tells those on an executor to stop. Every compensation goes to the context's scope. A group that is
/// never awaited is kept by a task of its own that has a handle.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::group::Group;
/// use watershed::{BoxError, CompensationPolicy, ErrorCode, StepContext};
///
/// let context = StepContext::new("orders");
/// let group = Group::new(&context).roll_back(CompensationPolicy::sequential_reverse());
/// group.go("seat", async |step| {
///     step.register_compensation(async || { /* free the seat */ });
///     step.cancellation().cancelled().await;
///     Ok::<_, BoxError>(())
/// })?;
/// group.go("card", async |_| Err::<(), _>("declined"))?;
///
/// let failure = group.wait().await.unwrap_err();
/// assert_eq!(failure.error().code(), ErrorCode::Handler);
/// assert_eq!(failure.error().metadata("task"), Some("card"));
/// assert_eq!((failure.report().succeeded(), failure.report().failed()), (1, 1));
/// assert!(context.scope().is_empty(), "the seat is free");
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
///
/// A group that stays open, and what its tasks return:
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::group::Group;
/// use watershed::{BoxError, StepContext};
///
/// let group = Group::collecting(&StepContext::new("requests")).concurrency(2);
/// let door = group.clone();
/// let (report, ()) = futures::join!(group.wait(), async move {
///     for request in ["a", "bcd", "ef"] {
///         door.go(None, move |_| async move { Ok::<_, BoxError>(request.len()) }).unwrap();
///     }
///     // The last handle but the one that waits goes here, and the group ends.
/// });
/// assert_eq!(report?.into_values(), [1, 3, 2]);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a group's tasks do nothing unless it is awaited"]
pub struct Group<'a, T = ()> {
    shared: Arc<GroupShared<'a, T>>,
}

impl Group<'_> {
    /// A group without tasks, whose tasks return nothing. However many they are, and however long it
    /// lives, it keeps of those that have ended no more than their number, and the first errors.
    pub fn new(context: &StepContext) -> Self {
        Self::collecting(context)
    }
}

impl<'a, T: Send> Group<'a, T> {
    /// A group without tasks that keeps what they return until it has ended: see
    /// [`GroupReport::into_values`]. One that lives for ever sends that into a channel instead.
    pub fn collecting(context: &StepContext) -> Self {
        Self { shared: Arc::new(GroupShared::new(context)) }
    }

    /// At most so many tasks run at once, in place and on executors together; the others begin one
    /// after another, in the order in which they are first polled. Default: all at once. With 0 no
    /// task can be added, and the wait fails, with
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation).
    pub fn concurrency(self, tasks: usize) -> Self {
        self.shared.board.set_limit(tasks);
        self
    }

    /// What a task that fails does to the others. [`OnFailure::Abort`], the default: they are told to
    /// stop, and its error is the group's. [`OnFailure::Continue`]: they go on, and the group's error
    /// is that of the task which was added first.
    pub fn on_failure(self, on_failure: OnFailure) -> Self {
        self.shared.board.set_on_failure(on_failure);
        self
    }

    /// One absolute deadline for the tasks, counted from the first poll of the wait by the
    /// context's clock. Default: never. Zero times out before a task in place begins;
    /// [`Duration::MAX`] never does.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.shared.settings.lock().timeout = Some(timeout);
        self
    }

    /// How long the tasks are awaited, by the context's clock, after the group was told to stop.
    /// Those that are not done by then are dropped, and the report says how many. Default: however
    /// long they take.
    ///
    /// A task on an executor is dropped there, at its next poll; it goes on without its group until
    /// then, and what it stages goes to the context's scope.
    pub fn grace(self, grace: Duration) -> Self {
        self.shared.settings.lock().grace = Some(grace);
        self
    }

    /// What the tasks staged is undone by the group when it has failed, after all tasks have ended:
    /// over all of them, the compensation registered last first. The waits between attempts are
    /// those of the context's clock. What fails is attached to the error and stays staged on the
    /// context's scope, and so is everything when the group succeeds. Default: everything goes to the
    /// context's scope, and the caller decides. It is said before tasks are added; later, the wait
    /// fails with [`ErrorCode::Validation`](crate::ErrorCode::Validation).
    pub fn roll_back(self, policy: CompensationPolicy) -> Self {
        self.shared.set_roll_back(policy);
        self
    }

    /// Adds a task that is polled in place, by whoever awaits the group, and begins there.
    ///
    /// `work` is called with a [`StepContext`] of its own, called `name`, or `NAME.errgroup` after the
    /// group's context (`NAME.waitgroup` where failures stop nobody). What it returns is any
    /// [`HandlerOutput`](crate::HandlerOutput). Tasks can be added while the group is being awaited,
    /// by whoever has a handle. A task that has not begun when the group is told to stop does not
    /// begin.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Validation`](crate::ErrorCode::Validation) when the group has ended or is closed,
    /// or its concurrency is 0: `work` is not called.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::group::Group;
    /// use watershed::{BoxError, Compensated, StepContext};
    ///
    /// let context = StepContext::new("orders");
    /// let group = Group::new(&context);
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
        T: 'a,
        W: FnOnce(StepContext) -> F + Send + 'a,
        F: Future<Output: HandlerOutput<T>> + Send + 'a,
    {
        self.shared.go(false, name.into(), work)
    }

    /// The same as [`go`](Group::go), where fewer tasks than may run [at once](Group::concurrency)
    /// are there, those included that wait to begin.
    ///
    /// # Errors
    ///
    /// Those of [`go`](Group::go), and the code `error.channel.full` where there is no room.
    ///
    /// ```
    /// use watershed::group::Group;
    /// use watershed::{BoxError, ErrorCode, StepContext};
    ///
    /// let group = Group::new(&StepContext::new("orders")).concurrency(1);
    /// group.try_go("first", async |_| Ok::<_, BoxError>(()))?;
    /// let refused = group.try_go("second", async |_| Ok::<_, BoxError>(()));
    /// assert_eq!(refused.unwrap_err().code(), ErrorCode::ChannelFull);
    /// # Ok::<_, BoxError>(())
    /// ```
    pub fn try_go<'n, W, F>(&self, name: impl Into<Option<&'n str>>, work: W) -> Result<(), Error>
    where
        T: 'a,
        W: FnOnce(StepContext) -> F + Send + 'a,
        F: Future<Output: HandlerOutput<T>> + Send + 'a,
    {
        self.shared.go(true, name.into(), work)
    }

    /// The same as [`go`](Group::go) on an executor of the user's: the task begins and goes on
    /// whether or not the group is being awaited.
    ///
    /// A task that its executor drops has failed with
    /// [`ErrorCode::Canceled`](crate::ErrorCode::Canceled); its compensations are kept like those
    /// of any other.
    ///
    /// # Errors
    ///
    /// Those of [`go`](Group::go), and further, where `work` does not count as added either:
    ///
    /// - [`ErrorCode::Unspecified`](crate::ErrorCode::Unspecified) when the executor takes no task, with
    ///   its [`SpawnError`](futures::task::SpawnError); [`ErrorCode::Panic`](crate::ErrorCode::Panic)
    ///   when it panics
    ///
    /// ```
    /// use futures::executor::ThreadPool;
    /// use watershed::group::Group;
    /// use watershed::{BoxError, StepContext};
    ///
    /// let pool = ThreadPool::new()?;
    /// let group = Group::new(&StepContext::new("orders"));
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
        T: 'static,
        S: Spawn + ?Sized,
        W: FnOnce(StepContext) -> F + Send + 'static,
        F: Future<Output: HandlerOutput<T>> + Send + 'static,
    {
        self.shared.go_on(false, spawner, name.into(), work)
    }

    /// The same as [`go_on`](Group::go_on), where there is room: see [`try_go`](Group::try_go).
    ///
    /// # Errors
    ///
    /// Those of [`go_on`](Group::go_on), and the code `error.channel.full` where there is no room.
    pub fn try_go_on<'n, S, W, F>(
        &self,
        spawner: &S,
        name: impl Into<Option<&'n str>>,
        work: W,
    ) -> Result<(), Error>
    where
        T: 'static,
        S: Spawn + ?Sized,
        W: FnOnce(StepContext) -> F + Send + 'static,
        F: Future<Output: HandlerOutput<T>> + Send + 'static,
    {
        self.shared.go_on(true, spawner, name.into(), work)
    }

    /// Lets no further task in: the group ends with those it has, whoever else has a handle.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::group::Group;
    /// use watershed::{BoxError, ErrorCode, StepContext};
    ///
    /// let group = Group::new(&StepContext::new("orders"));
    /// let door = group.clone();
    /// group.close();
    /// let late = door.go("late", async |_| Ok::<_, BoxError>(()));
    /// assert_eq!(late.unwrap_err().code(), ErrorCode::Validation);
    /// assert_eq!(group.wait().await?.additions(), 0);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn close(&self) {
        self.shared.board.close();
    }

    /// Tells the tasks to stop: the group ends with
    /// [`ErrorCode::Canceled`](crate::ErrorCode::Canceled), unless it has failed already or has
    /// ended.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::group::Group;
    /// use watershed::{BoxError, ErrorCode, StepContext};
    ///
    /// let group = Group::new(&StepContext::new("orders"));
    /// group.go("never", |_| std::future::pending::<Result<(), BoxError>>())?;
    /// group.cancel();
    /// assert_eq!(group.wait().await.unwrap_err().error().code(), ErrorCode::Canceled);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn cancel(&self) {
        self.shared.board.stop_for(Error::canceled());
    }

    /// Waits until every task has ended, and no other handle is left or the group is
    /// [closed](Group::close). The tasks in place make progress only while this is polled.
    ///
    /// # Errors
    ///
    /// The failure that stopped the group, or the reason it was told to stop for; where failures stop
    /// nobody, that of the task which was added first. The errors of the other tasks are attached in
    /// the order of their addition, the first 31 of them by value ([`Error::related`]), and behind
    /// them that of the rollback. The metadata of a task's error has its name as `task`. The report
    /// that comes with the error counts the tasks, and has the values of those that succeeded. The
    /// tokens of the tasks tell the cause as their [`reason`](crate::CancellationToken::reason).
    ///
    /// - a task's own error under [`ErrorCode::Handler`](crate::ErrorCode::Handler), or the
    ///   [`Error`] it returned; [`ErrorCode::Panic`](crate::ErrorCode::Panic) when it, or the clock,
    ///   panicked
    /// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled) when the group, or the context's token,
    ///   was cancelled before all tasks had ended
    /// - [`ErrorCode::Timeout`](crate::ErrorCode::Timeout) with its `duration` as metadata
    /// - [`ErrorCode::Validation`](crate::ErrorCode::Validation) when the group has ended, is being
    ///   awaited already, or an option is wrong
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the group: tasks in place are dropped where they are, tasks on an
    /// executor hear it by their token. Every compensation is staged on the context's scope, also what
    /// a rollback that has begun has not undone.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::group::Group;
    /// use watershed::{BoxError, OnFailure, StepContext};
    ///
    /// let group = Group::new(&StepContext::new("orders")).on_failure(OnFailure::Continue);
    /// group.go("mail", async |_| Err::<(), _>("no connection"))?;
    /// group.go("print", async |_| Ok::<_, BoxError>(()))?;
    /// let failure = group.wait().await.unwrap_err();
    /// assert_eq!(failure.error().metadata("task"), Some("mail"));
    /// assert_eq!(failure.report().succeeded(), 1);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn wait(
        self,
    ) -> impl Future<Output = Result<GroupReport<T>, Failure<GroupReport<T>>>> + Send + Unpin + use<'a, T>
    {
        GroupWait::new(Arc::clone(&self.shared))
    }

    /// The tasks so far, counted: while they run, and after the end, when tasks left behind on an
    /// executor may still come in.
    #[must_use]
    pub fn report(&self) -> GroupReport {
        self.shared.board.report()
    }
}

/// Another handle of the same group.
impl<T> Clone for Group<'_, T> {
    fn clone(&self) -> Self {
        self.shared.board.add_handle();
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Group<'_, T> {
    fn drop(&mut self) {
        if self.shared.board.drop_handle() {
            self.shared.end();
        }
    }
}

impl<T> fmt::Debug for Group<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}
