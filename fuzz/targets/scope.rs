//! A scope and up to two rollbacks of it, which are polled, cancelled and dropped at any time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Waker};

use futures::Future;
use watershed::testing::Simulation;
use watershed::{CancellationSource, CompensationScope};

use super::program::{Bytes, Plan, Policy};
use super::reference::ROOT;
use super::run::{Interpreter, Told, listed};

/// Operations in one run; a longer one shows nothing new.
const MOST: usize = 200;

pub fn scope(bytes: &[u8]) {
    let simulation = Simulation::new(0);
    let world = simulation.world();
    let run = Interpreter::new(world, &world.context("scope"));
    run.book.lock().lenient = true;
    operate(&run, &mut Bytes::new(bytes));
    let left = run.root.clear();
    run.book.lock().cleared(ROOT, left);
    assert!(run.root.is_empty(), "a clear left something");
    let verdict = run.book.lock().verdict();
    if let Err(wrong) = verdict {
        panic!("{wrong}{}", listed(&world.trace()));
    }
}

fn operate(run: &Interpreter, bytes: &mut Bytes<'_>) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut rollbacks: [Option<(Told, CancellationSource)>; 2] = [None, None];
    let mut reservations = VecDeque::new();
    for _ in 0..MOST {
        if bytes.is_empty() {
            break;
        }
        let slot = usize::from(bytes.below(2));
        match bytes.below(12) {
            0 | 1 => {
                run.register(ROOT, &run.root, Plan::decode(bytes));
            }
            2 => reservations.push_back(run.reserve(ROOT, &run.root, Plan::decode(bytes))),
            3 => {
                let child = CompensationScope::new();
                for _ in 0..bytes.below(3) {
                    let plan = Plan { at_home: false, ..Plan::decode(bytes) };
                    run.register(ROOT, &child, plan);
                }
                run.root.absorb(&child);
                assert!(child.is_empty(), "an absorbed scope has actions");
            }
            // One that a rollback has taken is still staged, and out of reach just now.
            4 if rollbacks.iter().all(Option::is_none) => {
                if let Some((effect, reservation)) = reservations.pop_front() {
                    let withdrawn = reservation.disarm();
                    run.book.lock().disarmed(effect, withdrawn);
                }
            }
            // One that runs all at once counts those that have not started as running.
            5 if !run.book.lock().runs_in_parallel() => {
                let count = run.root.clear();
                run.book.lock().cleared(ROOT, count);
            }
            6 => {
                let stop = CancellationSource::new();
                let told = run.roll_back(Policy::decode(bytes), &stop);
                rollbacks[slot] = Some((told, stop));
            }
            7 => rollbacks[slot] = None,
            8 => {
                if let Some((_, stop)) = &rollbacks[slot] {
                    stop.cancel();
                }
            }
            9 => {
                run.world.clock().advance_to_next();
            }
            _ => {
                let Some((told, _)) = &mut rollbacks[slot] else { continue };
                if Pin::new(told).poll(&mut cx).is_ready() {
                    rollbacks[slot] = None;
                }
            }
        }
        run.check_count("after an operation");
    }
}
