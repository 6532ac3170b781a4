//! A group whose tasks are added, and which is awaited, cancelled and dropped, at any time. Every
//! effect of a task is staged at the end, or was undone by the group, once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use futures::FutureExt;
use watershed::group::Group;
use watershed::testing::Simulation;
use watershed::{BoxError, CompensationPolicy, StepContext};

use super::program::Bytes;

/// Operations in one run; a longer one shows nothing new.
const MOST: usize = 100;

pub fn group(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let simulation = Simulation::new(0);
    let world = simulation.world();
    let context = world.context("group");
    let done = Arc::new(Mutex::new(BTreeSet::new()));
    let undone = Arc::new(Mutex::new(Vec::new()));
    let mut group = Group::new(&context);
    let rolls_back = bytes.one_in(2);
    if rolls_back {
        group = group.roll_back(CompensationPolicy::sequential_reverse());
    }
    if bytes.one_in(3) {
        group = group.timeout(bytes.wait(8));
    }
    if bytes.one_in(2) {
        group = group.grace(bytes.wait(4));
    }
    if bytes.one_in(2) {
        group = group.concurrency(1 + usize::from(bytes.below(3)));
    }
    let mut result = None;
    // Dropping the wait ends the group as well.
    let mut over = false;
    let mut closed = false;
    let mut added = 0_u32;
    let spawner = simulation.spawner();
    {
        let mut wait = None;
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..MOST {
            if bytes.is_empty() {
                break;
            }
            match bytes.below(8) {
                0..=2 => {
                    let (effects, yields) = (bytes.below(3), bytes.below(3));
                    let (fails, number) = (bytes.below(6), added);
                    let (done, undone) = (Arc::clone(&done), Arc::clone(&undone));
                    let work = move |step: StepContext| async move {
                        for effect in 0..effects {
                            let effect = number * 4 + u32::from(effect);
                            done.lock().expect("no panic under the lock").insert(effect);
                            let undone = Arc::clone(&undone);
                            step.register_compensation(move || {
                                let undone = Arc::clone(&undone);
                                async move {
                                    undone.lock().expect("no panic under the lock").push(effect);
                                }
                            });
                            yield_woken(yields.into()).await;
                        }
                        match fails {
                            4 => Err(BoxError::from("failed as planned")),
                            5 => std::panic::resume_unwind(Box::new("panicked as planned")),
                            _ => Ok(()),
                        }
                    };
                    let taken = if bytes.one_in(2) {
                        group.go_on(&spawner, None, work)
                    } else {
                        group.go(None, work)
                    };
                    let ended = over || closed || result.is_some();
                    assert_eq!(taken.is_err(), ended, "a group that has ended, or has not");
                    added += u32::from(taken.is_ok());
                }
                3 if bytes.one_in(4) => group.cancel(),
                7 if bytes.one_in(4) => {
                    group.close();
                    closed = true;
                }
                4 => {
                    over |= wait.is_some();
                    wait = None;
                }
                5 => world.clock().advance(Duration::from_micros(250)),
                6 => {
                    // Those on the executor have a turn.
                    let _ = simulation.run(yield_woken(8));
                }
                _ if result.is_none() => {
                    let wait = wait.get_or_insert_with(|| group.clone().wait());
                    result = wait.poll_unpin(&mut cx).is_ready().then_some(());
                }
                _ => {}
            }
        }
    }
    let report = group.report();
    assert_eq!(report.additions(), u64::from(added));
    assert!(report.completions() <= report.additions());
    drop(group);
    // What is left on the executor hears that its group is gone.
    for _ in 0..MOST {
        let _ = simulation.run(yield_woken(8));
    }
    drop(simulation);
    let policy = CompensationPolicy::sequential_reverse();
    let rest = context.roll_back(&policy);
    rest.now_or_never().expect("nothing in it waits").expect("nothing in it fails");
    let mut undone = std::mem::take(&mut *undone.lock().expect("no panic under the lock"));
    undone.sort_unstable();
    let done: Vec<u32> = done.lock().expect("no panic under the lock").iter().copied().collect();
    assert_eq!(undone, done, "an effect was not undone, or twice");
}

/// Pending so many times, waking itself.
async fn yield_woken(times: u32) {
    let mut left = times;
    let polls = std::future::poll_fn(|cx| match left.checked_sub(1) {
        None => std::task::Poll::Ready(()),
        Some(fewer) => {
            left = fewer;
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        }
    });
    polls.await;
}
