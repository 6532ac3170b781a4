//! The moments at which places of a bank are to be polled: deadlines of messages, due retries,
//! rates. One timer a bank, for the earliest.
//!
//! A place has one alarm that counts, the earliest it asked for. When it rings the place is polled,
//! looks at the clock itself, and asks for the next one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::task::Context;

use crate::clock::{Alarm, Clock, Tick};

#[derive(Default)]
pub(super) struct Alarms {
    heap: BinaryHeap<Reverse<(Tick, u32)>>,
    /// By place: its alarm, `Tick::MAX` for none. As long as the last place that ever had one.
    places: Vec<Tick>,
    /// How many places have one.
    set: usize,
    timer: Option<Alarm>,
}

impl Alarms {
    /// Has a place polled at this moment, or earlier where it asked for that before.
    #[inline]
    pub(super) fn set(&mut self, place: u32, at: Tick) {
        if at != Tick::MAX {
            self.set_one(place, at);
        }
    }

    fn set_one(&mut self, place: u32, at: Tick) {
        let index = place as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, Tick::MAX);
        }
        if self.places[index] <= at {
            return;
        }
        self.set += usize::from(self.places[index] == Tick::MAX);
        self.places[index] = at;
        self.heap.push(Reverse((at, place)));
        if self.heap.len() > 2 * self.set + 64 {
            self.compact();
        }
    }

    /// Forgets the alarms that were replaced by earlier ones.
    fn compact(&mut self) {
        let entries = self.places.iter().zip(0_u32..);
        self.heap = entries
            .filter(|(at, _)| **at != Tick::MAX)
            .map(|(at, place)| Reverse((*at, place)))
            .collect();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set == 0
    }

    /// Hands out the places whose alarm rings, and has the task woken for the next one.
    pub(super) fn poll(
        &mut self,
        clock: &Arc<dyn Clock>,
        cx: &mut Context<'_>,
        mut rings: impl FnMut(u32),
    ) {
        loop {
            let now = clock.now();
            while let Some(Reverse((at, place))) = self.heap.peek().copied() {
                let counts = self.places[place as usize] == at;
                if counts && at > now {
                    break;
                }
                self.heap.pop();
                if counts {
                    self.places[place as usize] = Tick::MAX;
                    self.set -= 1;
                    rings(place);
                }
            }
            let Some(Reverse((next, _))) = self.heap.peek().copied() else {
                self.timer = None;
                return;
            };
            if self.timer.as_ref().is_none_or(|timer| timer.tick() != next) {
                self.timer = Some(Alarm::at(clock, next));
            }
            let Some(timer) = &mut self.timer else { return };
            if timer.poll(cx).is_pending() {
                return;
            }
        }
    }
}
