//! What everything in a simulation shares: its clock, its chance, its trace.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::script::Script;
use super::trace::{Event, Trace};
use crate::chance::Chance;
use crate::clock::{Clock, ManualClock, Sleep};
use crate::step::StepContext;

/// The world of a [`Simulation`](super::Simulation): its clock, its chance and its trace. Clones
/// are the same world; give one to every fake that a handler talks to.
///
/// ```
/// use watershed::testing::Simulation;
///
/// let simulation = Simulation::new(7);
/// let world = simulation.world();
/// let slow_insert = async {
///     world.pause().await;
///     world.note("inserted");
/// };
/// simulation.run(slow_insert).unwrap();
/// assert!(world.trace().iter().any(|event| event.what() == "inserted"));
/// ```
#[derive(Clone, Debug)]
pub struct World {
    shared: Arc<WorldShared>,
}

#[derive(Debug)]
struct WorldShared {
    clock: ManualClock,
    chance: Chance,
    trace: Trace,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let clock = ManualClock::new();
        let shared = WorldShared { clock, chance: Chance::new(seed), trace: Trace::new() };
        Self { shared: Arc::new(shared) }
    }

    /// The clock, which the simulation moves to the next timer whenever nothing can run.
    ///
    /// ```
    /// use watershed::{Clock, Tick, testing::Simulation};
    /// assert_eq!(Simulation::new(7).world().clock().now(), Tick::ZERO);
    /// ```
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        &self.shared.clock
    }

    /// A context with the clock of this world, and a scope of its own.
    ///
    /// ```
    /// let simulation = watershed::testing::Simulation::new(7);
    /// assert_eq!(simulation.world().context("orders").name(), "orders");
    /// ```
    #[must_use]
    pub fn context(&self, name: impl Into<Arc<str>>) -> StepContext {
        StepContext::new(name).with_clock(Arc::new(self.clock().clone()))
    }

    /// An empty script for a source with this name; see [`Script`].
    ///
    /// ```
    /// let simulation = watershed::testing::Simulation::new(7);
    /// let orders = simulation.world().script("orders").items([1, 2]);
    /// assert_eq!(orders.rest(), [1, 2]);
    /// ```
    #[must_use]
    pub fn script<T>(&self, name: impl Into<Arc<str>>) -> Script<T> {
        Script::new(self.clone(), name.into())
    }

    /// A number below `end` that the seed decides; 0 for an `end` of 0.
    ///
    /// ```
    /// use watershed::testing::Simulation;
    ///
    /// let draws = |seed| {
    ///     let simulation = Simulation::new(seed);
    ///     (0..9).map(|_| simulation.world().below(1_000)).collect::<Vec<_>>()
    /// };
    /// assert_eq!(draws(7), draws(7));
    /// assert_ne!(draws(7), draws(8));
    /// ```
    #[must_use]
    pub fn below(&self, end: u64) -> u64 {
        self.shared.chance.below(end)
    }

    /// Waits as long as the seed decides: not at all, for a few polls, or up to ten milliseconds
    /// of the clock. A fake that pauses where the real thing would wait lets the seed decide how
    /// concurrent handlers interleave.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the wait.
    ///
    /// ```
    /// let simulation = watershed::testing::Simulation::new(7);
    /// simulation.run(simulation.world().pause()).unwrap();
    /// ```
    pub fn pause(&self) -> impl Future<Output = ()> + Send + Unpin + use<> {
        let (polls, sleep) = match self.below(4) {
            0 => (0, None),
            1 => (0, Some(Duration::from_micros(self.below(10_000)))),
            _ => (self.below(4), None),
        };
        let sleep = sleep.map(|wait| self.clock().sleep_until(self.clock().now() + wait));
        Pause { polls, sleep }
    }

    /// Notes something in the trace.
    ///
    /// ```
    /// let simulation = watershed::testing::Simulation::new(7);
    /// simulation.world().note("the lease was released");
    /// assert_eq!(simulation.world().trace()[0].what(), "the lease was released");
    /// ```
    pub fn note(&self, what: impl Into<Cow<'static, str>>) {
        self.shared.trace.add(self.clock().now(), what.into());
    }

    /// What happened so far. Two runs with the same seed have the same trace.
    ///
    /// ```
    /// let simulation = watershed::testing::Simulation::new(7);
    /// assert!(simulation.world().trace().is_empty());
    /// ```
    #[must_use]
    pub fn trace(&self) -> Vec<Event> {
        self.shared.trace.events()
    }

    pub(super) fn enter(&self, task: Arc<str>) -> Arc<str> {
        self.shared.trace.enter(task)
    }
}

/// A wait whose length the seed decided, see [`World::pause`].
struct Pause {
    polls: u64,
    sleep: Option<Sleep>,
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(left) = self.polls.checked_sub(1) {
            self.polls = left;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.sleep.as_mut().map_or(Poll::Ready(()), |sleep| sleep.as_mut().poll(cx))
    }
}
