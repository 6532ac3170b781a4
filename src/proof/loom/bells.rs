//! Every schedule of a drain that looks at its desks and of those who ring.

use std::task::{Poll, Waker};

use super::every_schedule;
use crate::proof::executor::block_on;
use crate::settlement::{BellPull, DeskBell, DeskBells};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, thread};

// Rule 7.1
#[test]
fn what_rings_while_the_drain_looks_is_looked_at_again() {
    for rings in [vec![1, 1], vec![2]] {
        every_schedule("desks that are rung", Some(3), move || {
            let bells = std::sync::Arc::new(DeskBells::default());
            let bell = DeskBell::new(0, &bells);
            let (told, all) = (Arc::new(AtomicUsize::new(0)), rings.iter().sum::<usize>());
            let threads: Vec<_> = rings
                .clone()
                .into_iter()
                .map(|times| {
                    let (told, waker) = (Arc::clone(&told), Waker::from(bell.clone()));
                    thread::spawn(move || {
                        for _ in 0..times {
                            told.fetch_add(1, Ordering::AcqRel);
                            waker.wake_by_ref();
                        }
                    })
                })
                .collect();
            let mut rung = Vec::new();
            block_on(std::future::poll_fn(|cx| {
                bells.listen(cx.waker());
                bells.take(&mut rung);
                let mut heard = 0;
                for _ in &rung {
                    bell.is_heard();
                    heard = told.load(Ordering::Acquire);
                }
                if heard == all { Poll::Ready(()) } else { Poll::Pending }
            }));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}

// Rule 7.1
#[test]
fn what_is_said_before_the_drain_looks_is_seen_and_what_is_said_behind_that_rings_again() {
    every_schedule("a desk that is told something", Some(3), || {
        let bells = std::sync::Arc::new(DeskBells::default());
        let bell = DeskBell::new(0, &bells);
        let (pull, told) = (Arc::new(BellPull::default()), Arc::new(AtomicUsize::new(0)));
        pull.hang(Some(bell.clone()));
        let owner = {
            let (pull, told) = (Arc::clone(&pull), Arc::clone(&told));
            thread::spawn(move || {
                told.fetch_add(1, Ordering::AcqRel);
                pull.pull();
            })
        };
        let (mut rung, mut seen) = (Vec::new(), 0);
        let mut look = || {
            bells.take(&mut rung);
            for _ in &rung {
                bell.is_heard();
                pull.is_heard();
                seen = told.load(Ordering::Acquire);
            }
            seen
        };
        look();
        owner.join().unwrap();
        assert_eq!(look(), 1);
    });
}
