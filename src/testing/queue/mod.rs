//! A queue in memory that is settled message by message, and answers as a script says.
//!
//! - here: the queue, how it is set up, and what became of its messages
//! - `answers`: what a script can say
//! - `rows`: the messages, their leases and receipts
//! - `calls`: the queue as a transport

mod answers;
mod calls;
mod rows;

use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

pub use answers::{FetchAnswer, RenewalAnswer, SettleAnswer};
pub use calls::QueueCall;
pub use rows::QueueReceipt;

use super::world::World;
use crate::clock::Clock;
use crate::lock::Lock;
use crate::panics;
use crate::settlement::Able;
use answers::Answers;
use rows::Rows;

/// A queue in memory, with leases, receipts and delivery counts: a [`Transport`](crate::transport::Transport)
/// whose calls are answered as a script says, or a seed. Clones are the same queue, so that a test
/// keeps one and links the other.
///
/// A message is out for as long as its lease runs, or until it is settled. Each delivery has a token
/// of its own, and where the queue [fences](Able::fences), an old one settles nothing. A release takes
/// the delivery back from the count where nobody has begun it.
///
/// | option | default |
/// | --- | --- |
/// | [`able`](ScriptedQueue::able) | fences, renews, delays, counts, batches of 10, prefetches 4 |
/// | [`leased_for`](ScriptedQueue::leased_for) | 30 seconds |
/// | [`latency`](ScriptedQueue::latency) | none |
/// | [`endless`](ScriptedQueue::endless) | it ends when it is empty |
/// | [`grouped_by`](ScriptedQueue::grouped_by) | no groups |
/// | [`redrives_after`](ScriptedQueue::redrives_after) | never |
///
/// ```
/// use watershed::testing::{ScriptedQueue, SettleAnswer, Simulation};
/// use watershed::transport::Link;
/// use watershed::{BoxError, fan_in};
///
/// let simulation = Simulation::new(7);
/// let queue = ScriptedQueue::new(simulation.world()).with(["tea", "cake"]);
/// // The first verdict is not applied, and nobody knows.
/// queue.settles([SettleAnswer::Unknown]);
///
/// let context = simulation.world().context("orders");
/// let link = Link::new(queue.clone());
/// let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
/// let report = simulation.run(drain).unwrap().unwrap();
/// // It came again when its lease had run out.
/// assert_eq!((report.fetched(), report.accepted(), report.unknown()), (3, 2, 1));
/// assert_eq!(queue.accepted().last().map(|receipt| receipt.number), Some(0));
/// assert!(queue.left().is_empty());
/// ```
pub struct ScriptedQueue<M> {
    shared: Arc<QueueShared<M>>,
}

struct QueueShared<M> {
    clock: Arc<dyn Clock>,
    state: Lock<QueueState<M>>,
}

struct QueueState<M> {
    able: Able,
    latency: Duration,
    endless: bool,
    rows: Rows<M>,
    answers: Answers,
    calls: Vec<QueueCall>,
    /// Verdicts that are in a call, and the most that were at once.
    settling: usize,
    most_settling: usize,
    closed: usize,
    /// Fetches that wait for a message.
    waiting: Vec<Waker>,
    /// How often messages have come.
    pushed: u64,
}

impl<M> ScriptedQueue<M> {
    /// An empty queue in the world of a simulation.
    #[must_use]
    pub fn new(world: &World) -> Self {
        Self::with_clock(world.clock().clone())
    }

    /// An empty queue whose leases go by this clock.
    #[must_use]
    pub fn with_clock(clock: impl Clock + 'static) -> Self {
        let able = Able::each().fences().renews().delays().counts().batches_of(10).prefetches(4);
        let state = QueueState {
            able,
            latency: Duration::ZERO,
            endless: false,
            rows: Rows::new(),
            answers: Answers::default(),
            calls: Vec::new(),
            settling: 0,
            most_settling: 0,
            closed: 0,
            waiting: Vec::new(),
            pushed: 0,
        };
        Self { shared: Arc::new(QueueShared { clock: Arc::new(clock), state: Lock::new(state) }) }
    }

    fn set(self, change: impl FnOnce(&mut QueueState<M>)) -> Self {
        change(&mut self.shared.state.lock());
        self
    }

    /// What the queue can do, and says that it can.
    #[must_use]
    pub fn able(self, able: Able) -> Self {
        self.set(|state| state.able = able)
    }

    /// How long a message is out.
    #[must_use]
    pub fn leased_for(self, term: Duration) -> Self {
        self.set(|state| state.rows.term = term)
    }

    /// How long each call takes; a fetch, once it has a message.
    #[must_use]
    pub fn latency(self, latency: Duration) -> Self {
        self.set(|state| state.latency = latency)
    }

    /// It is not at its end when it is empty.
    #[must_use]
    pub fn endless(self) -> Self {
        self.set(|state| state.endless = true)
    }

    /// It keeps order by group, as FIFO queues do: while one message of a group is out, no other one
    /// of it is fetched, but several may come at once. What it [can do](ScriptedQueue::able) is to say
    /// so, too.
    #[must_use]
    pub fn grouped_by<G: Into<Arc<str>>>(self, group: impl Fn(&M) -> G + Send + 'static) -> Self {
        self.set(|state| state.rows.group_by(Box::new(move |message| group(message).into())))
    }

    /// A message that was delivered so often, and comes back, is put aside: see
    /// [`redriven`](ScriptedQueue::redriven).
    #[must_use]
    pub fn redrives_after(self, deliveries: u32) -> Self {
        self.set(|state| state.rows.redrives_after = Some(deliveries))
    }

    /// Once its scripts are at their end, so many of a hundred calls and verdicts are answered in an
    /// unusual way, by the seed.
    #[must_use]
    pub fn seeded(self, seed: u64, percent: u64) -> Self {
        self.set(|state| state.answers.seed(seed, percent))
    }

    /// The same queue with these messages as well.
    #[must_use]
    pub fn with(self, messages: impl IntoIterator<Item = M>) -> Self {
        for message in messages {
            self.push(message);
        }
        self
    }

    /// One more message; returns its number, from 0 on.
    #[allow(clippy::must_use_candidate, reason = "numbers go up from 0")]
    pub fn push(&self, message: M) -> u64 {
        self.come(|rows| rows.push(message))
    }

    /// The next verdicts are answered like this, in the order in which they come.
    pub fn settles(&self, answers: impl IntoIterator<Item = SettleAnswer>) {
        self.shared.state.lock().answers.settles.extend(answers);
    }

    /// The next renewals are answered like this.
    pub fn renews(&self, answers: impl IntoIterator<Item = RenewalAnswer>) {
        self.shared.state.lock().answers.renews.extend(answers);
    }

    /// The next fetches are answered like this.
    pub fn fetches(&self, answers: impl IntoIterator<Item = FetchAnswer>) {
        self.shared.state.lock().answers.fetches.extend(answers);
    }

    /// A message that is out can be fetched once more, as if its lease had run out; its receipt is an
    /// old one.
    pub fn redeliver(&self, number: u64) {
        self.come(|rows| rows.expire(number));
    }

    /// Messages have come: whoever waits for some looks again.
    fn come<R>(&self, change: impl FnOnce(&mut Rows<M>) -> R) -> R {
        let (result, waiting) = {
            let mut state = self.shared.state.lock();
            state.pushed += 1;
            (change(&mut state.rows), std::mem::take(&mut state.waiting))
        };
        panics::wake_each(waiting);
        result
    }

    /// The messages that are in the queue, out or not.
    #[must_use]
    pub fn left(&self) -> Vec<u64> {
        self.shared.state.lock().rows.left()
    }

    /// Those of them that are out.
    #[must_use]
    pub fn out(&self) -> Vec<u64> {
        let now = self.shared.clock.now();
        self.shared.state.lock().rows.out(now)
    }

    /// The deliveries that were accepted, in that order. Of one message two, where a queue that does not
    /// fence was told twice.
    #[must_use]
    pub fn accepted(&self) -> Vec<QueueReceipt> {
        self.shared.state.lock().rows.accepted.clone()
    }

    /// The messages that were rejected, in that order.
    #[must_use]
    pub fn rejected(&self) -> Vec<u64> {
        self.shared.state.lock().rows.rejected.clone()
    }

    /// The messages that were put aside because they came too often.
    #[must_use]
    pub fn redriven(&self) -> Vec<u64> {
        self.shared.state.lock().rows.redriven.clone()
    }

    /// How often a message has been delivered, as the queue counts.
    #[must_use]
    pub fn deliveries(&self, number: u64) -> u32 {
        self.shared.state.lock().rows.deliveries(number)
    }

    /// All calls so far, as they arrived.
    #[must_use]
    pub fn calls(&self) -> Vec<QueueCall> {
        self.shared.state.lock().calls.clone()
    }

    /// The most verdicts that were with the queue at a time.
    #[must_use]
    pub fn most_settling(&self) -> usize {
        self.shared.state.lock().most_settling
    }

    /// How often it was closed.
    #[must_use]
    pub fn closed(&self) -> usize {
        self.shared.state.lock().closed
    }
}

impl<M> Clone for ScriptedQueue<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M> fmt::Debug for ScriptedQueue<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("ScriptedQueue")
            .field("left", &state.rows.left())
            .field("calls", &state.calls.len())
            .finish_non_exhaustive()
    }
}
