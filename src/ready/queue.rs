//! In which order the places of a bank are polled.
//!
//! Every place is polled at most once a round. Those that were woken and had no turn yet in this
//! round go first, then those that are left of the last one, in the order of their last turns; who
//! had its turn waits for the next round. So between two turns of a place that is always ready
//! every other one has its turn, and a rare one is heard at once beside any number that are always
//! ready.

use std::sync::Arc;
use std::task::Waker;

use super::inbox::{self, Inbox, Node};
use super::line::Line;
use super::local;
use crate::sync::atomic::AtomicUsize;

pub(crate) struct ReadyQueue {
    inbox: Arc<Inbox>,
    rounds: Rounds,
    awake: bool,
}

struct Rounds {
    /// Woken, and without a turn in this round.
    first: Line,
    /// Left of the last round.
    then: Line,
    /// For the next round.
    next: Line,
    /// By place: the round of its last turn, and whether it is in one of the queues.
    places: Vec<PlaceStanding>,
    round: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct PlaceStanding {
    served: u32,
    queued: bool,
}

/// What the thread was at when a turn began.
pub(crate) struct OuterTurn(local::Before);

impl Rounds {
    #[inline]
    fn push(&mut self, number: u32) {
        let Some(place) = self.places.get_mut(number as usize) else { return };
        if place.queued {
            return;
        }
        place.queued = true;
        if place.served == self.round {
            self.next.push(number);
        } else {
            self.first.push(number);
        }
    }
}

impl ReadyQueue {
    /// A queue without places, of a bank that counts among those `roused` until it is polled.
    pub(crate) fn new(roused: &Arc<AtomicUsize>) -> Self {
        let rounds = Rounds {
            first: Line::default(),
            then: Line::default(),
            next: Line::default(),
            places: Vec::new(),
            round: 1,
        };
        Self { inbox: Arc::new(Inbox::new(roused)), rounds, awake: false }
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// A new place with this number.
    pub(crate) fn node(&mut self, number: u32) -> Arc<Node> {
        let needed = number as usize + 1;
        if self.rounds.places.len() < needed {
            self.rounds.places.resize(needed, PlaceStanding::default());
        }
        Arc::new(Node::new(number, &self.inbox))
    }

    /// Makes room for places that are about to come.
    pub(crate) fn reserve(&mut self, places: usize) {
        self.rounds.places.reserve_exact(places);
    }

    /// Begins a turn of the bank.
    #[inline]
    pub(crate) fn enter(&mut self) -> OuterTurn {
        self.inbox.begin(!std::mem::replace(&mut self.awake, true));
        OuterTurn(local::enter(inbox::address(&self.inbox)))
    }

    /// Ends a turn of the bank.
    #[inline]
    pub(crate) fn leave(&mut self, outer: OuterTurn) {
        let mut late = false;
        local::leave(outer.0, |number| {
            late = true;
            self.rounds.push(number);
        });
        if late && !self.awake {
            // It was asleep already: a clock, or the destructor of a waker, may wake places then.
            self.inbox.rouse();
        }
    }

    /// Takes in what was woken.
    #[inline]
    pub(crate) fn collect(&mut self) {
        let Self { inbox, rounds, .. } = self;
        local::drain(|number| rounds.push(number));
        inbox.drain(rounds.places.len(), |number| rounds.push(number));
    }

    /// Puts a place where it belongs, unless it is in a queue.
    #[inline]
    pub(crate) fn push(&mut self, number: u32) {
        self.rounds.push(number);
    }

    /// Puts a place that goes on behind whatever was woken meanwhile.
    #[inline]
    pub(crate) fn push_behind(&mut self, number: u32) {
        self.collect();
        self.rounds.push(number);
    }

    /// Begins the turn of the place that is first. `woken_only`: it is not the bank's turn, and only
    /// those are served that were woken.
    #[inline]
    pub(crate) fn pop(&mut self, woken_only: bool) -> Option<u32> {
        let number = match self.rounds.first.pop() {
            Some(number) => number,
            // Whoever was woken meanwhile is behind those.
            None => self.pop_collected(woken_only)?,
        };
        self.serve(number);
        Some(number)
    }

    #[inline]
    fn pop_collected(&mut self, woken_only: bool) -> Option<u32> {
        self.collect();
        match self.rounds.first.pop() {
            Some(number) => Some(number),
            None if woken_only => None,
            None => self.rounds.then.pop(),
        }
    }

    /// Begins the turn of a place that is in no queue, or leaves the queue by having its turn.
    #[inline]
    pub(crate) fn serve(&mut self, number: u32) {
        let round = self.rounds.round;
        if let Some(place) = self.rounds.places.get_mut(number as usize) {
            *place = PlaceStanding { served: round, queued: false };
        }
    }

    /// Whether any place is left, for this round or the next.
    pub(crate) fn has_more(&self) -> bool {
        !self.rounds.next.is_empty() || !self.rounds.then.is_empty()
    }

    /// The number of the round, which wraps.
    #[inline]
    pub(crate) fn round(&self) -> u32 {
        self.rounds.round
    }

    /// Begins the next round.
    #[inline]
    pub(crate) fn advance(&mut self) {
        let rounds = &mut self.rounds;
        rounds.round = rounds.round.wrapping_add(1);
        if rounds.then.is_empty() {
            std::mem::swap(&mut rounds.then, &mut rounds.next);
        } else {
            rounds.then.append(&mut rounds.next);
        }
    }

    /// Whether nothing has come, and `task` will be woken by what comes.
    pub(crate) fn sleep(&mut self, task: &Waker) -> bool {
        if self.inbox.sleep(task) {
            self.awake = false;
        }
        !self.awake
    }
}

impl Drop for ReadyQueue {
    fn drop(&mut self) {
        self.inbox.close();
    }
}
