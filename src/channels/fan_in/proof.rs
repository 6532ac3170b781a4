//! Every schedule of lanes that share permits.
//!
//! In a drain, lanes are polled one after another by one task. Here each of them is a thread of its
//! own: what holds for those in any order holds for the drain.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use super::permits::Permits;
use crate::proof::executor::block_on;
use crate::proof::loom::every_schedule;
use crate::sync::{Mutex, thread};

/// Permits, and beside them what they should come to.
struct Desk {
    permits: Permits,
    /// Lanes that were put off, in their order.
    queue: VecDeque<usize>,
    /// How many of them, from the first on, have a permit and have not come for it.
    granted: usize,
}

impl Desk {
    fn acquire(&mut self, lane: usize, waker: &Waker) -> bool {
        let acquired = self.permits.acquire(lane, waker);
        match self.queue.iter().position(|waiting| *waiting == lane) {
            None if acquired => {}
            None => self.queue.push_back(lane),
            Some(place) => {
                assert_eq!(acquired, place < self.granted, "those who have waited longest");
                if acquired {
                    self.granted -= 1;
                    self.queue.remove(place);
                }
            }
        }
        acquired
    }

    fn release(&mut self) {
        self.granted = self.queue.len().min(self.granted + 1);
        self.permits.release();
    }
}

/// So many lanes share so many permits, each for so many messages.
fn share(
    name: &'static str,
    interruptions: Option<usize>,
    permits: usize,
    turns: &'static [usize],
) {
    every_schedule(name, interruptions, move || {
        let mut desk = Desk { permits: Permits::new(permits), queue: VecDeque::new(), granted: 0 };
        let lanes: Vec<_> = turns.iter().map(|turns| (desk.permits.add_lane(), *turns)).collect();
        let (desk, busy) = (Arc::new(Mutex::new(desk)), Arc::new(AtomicUsize::new(0)));
        let run = |(lane, turns)| {
            let (desk, busy) = (Arc::clone(&desk), Arc::clone(&busy));
            move || {
                for _ in 0..turns {
                    block_on(poll_fn(|cx| {
                        let granted = desk.lock().unwrap().acquire(lane, cx.waker());
                        if granted { Poll::Ready(()) } else { Poll::Pending }
                    }));
                    assert!(busy.fetch_add(1, Ordering::SeqCst) < permits);
                    thread::yield_now();
                    busy.fetch_sub(1, Ordering::SeqCst);
                    desk.lock().unwrap().release();
                }
            }
        };
        let (here, there) = lanes.split_first().unwrap();
        let threads: Vec<_> = there.iter().map(|lane| thread::spawn(run(*lane))).collect();
        run(*here)();
        for thread in threads {
            thread.join().unwrap();
        }
        // Every permit is back, and there is no other.
        let mut desk = desk.lock().unwrap();
        assert!(desk.queue.is_empty() && !desk.permits.is_contended());
        let waker = Waker::noop();
        let taken = (0..=permits).filter(|_| {
            let lane = desk.permits.add_lane();
            desk.permits.acquire(lane, waker)
        });
        assert_eq!(taken.count(), permits);
    });
}

// Rules 2.2 and 2.3
#[test]
fn lanes_get_permits_in_the_order_in_which_they_came() {
    share("three lanes share a permit", Some(3), 1, &[1, 1, 1]);
    share("two lanes share a permit, again and again", None, 1, &[2, 2]);
    share("three lanes share two permits", Some(3), 2, &[1, 2, 1]);
}
