//! What comes and goes for ever, in memory that does not grow: destinations of a broadcast, tasks of an
//! open group, sources of cancellations. Bytes are counted, in a process of its own.

use std::collections::VecDeque;
use std::future::IntoFuture;

use watershed::channels::{OnClosed, broadcast};
use watershed::group::Group;
use watershed::{BoxError, CancellationSource, CancellationToken, OnFailure, StepContext};

use crate::bytes::held;
use crate::effort::effort;
use crate::support::Hand;
use crate::support::alone::alone;

/// Bytes by which anything may grow behind its beginning: what grows by a byte in two turns is beyond.
const LEVEL: i64 = 12 << 10;

fn turns() -> usize {
    effort(30_000, 300_000, 10_000_000)
}

/// Takes so many turns, and looks at the bytes from a tenth of them on.
fn flat(name: &str, mut turn: impl FnMut(usize)) {
    let turns = turns();
    let (mut least, mut most) = (i64::MAX, i64::MIN);
    for number in 0..turns {
        turn(number);
        if number >= turns / 10 && number % (turns / 50) == 0 {
            least = least.min(held());
            most = most.max(held());
        }
    }
    let grown = most - least;
    println!("{turns} turns, {name}: {least} bytes, grown by {grown}");
    assert!(grown < LEVEL, "{name}: grown by {grown} bytes");
}

// Rule 6.4
#[test]
fn destinations_come_and_go_in_flat_memory() {
    alone(module_path!(), "destinations_come_and_go_in_flat_memory", || {
        let (feed, source) = async_channel::bounded(4);
        let context = StepContext::new("flat");
        let none = None::<async_channel::Sender<usize>>;
        let mut news = broadcast(&context, source, none).on_closed(OnClosed::Detach);
        let subscribers = news.subscribers();
        let mut news = Hand::new(news.into_future());
        let mut there = VecDeque::new();
        flat("destinations", |number| {
            let (sender, receiver) = async_channel::bounded(1);
            there.push_back((subscribers.add(sender).expect("it runs"), receiver));
            feed.try_send(number).expect("the last one was taken");
            assert!(news.run().is_pending());
            if there.len() > 8 {
                let (position, receiver) = there.pop_front().expect("there are some");
                // By closing, and by a removal with an item in hand.
                if number % 2 == 0 {
                    receiver.close();
                } else {
                    assert!(subscribers.remove(position));
                }
            }
            assert!(news.run().is_pending());
            for (_, receiver) in &there {
                while receiver.try_recv().is_ok() {}
            }
            assert!(news.run().is_pending() && feed.is_empty());
        });
        assert!(subscribers.len() <= 8);
    });
}

// Rule 6.4
#[test]
fn tasks_of_an_open_group_come_and_go_in_flat_memory() {
    alone(module_path!(), "tasks_of_an_open_group_come_and_go_in_flat_memory", || {
        let group = Group::new(&StepContext::new("flat"));
        let group = group.on_failure(OnFailure::Continue).concurrency(3);
        let door = group.clone();
        let mut wait = Hand::new(group.wait());
        flat("tasks", |number| {
            let work = move |_| async move {
                if number % 5 == 0 { Err(BoxError::from("no")) } else { Ok(()) }
            };
            door.go(None, work).expect("it is open");
            if number % 10 == 9 {
                while door.report().outstanding() > 0 {
                    assert!(wait.run().is_pending());
                }
            }
        });
        drop(door);
        let failure = match wait.run() {
            std::task::Poll::Ready(result) => result.expect_err("some failed"),
            std::task::Poll::Pending => panic!("nobody can add a task"),
        };
        assert_eq!(failure.report().completions(), turns() as u64);
    });
}

// Rule 3.5
#[test]
fn sources_that_cancel_for_a_reason_come_and_go_in_flat_memory() {
    alone(module_path!(), "sources_that_cancel_for_a_reason_come_and_go_in_flat_memory", || {
        let process = CancellationSource::new();
        flat("cancellations", |number| {
            let request = CancellationSource::new();
            let token = CancellationToken::linked([process.token(), request.token()]);
            let mut waiting = Hand::new(token.cancelled());
            assert!(waiting.run().is_pending());
            let guard = request.clone().drop_guard();
            if number % 2 == 0 {
                request.cancel_with(format!("request {number} is over"));
            }
            drop(guard);
            assert!(waiting.run().is_ready() && token.reason().is_some());
        });
    });
}
