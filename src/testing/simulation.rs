//! A deterministic executor.
//!
//! Tasks that were woken stand in a list, and the seed picks the next one. When nothing was woken
//! the clock jumps to the next timer; when nobody waits for the clock either, what runs is stuck
//! and the run says so. A task is out of the table while it is polled, so it may spawn others.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt;
use futures::future::{FutureObj, LocalBoxFuture, RemoteHandle};
use futures::task::{Spawn, SpawnError};
use thiserror::Error;

use super::world::World;
use crate::lock::Lock;

/// A deterministic executor on one thread: the same seed gives the same run.
///
/// It polls a task only when it was woken, picks the next one by its seed, and moves its clock to
/// the next timer whenever nothing can run: an hour of timeouts takes no time at all.
///
/// ```
/// use std::time::Duration;
/// use watershed::testing::Simulation;
/// use watershed::{BoxError, Clock, ErrorCode, fan_in, timers};
///
/// let simulation = Simulation::new(7);
/// let world = simulation.world();
/// let context = world.context("orders");
/// let orders = world.script("orders").items([1, 2]).never();
///
/// let drain = fan_in(&context, [orders], async |_, step| {
///     timers::delay(&step, Duration::from_secs(60)).await?;
///     Ok::<_, BoxError>(())
/// });
/// let outcome = simulation.run(drain.timeout(Duration::from_secs(3_600))).unwrap();
/// assert_eq!(outcome.unwrap_err().error().code(), ErrorCode::Timeout);
/// assert_eq!(world.clock().now().as_nanos(), 3_600_000_000_000);
/// ```
pub struct Simulation {
    world: World,
    tasks: RefCell<BTreeMap<usize, SimulatedTask>>,
    next: Cell<usize>,
    shared: Arc<SimulationShared>,
    polls: Cell<u64>,
    most_polls: u64,
    strict_wakers: bool,
}

struct SimulatedTask {
    name: Arc<str>,
    waker: Arc<TaskWaker>,
    future: LocalBoxFuture<'static, ()>,
}

/// What wakers and spawners hold on to.
#[derive(Default)]
struct SimulationShared {
    woken: Lock<Vec<Arc<TaskWaker>>>,
    spawned: Lock<Vec<FutureObj<'static, ()>>>,
}

struct TaskWaker {
    task: usize,
    /// Whether it stands in the list already, or is void and never will again.
    silent: AtomicBool,
    /// Weak, because a task that was woken stands in a list there.
    shared: Weak<SimulationShared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.silent.swap(true, Ordering::SeqCst) {
            if let Some(shared) = self.shared.upgrade() {
                shared.woken.lock().push(Arc::clone(self));
            }
        }
    }
}

/// Why a simulation stopped before its future was ready.
///
/// ```
/// use watershed::testing::{Simulation, Stopped};
///
/// let simulation = Simulation::new(7);
/// let stopped = simulation.run(std::future::pending::<()>()).unwrap_err();
/// assert!(matches!(stopped, Stopped::Stuck { .. }));
/// assert_eq!(stopped.to_string(), "stuck: nothing was woken, and nobody waits for the clock (tasks: main)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Stopped {
    /// No task was woken, and none waits for the clock.
    #[error("stuck: nothing was woken, and nobody waits for the clock (tasks: {tasks})")]
    Stuck {
        /// The names of the tasks that have not ended, separated by commas.
        tasks: String,
    },
    /// The limit of polls is reached, see [`Simulation::with_most_polls`].
    #[error("not ended after {polls} polls")]
    Endless {
        /// The polls of this run.
        polls: u64,
    },
}

impl Simulation {
    /// A simulation whose choices this seed makes.
    ///
    /// ```
    /// let simulation = watershed::testing::Simulation::new(7);
    /// assert_eq!(simulation.run(async { 1 }), Ok(1));
    /// ```
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            world: World::new(seed),
            tasks: RefCell::default(),
            next: Cell::default(),
            shared: Arc::default(),
            polls: Cell::default(),
            most_polls: 1_000_000,
            strict_wakers: false,
        }
    }

    /// Gives up a run after so many polls; the default is 1,000,000.
    ///
    /// ```
    /// use watershed::testing::{Simulation, Stopped};
    ///
    /// let simulation = Simulation::new(7).with_most_polls(100);
    /// let busy = std::future::poll_fn(|cx| {
    ///     cx.waker().wake_by_ref();
    ///     std::task::Poll::<()>::Pending
    /// });
    /// assert_eq!(simulation.run(busy), Err(Stopped::Endless { polls: 100 }));
    /// ```
    #[must_use]
    pub fn with_most_polls(mut self, polls: u64) -> Self {
        self.most_polls = polls;
        self
    }

    /// Gives every poll a new waker and makes those of the polls before void: whatever keeps an old
    /// waker is stuck. Every executor accepts old wakers, but none has to.
    ///
    /// ```
    /// use watershed::testing::{Simulation, Stopped};
    ///
    /// // It keeps the waker of its first poll.
    /// let careless = || {
    ///     let (mut polls, mut first) = (0, None);
    ///     std::future::poll_fn(move |cx| {
    ///         polls += 1;
    ///         first.get_or_insert_with(|| cx.waker().clone()).wake_by_ref();
    ///         if polls == 3 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    ///     })
    /// };
    /// assert_eq!(Simulation::new(7).run(careless()), Ok(()));
    /// assert!(Simulation::new(7).with_strict_wakers().run(careless()).is_err());
    /// ```
    #[must_use]
    pub fn with_strict_wakers(mut self) -> Self {
        self.strict_wakers = true;
        self
    }

    /// What everything in this simulation shares: clock, chance and trace.
    ///
    /// ```
    /// let simulation = watershed::testing::Simulation::new(7);
    /// let context = simulation.world().context("orders");
    /// # drop(context);
    /// ```
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// How many polls of tasks there were so far, in all runs.
    ///
    /// ```
    /// let simulation = watershed::testing::Simulation::new(7);
    /// simulation.run(async {}).unwrap();
    /// assert_eq!(simulation.polls(), 1);
    /// ```
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// Adds a task that runs beside the others, and returns a handle to its output. Dropping the
    /// handle drops the task at its next turn; [`forget`](RemoteHandle::forget) lets it run on.
    /// A panic in the task is raised where the handle is awaited.
    ///
    /// ```
    /// let simulation = watershed::testing::Simulation::new(7);
    /// let answer = simulation.spawn("thinker", async { 42 });
    /// assert_eq!(simulation.run(answer), Ok(42));
    /// ```
    pub fn spawn<F>(&self, name: impl Into<Arc<str>>, future: F) -> RemoteHandle<F::Output>
    where
        F: Future + 'static,
    {
        let (task, handle) = future.remote_handle();
        self.admit(name.into(), task.boxed_local());
        handle
    }

    /// A spawner for whatever asks for one, such as a [group](crate::group) whose tasks run on the
    /// user's executor. It may be cloned, and sent to other threads.
    ///
    /// ```
    /// use futures::task::SpawnExt;
    ///
    /// let simulation = watershed::testing::Simulation::new(7);
    /// let answer = simulation.spawner().spawn_with_handle(async { 42 }).unwrap();
    /// assert_eq!(simulation.run(answer), Ok(42));
    /// ```
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        Spawner { shared: Arc::downgrade(&self.shared) }
    }

    /// Runs until `main` is ready. Other tasks run beside it, and those that have not ended go on
    /// in the next run.
    ///
    /// # Errors
    ///
    /// [`Stopped`], when nothing can run any more or the limit of polls is reached. `main` is
    /// dropped then.
    ///
    /// # Panics
    ///
    /// As `main` does.
    ///
    /// ```
    /// let simulation = watershed::testing::Simulation::new(7);
    /// assert_eq!(simulation.run(async { 1 }), Ok(1));
    /// ```
    pub fn run<F: IntoFuture>(&self, main: F) -> Result<F::Output, Stopped> {
        let mut main = pin!(main.into_future());
        let name = Arc::from("main");
        let mut waker = self.new_waker(self.number());
        let number = waker.task;
        waker.wake_by_ref();
        let started = self.polls.get();
        loop {
            self.admit_spawned();
            let Some(task) = self.pick() else {
                if self.world.clock().advance_to_next() {
                    self.world.note("time passes");
                    continue;
                }
                return Err(Stopped::Stuck { tasks: self.names() });
            };
            let polls = self.polls.get() - started;
            if polls == self.most_polls {
                return Err(Stopped::Endless { polls });
            }
            if task == number {
                if let Poll::Ready(output) = self.poll(&name, &mut waker, main.as_mut()) {
                    return Ok(output);
                }
            } else {
                self.poll_task(task);
            }
        }
    }

    fn number(&self) -> usize {
        self.next.replace(self.next.get() + 1)
    }

    fn new_waker(&self, task: usize) -> Arc<TaskWaker> {
        let (silent, shared) = (AtomicBool::new(false), Arc::downgrade(&self.shared));
        Arc::new(TaskWaker { task, silent, shared })
    }

    fn admit(&self, name: Arc<str>, future: LocalBoxFuture<'static, ()>) {
        let number = self.number();
        let waker = self.new_waker(number);
        waker.wake_by_ref();
        self.tasks.borrow_mut().insert(number, SimulatedTask { name, waker, future });
    }

    fn admit_spawned(&self) {
        let spawned = std::mem::take(&mut *self.shared.spawned.lock());
        for future in spawned {
            let name = format!("task {}", self.next.get());
            self.admit(name.into(), future.boxed_local());
        }
    }

    /// One of the tasks that were woken, as the seed wants it.
    fn pick(&self) -> Option<usize> {
        let mut woken = self.shared.woken.lock();
        let end = u64::try_from(woken.len()).unwrap_or(u64::MAX);
        let index = usize::try_from(self.world.below(end)).unwrap_or_default();
        let waker = (!woken.is_empty()).then(|| woken.swap_remove(index))?;
        waker.silent.store(false, Ordering::SeqCst);
        Some(waker.task)
    }

    fn poll_task(&self, number: usize) {
        let taken = self.tasks.borrow_mut().remove(&number);
        // A task that has ended may still be woken.
        let Some(mut task) = taken else { return };
        if self.poll(&task.name, &mut task.waker, task.future.as_mut()).is_pending() {
            self.tasks.borrow_mut().insert(number, task);
        }
    }

    fn poll<F: Future + ?Sized>(
        &self,
        name: &Arc<str>,
        waker: &mut Arc<TaskWaker>,
        future: Pin<&mut F>,
    ) -> Poll<F::Output> {
        if self.strict_wakers {
            waker.silent.store(true, Ordering::SeqCst);
            *waker = self.new_waker(waker.task);
        }
        self.polls.set(self.polls.get() + 1);
        let before = self.world.enter(Arc::clone(name));
        self.world.note("polled");
        let poll = future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(waker))));
        if poll.is_ready() {
            self.world.note("ended");
        }
        self.world.enter(before);
        poll
    }

    fn names(&self) -> String {
        let tasks = self.tasks.borrow();
        let names = tasks.values().map(|task| &*task.name);
        std::iter::once("main").chain(names).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("polls", &self.polls.get()).finish_non_exhaustive()
    }
}

/// Adds tasks to a simulation, see [`Simulation::spawner`].
///
/// ```
/// use futures::task::SpawnExt;
///
/// let simulation = watershed::testing::Simulation::new(7);
/// let spawner = simulation.spawner();
/// let sum = async move {
///     spawner.spawn_with_handle(async { 1 }).unwrap().await + 1
/// };
/// assert_eq!(simulation.run(sum), Ok(2));
/// ```
#[derive(Clone)]
pub struct Spawner {
    shared: Weak<SimulationShared>,
}

impl Spawn for Spawner {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        let shared = self.shared.upgrade().ok_or_else(SpawnError::shutdown)?;
        shared.spawned.lock().push(future);
        Ok(())
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spawner")
    }
}
