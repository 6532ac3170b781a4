//! What happened in a simulation, in order.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::clock::Tick;
use crate::lock::Lock;

/// One thing that happened in a simulation.
///
/// ```
/// use watershed::Tick;
/// use watershed::testing::Simulation;
///
/// let simulation = Simulation::new(7);
/// let world = simulation.world();
/// simulation.run(async { world.note("sent") }).unwrap();
/// let events = world.trace();
/// let sent = events.iter().find(|event| event.what() == "sent").unwrap();
/// assert_eq!((sent.at(), sent.task()), (Tick::ZERO, "main"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    at: Tick,
    task: Arc<str>,
    what: Cow<'static, str>,
}

impl Event {
    /// When it happened, by the clock of the simulation.
    ///
    /// ```
    /// fn seconds(event: &watershed::testing::Event) -> u64 {
    ///     event.at().as_nanos() / 1_000_000_000
    /// }
    /// ```
    #[must_use]
    pub fn at(&self) -> Tick {
        self.at
    }

    /// The task that was being polled, or `-` between two polls.
    ///
    /// ```
    /// fn of_main(event: &watershed::testing::Event) -> bool {
    ///     event.task() == "main"
    /// }
    /// ```
    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }

    /// What happened.
    ///
    /// ```
    /// fn is_poll(event: &watershed::testing::Event) -> bool {
    ///     event.what() == "polled"
    /// }
    /// ```
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

/// The time in seconds, the task, and what happened.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.since(Tick::ZERO).as_secs_f64();
        write!(f, "{at:>12.6} {:<8} {}", self.task, self.what)
    }
}

/// The events so far, and the task that is being polled.
#[derive(Debug)]
pub(super) struct Trace(Lock<TraceBook>);

#[derive(Debug)]
struct TraceBook {
    task: Arc<str>,
    events: Vec<Event>,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self(Lock::new(TraceBook { task: Arc::from("-"), events: Vec::new() }))
    }

    pub(super) fn add(&self, at: Tick, what: Cow<'static, str>) {
        let mut book = self.0.lock();
        let task = Arc::clone(&book.task);
        book.events.push(Event { at, task, what });
    }

    /// From here on `task` is the one whose events are noted; returns the one before.
    pub(super) fn enter(&self, task: Arc<str>) -> Arc<str> {
        std::mem::replace(&mut self.0.lock().task, task)
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.0.lock().events.clone()
    }
}
