//! Which tasks may run at once.
//!
//! A task asks for its permit when it is first polled, and waits behind those that asked before it.
//! A permit that is given back goes to the first who waits: its waker leaves the queue, and that is
//! how it knows.

use std::task::Waker;

use crate::waiters::Waiters;

/// What a task has of a permit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Permit {
    #[default]
    None,
    /// It waits under this key, or was given a permit since it last looked.
    Asked(u64),
    Held,
}

#[derive(Debug, Default)]
pub(super) struct Permits {
    /// All may run where there is none.
    limit: Option<usize>,
    held: usize,
    queue: Waiters,
}

impl Permits {
    pub(super) fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// Who is woken because there is more room.
    pub(super) fn set_limit(&mut self, limit: usize) -> Vec<Waker> {
        self.limit = Some(limit);
        self.grant()
    }

    fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.held < limit)
    }

    /// Whether the task with this permit may run; `waker` is woken when it may. Returns the waker
    /// that is not needed any more as well.
    pub(super) fn ask(&mut self, permit: &mut Permit, waker: Waker) -> (bool, Option<Waker>) {
        match *permit {
            Permit::Held => return (true, Some(waker)),
            Permit::Asked(key) if !self.queue.contains(key) => {
                *permit = Permit::Held;
                return (true, Some(waker));
            }
            Permit::None if self.queue.is_empty() && self.has_room() => {
                self.held += 1;
                *permit = Permit::Held;
                return (true, Some(waker));
            }
            Permit::None | Permit::Asked(_) => {}
        }
        let mut key = if let Permit::Asked(key) = *permit { Some(key) } else { None };
        let old = self.queue.wait(&mut key, waker);
        *permit = key.map_or(Permit::None, Permit::Asked);
        (false, old)
    }

    /// A task does not run any more, or will not. Returns who is woken for it, and the waker that is
    /// not needed any more.
    pub(super) fn give_back(&mut self, permit: Permit) -> (Vec<Waker>, Option<Waker>) {
        match permit {
            Permit::None => return (Vec::new(), None),
            Permit::Asked(key) => {
                if let Some(waker) = self.queue.remove(key) {
                    return (Vec::new(), Some(waker));
                }
            }
            Permit::Held => {}
        }
        self.held -= 1;
        (self.grant(), None)
    }

    fn grant(&mut self) -> Vec<Waker> {
        let mut granted = Vec::new();
        while self.has_room() {
            let Some(waker) = self.queue.take_first() else { break };
            self.held += 1;
            granted.push(waker);
        }
        granted
    }

    /// The group stops: whoever waits is let through, to see that it is not to begin.
    pub(super) fn open(&mut self) -> Vec<Waker> {
        self.limit = None;
        self.grant()
    }
}
