//! Sources that do what a script says.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;

use super::world::World;
use crate::clock::{Clock, Sleep};
use crate::lock::Lock;

/// A stream that does what its script says, act by act, and then ends. Clones share what is left
/// of it, as the clones of a channel's receiver do.
///
/// ```
/// use std::time::Duration;
/// use futures::StreamExt;
/// use watershed::testing::Simulation;
///
/// let simulation = Simulation::new(7);
/// let orders = simulation.world().script("orders").item(1).pending(2).item(2);
/// let orders = orders.wait(Duration::from_secs(9)).item(3);
///
/// let all = simulation.run(orders.clone().collect::<Vec<_>>()).unwrap();
/// assert_eq!(all, [1, 2, 3]);
/// assert_eq!((orders.taken(), orders.polls()), (3, 7));
/// ```
pub struct Script<T> {
    name: Arc<str>,
    world: World,
    shared: Arc<Lock<ScriptShared<T>>>,
}

struct ScriptShared<T> {
    acts: VecDeque<Act<T>>,
    polls: u64,
    taken: u64,
    ended: bool,
    polls_after_end: u64,
}

enum Act<T> {
    Item(T),
    Pending(u64),
    StrayWakes(u64),
    Wait(Duration),
    /// A wait that has begun.
    Waiting(Sleep),
    Never,
    Panic(String),
}

/// What a poll does once the lock is released.
enum Move<T> {
    Hand(T),
    Wake,
    StrayWakes(u64),
    Begin(Duration),
    Wait(Sleep),
    Never,
    Panic(String),
    End,
}

impl<T> Script<T> {
    pub(super) fn new(world: World, name: Arc<str>) -> Self {
        let shared = ScriptShared {
            acts: VecDeque::new(),
            polls: 0,
            taken: 0,
            ended: false,
            polls_after_end: 0,
        };
        Self { name, world, shared: Arc::new(Lock::new(shared)) }
    }

    fn act(self, act: Act<T>) -> Self {
        self.shared.lock().acts.push_back(act);
        self
    }

    /// Then it is ready with `item`.
    ///
    /// ```
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// assert_eq!(simulation.world().script("orders").item(1).rest(), [1]);
    /// ```
    #[must_use]
    pub fn item(self, item: T) -> Self {
        self.act(Act::Item(item))
    }

    /// Then it is ready with each of these in turn.
    ///
    /// ```
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// assert_eq!(simulation.world().script("orders").items(1..=3).rest(), [1, 2, 3]);
    /// ```
    #[must_use]
    pub fn items(self, items: impl IntoIterator<Item = T>) -> Self {
        items.into_iter().fold(self, Self::item)
    }

    /// Then it is ready with these, and between them does what the seed decides: it is pending,
    /// waits for the clock, or wakes whoever polls it without cause.
    ///
    /// ```
    /// # use watershed::testing::Simulation;
    /// use futures::StreamExt;
    ///
    /// let simulation = Simulation::new(7);
    /// let orders = simulation.world().script("orders").scattered(0..100);
    /// let all = simulation.run(orders.collect::<Vec<_>>()).unwrap();
    /// assert_eq!(all, Vec::from_iter(0..100));
    /// assert!(simulation.polls() > 50);
    /// ```
    #[must_use]
    pub fn scattered(self, items: impl IntoIterator<Item = T>) -> Self {
        items.into_iter().fold(self, |script, item| {
            let amount = script.world.below(3) + 1;
            let script = match script.world.below(6) {
                0 | 1 => script.pending(amount),
                2 => script.wait(Duration::from_micros(amount * 700)),
                3 => script.stray_wakes(amount),
                _ => script,
            };
            script.item(item)
        })
    }

    /// Then it is pending `times` times, and wakes whoever polls it at once each time: all wake-ups
    /// but the last are without cause.
    ///
    /// ```
    /// use futures::{FutureExt, StreamExt};
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// let mut orders = simulation.world().script("orders").pending(1).item(1);
    /// assert_eq!(orders.next().now_or_never(), None);
    /// assert_eq!(orders.next().now_or_never(), Some(Some(1)));
    /// ```
    #[must_use]
    pub fn pending(self, times: u64) -> Self {
        self.act(Act::Pending(times))
    }

    /// Then it wakes whoever polls it, `times` times and without cause, in the poll that goes on
    /// with the next act.
    ///
    /// ```
    /// use futures::StreamExt;
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// let orders = simulation.world().script("orders").stray_wakes(3).item(1);
    /// assert_eq!(simulation.run(orders.collect::<Vec<_>>()).unwrap(), [1]);
    /// ```
    #[must_use]
    pub fn stray_wakes(self, times: u64) -> Self {
        self.act(Act::StrayWakes(times))
    }

    /// Then it is pending for so long by the clock of the simulation.
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures::StreamExt;
    /// use watershed::Clock;
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// let world = simulation.world();
    /// let orders = world.script("orders").wait(Duration::from_nanos(5)).item(1);
    /// simulation.run(orders.collect::<Vec<_>>()).unwrap();
    /// assert_eq!(world.clock().now().as_nanos(), 5);
    /// ```
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        self.act(Act::Wait(wait))
    }

    /// Then it is pending for ever and wakes nobody.
    ///
    /// ```
    /// use futures::StreamExt;
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// let orders = simulation.world().script::<u32>("orders").never();
    /// assert!(simulation.run(orders.collect::<Vec<_>>()).is_err());
    /// ```
    #[must_use]
    pub fn never(self) -> Self {
        self.act(Act::Never)
    }

    /// Then it panics.
    ///
    /// ```
    /// use watershed::{BoxError, ErrorCode, fan_in};
    ///
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// let world = simulation.world();
    /// let context = world.context("orders");
    /// let orders = world.script::<u32>("orders").panic("a broken source");
    /// let drain = fan_in(&context, [orders], async |_, _| Ok::<_, BoxError>(()));
    /// let failure = simulation.run(drain).unwrap().unwrap_err();
    /// assert_eq!(failure.error().code(), ErrorCode::Panic);
    /// ```
    #[must_use]
    pub fn panic(self, message: impl Into<String>) -> Self {
        self.act(Act::Panic(message.into()))
    }

    /// How many polls there were.
    ///
    /// ```
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// assert_eq!(simulation.world().script::<u32>("orders").polls(), 0);
    /// ```
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.shared.lock().polls
    }

    /// How many of them came after its end. A drain never does that.
    ///
    /// ```
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// assert_eq!(simulation.world().script::<u32>("orders").polls_after_end(), 0);
    /// ```
    #[must_use]
    pub fn polls_after_end(&self) -> u64 {
        self.shared.lock().polls_after_end
    }

    /// How many items were taken by polls.
    ///
    /// ```
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// assert_eq!(simulation.world().script("orders").item(1).taken(), 0);
    /// ```
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.shared.lock().taken
    }

    /// Empties the script, and returns the items that nobody took.
    ///
    /// ```
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// let orders = simulation.world().script("orders").item(1).never().item(2);
    /// assert_eq!(orders.rest(), [1, 2]);
    /// ```
    #[must_use]
    pub fn rest(&self) -> Vec<T> {
        let acts = std::mem::take(&mut self.shared.lock().acts);
        acts.into_iter()
            .filter_map(|act| if let Act::Item(item) = act { Some(item) } else { None })
            .collect()
    }

    /// The next move of the script. Wakers, sleeps and items are touched without the lock.
    fn advance(&self) -> Move<T> {
        let mut shared = self.shared.lock();
        match shared.acts.pop_front() {
            Some(Act::Item(item)) => {
                shared.taken += 1;
                Move::Hand(item)
            }
            Some(Act::Pending(times)) => {
                let Some(left) = times.checked_sub(1) else {
                    drop(shared);
                    return self.advance();
                };
                if left > 0 {
                    shared.acts.push_front(Act::Pending(left));
                }
                Move::Wake
            }
            Some(Act::StrayWakes(times)) => Move::StrayWakes(times),
            Some(Act::Wait(wait)) => Move::Begin(wait),
            Some(Act::Waiting(sleep)) => Move::Wait(sleep),
            Some(Act::Never) => {
                shared.acts.push_front(Act::Never);
                Move::Never
            }
            Some(Act::Panic(message)) => Move::Panic(message),
            None => {
                if std::mem::replace(&mut shared.ended, true) {
                    shared.polls_after_end += 1;
                }
                Move::End
            }
        }
    }

    fn note(&self, what: &str) {
        self.world.note(format!("{}: {what}", self.name));
    }
}

impl<T, E> Script<Result<T, E>> {
    /// Then it faults: it is ready with `Err(error)`.
    ///
    /// ```
    /// use futures::StreamExt;
    /// # let simulation = watershed::testing::Simulation::new(7);
    /// let orders = simulation.world().script("orders").item(Ok(1)).fault("gone");
    /// assert_eq!(simulation.run(orders.collect::<Vec<_>>()).unwrap(), [Ok(1), Err("gone")]);
    /// ```
    #[must_use]
    pub fn fault(self, error: E) -> Self {
        self.item(Err(error))
    }
}

impl<T> Stream for Script<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.shared.lock().polls += 1;
        loop {
            let mut sleep = match self.advance() {
                Move::Hand(item) => {
                    self.note("ready");
                    return Poll::Ready(Some(item));
                }
                Move::Wake => {
                    self.note("pending");
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Move::StrayWakes(times) => {
                    self.note("stray wake-up");
                    (0..times).for_each(|_| cx.waker().wake_by_ref());
                    continue;
                }
                Move::Begin(wait) => {
                    let clock = self.world.clock();
                    clock.sleep_until(clock.now() + wait)
                }
                Move::Wait(sleep) => sleep,
                Move::Never => {
                    self.note("pending for ever");
                    return Poll::Pending;
                }
                Move::Panic(message) => {
                    self.note("panic");
                    std::panic::panic_any(message);
                }
                Move::End => {
                    self.note("ended");
                    return Poll::Ready(None);
                }
            };
            if sleep.as_mut().poll(cx).is_pending() {
                self.note("waits");
                self.shared.lock().acts.push_front(Act::Waiting(sleep));
                return Poll::Pending;
            }
        }
    }
}

impl<T> Clone for Script<T> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            world: self.world.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> fmt::Debug for Script<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("name", &self.name)
            .field("taken", &self.taken())
            .finish_non_exhaustive()
    }
}
