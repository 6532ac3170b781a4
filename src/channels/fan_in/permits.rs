//! Who may run a handler: a count of permits and a first-come, first-served queue of lanes.
//!
//! A permit that is given back goes to the lane that has waited longest; that lane is woken, and
//! passes the permit on if it finds its source empty.

use std::collections::VecDeque;
use std::task::Waker;

use crate::panics;

#[derive(Debug)]
pub(super) struct Permits {
    free: usize,
    queue: VecDeque<(usize, Waker)>,
    /// By lane: whether it waits, or was given a permit while it waited.
    standing: Vec<Standing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Away,
    Waiting,
    Granted,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self { free: count, queue: VecDeque::new(), standing: Vec::new() }
    }

    /// Lets another lane queue, and returns its number.
    pub(super) fn add_lane(&mut self) -> usize {
        self.standing.push(Standing::Away);
        self.standing.len() - 1
    }

    /// Takes a permit for `lane`, or puts it at the end of the queue.
    pub(super) fn acquire(&mut self, lane: usize, waker: &Waker) -> bool {
        match self.standing[lane] {
            Standing::Granted => self.standing[lane] = Standing::Away,
            Standing::Away if self.free > 0 => self.free -= 1,
            Standing::Away => {
                self.standing[lane] = Standing::Waiting;
                self.queue.push_back((lane, waker.clone()));
                return false;
            }
            // Woken for nothing: its waker is that of its task, which has not changed.
            Standing::Waiting => return false,
        }
        true
    }

    /// Gives a permit back, or on to the lane that has waited longest.
    pub(super) fn release(&mut self) {
        match self.queue.pop_front() {
            Some((lane, waker)) => {
                self.standing[lane] = Standing::Granted;
                panics::wake_each([waker]);
            }
            None => self.free += 1,
        }
    }

    /// Takes a lane out of the queue in which it waits: it will not come back.
    pub(super) fn leave(&mut self, lane: usize) {
        self.standing[lane] = Standing::Away;
        self.queue.retain(|(waiting, _)| *waiting != lane);
    }

    /// Whether a lane waits for a permit.
    pub(super) fn is_contended(&self) -> bool {
        !self.queue.is_empty()
    }
}
