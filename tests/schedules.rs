//! The adapters under schedules that a seed makes, with wakers that count only for the last poll:
//! a wake-up that is lost leaves the run stuck. And each of them dropped after any poll.

#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::rc::Rc;
use std::time::Duration;

use futures::stream::{self, LocalBoxStream, StreamExt};
use watershed::channels::{SourceEnd, Window, live};
use watershed::streams::StepStreamExt;
use watershed::testing::{Ledger, Script, Simulation, World, for_every_poll};
use watershed::{BoxError, Clock, CompensationPolicy, Error, StepContext, fan_in};

const SECOND: Duration = Duration::from_secs(1);
const SEEDS: u64 = 60;

/// Does an effect for an item, between other tasks.
async fn work(
    world: World,
    ledger: Ledger<u32>,
    n: u32,
    step: StepContext,
) -> Result<u32, BoxError> {
    ledger.apply(&step, n);
    world.pause().await;
    ledger.apply(&step, 100 + n);
    Ok(n)
}

type Items = LocalBoxStream<'static, Result<u32, Error>>;
type Row = (&'static str, fn(&World, &StepContext, Script<u32>, Ledger<u32>) -> Items);

/// Every operation over streams of results; one that gathers yields as many items as it counts.
const ROWS: [Row; 7] = [
    ("map_step", |world, context, script, ledger| {
        let world = world.clone();
        let operation = move |n, step| work(world.clone(), ledger.clone(), n, step);
        script.map(Ok::<_, BoxError>).map_step(context, operation).boxed_local()
    }),
    ("filter_map_step", |world, context, script, ledger| {
        let world = world.clone();
        let operation = move |n, step| {
            let work = work(world.clone(), ledger.clone(), n, step);
            async move { work.await.map(Some) }
        };
        script.map(Ok::<_, BoxError>).filter_map_step(context, operation).boxed_local()
    }),
    ("flat_map_step", |world, context, script, ledger| {
        let world = world.clone();
        let operation = move |n, step| stream::once(work(world.clone(), ledger.clone(), n, step));
        script.map(Ok::<_, BoxError>).flat_map_step(context, operation).boxed_local()
    }),
    ("tap_err_step", |world, context, script, ledger| {
        let world = world.clone();
        let operation = move |error: Error, step| {
            let n = error.metadata("n").and_then(|n| n.parse().ok()).expect("it is there");
            let work = work(world.clone(), ledger.clone(), n, step);
            async move { work.await.map(drop) }
        };
        let failing = |n: u32| {
            Err::<u32, _>(Error::new(watershed::ErrorCode::Source, "no").with_metadata("n", n))
        };
        let tapped = script.map(failing).tap_err_step(context, operation);
        let back = |item: Result<u32, Error>| {
            let error = item.expect_err("all fail");
            Ok(error.metadata("n").and_then(|n| n.parse().ok()).expect("it is there"))
        };
        tapped.map(back).boxed_local()
    }),
    ("for_each_step", |world, context, script, ledger| {
        let world = world.clone();
        let operation = move |n, step| {
            let work = work(world.clone(), ledger.clone(), n, step);
            async move { work.await.map(drop) }
        };
        let run = script.map(Ok::<_, BoxError>).for_each_step(context, operation);
        let run = run.item_timeout(1000 * SECOND).into_future();
        let count = |count: Result<u64, Error>| {
            stream::iter(
                (0..count.expect("no failure")).map(|n| Ok(u32::try_from(n).expect("a few"))),
            )
        };
        stream::once(run).map(count).flatten().boxed_local()
    }),
    ("collect_all", |_, context, script, _| {
        let all = script.map(Ok::<_, BoxError>).collect_all(context);
        let items = |all: Result<Vec<u32>, Error>| stream::iter(all.expect("no failure")).map(Ok);
        stream::once(all).map(items).flatten().boxed_local()
    }),
    ("lifted", |_, context, script, _| script.map(Ok::<_, BoxError>).lifted(context).boxed_local()),
];

// Rules 2.6, 4.1, 5.4
#[test]
fn operations_over_streams_keep_their_order_under_any_schedule() {
    for (name, row) in ROWS {
        for seed in 0..SEEDS {
            let simulation = Simulation::new(seed).with_strict_wakers();
            let world = simulation.world();
            let (context, ledger) = (world.context("t"), Ledger::new());
            let script = world.script("items").scattered(0..12);
            let items = row(world, &context, script.clone(), ledger.clone());
            let items = simulation.run(items.map(|item| item.expect("no failure")).collect());
            let items: Vec<u32> = items.unwrap_or_else(|stopped| panic!("{name}: {stopped}"));
            assert!(items.into_iter().eq(0..12), "{name}, seed {seed}");
            assert_eq!((script.taken(), script.polls_after_end()), (12, 0), "{name}");
            let effects = if ["collect_all", "lifted"].contains(&name) { 0 } else { 24 };
            assert_eq!((context.scope().len(), ledger.commit_open()), (effects, effects), "{name}");
            context.scope().clear();
        }
    }
}

// Rules 2.1, 4.1
#[test]
fn operations_over_streams_may_be_dropped_after_any_poll() {
    for (name, row) in ROWS {
        let runs = for_every_poll(|point| {
            let simulation = Simulation::new(point.polls());
            let world = simulation.world();
            let (context, ledger) = (world.context("t"), Ledger::new());
            let script = world.script("items").items(0..2).pending(1).items(2..5);
            let items = row(world, &context, script.clone(), ledger.clone());
            let yielded = RefCell::new(Vec::new());
            let run = point.cut(items.for_each(|item| {
                yielded.borrow_mut().push(item.expect("no failure"));
                async {}
            }));
            let ended = simulation.run(run).expect("it goes on").is_some();
            let (taken, rest) = (script.taken(), script.rest().len() as u64);
            assert_eq!(taken + rest, 5, "{name}: what was not taken is still there");
            let yielded = yielded.borrow();
            assert!(yielded.iter().copied().eq(0..yielded.len() as u32), "{name}: in order");
            if !["for_each_step", "collect_all"].contains(&name) {
                let in_flight = taken - yielded.len() as u64;
                assert!(in_flight <= 1 && (!ended || in_flight == 0), "{name}: {in_flight}");
            }
            let policy = CompensationPolicy::sequential_reverse();
            let rollback = context.scope().roll_back(&policy);
            simulation.run(rollback).expect("it ends").expect("it succeeds");
            ledger.check().unwrap_or_else(|lost| panic!("{name}, poll {}: {lost}", point.polls()));
        });
        assert!(runs > 2, "{name}");
    }
}

// P10, P11, P13, rules 2.1, 5.4
#[test]
fn a_window_closes_when_full_or_on_the_tick_and_never_otherwise() {
    for seed in 0..4 * SEEDS {
        let simulation = Simulation::new(seed).with_strict_wakers();
        let world = simulation.world();
        let script = world.script("messages").scattered(0..40_u32);
        let most = usize::try_from(world.below(5)).expect("small") + 1;
        let every = Duration::from_micros(300 * (world.below(6) + 1));
        // When each message was taken, by the clock.
        let taken = Rc::new(RefCell::new(Vec::new()));
        let (log, clock) = (Rc::clone(&taken), world.clock().clone());
        let source = script.clone().inspect(move |_| log.borrow_mut().push(clock.now()));
        let windows = Window::new(&world.context("t"), source).count(most).every(every);
        let clock = world.clock().clone();
        let windows = windows.stream().expect("valid").map(move |window| (clock.now(), window));
        let windows: Vec<_> = simulation.run(windows.collect::<Vec<_>>()).expect("it ends");
        let (mut next, last) = (0, windows.len() - 1);
        for (index, (closed, window)) in windows.into_iter().enumerate() {
            let window = window.expect("no failure");
            let first = taken.borrow()[next];
            assert!(window.iter().copied().eq((next as u32..).take(window.len())), "seed {seed}");
            assert!(!window.is_empty() && window.len() <= most, "seed {seed}");
            next += window.len();
            if window.len() < most && index < last {
                assert_eq!(closed, first + every, "seed {seed}: neither full nor old enough");
            }
            assert!(closed <= first + every, "seed {seed}: too old");
        }
        assert_eq!((next, script.polls_after_end()), (40, 0), "seed {seed}");
    }
}

// Rules 2.1, 2.7, 5.4
#[test]
fn live_sources_come_pause_and_go_under_any_schedule_and_no_message_is_lost() {
    for seed in 0..4 * SEEDS {
        let simulation = Simulation::new(seed).with_strict_wakers();
        let world = simulation.world().clone();
        let handled = Rc::new(RefCell::new(Vec::new()));
        let (live, incoming) = live();
        let scripts: Vec<_> = (0..4)
            .map(|n| world.script(format!("source {n}")).scattered(10 * n..10 * n + 6))
            .collect();
        let plan = {
            let (world, scripts, handled) = (world.clone(), scripts.clone(), Rc::clone(&handled));
            async move {
                let mut live_ones = Vec::new();
                for source in scripts {
                    live_ones.push(live.add(source).expect("the drain is there"));
                    world.pause().await;
                }
                drop(live);
                for _ in 0..12 {
                    let which = usize::try_from(world.below(4)).expect("small");
                    match world.below(4) {
                        0 => drop(live_ones[which].pause()),
                        1 | 2 => drop(live_ones[which].resume()),
                        _ => {
                            // Some removals are not waited for.
                            if world.below(2) == 0 {
                                drop(futures::poll!(Box::pin(live_ones[which].remove())));
                            } else {
                                live_ones[which].remove().await;
                                let before = handled.borrow().len();
                                world.pause().await;
                                let after = handled.borrow();
                                let range = 10 * which as u32..10 * which as u32 + 10;
                                assert!(!after[before..].iter().any(|n| range.contains(n)));
                            }
                        }
                    }
                    world.pause().await;
                }
                for handle in &live_ones {
                    handle.resume();
                }
                let mut ends = Vec::new();
                for handle in live_ones {
                    ends.push(handle.ended().await);
                }
                ends
            }
        };
        let owner = simulation.spawn("owner", plan);
        let context = world.context("t");
        let drain = fan_in(&context, [], |message: u32, _| {
            let (world, handled) = (world.clone(), Rc::clone(&handled));
            async move {
                world.pause().await;
                handled.borrow_mut().push(message);
                Ok::<_, BoxError>(())
            }
        });
        let drain = drain.incoming(incoming).concurrency(1 + seed as usize % 3);
        let (report, ends) = simulation
            .run(futures::future::join(drain.into_future(), owner))
            .unwrap_or_else(|stopped| panic!("seed {seed}: {stopped}"));
        let handled = handled.borrow();
        assert_eq!(report.expect("no failure").handled(), handled.len() as u64);
        for (n, (script, end)) in (0..).zip(scripts.iter().zip(ends)) {
            let of: Vec<_> = handled.iter().copied().filter(|m| m / 10 == n).collect();
            let rest = script.rest();
            assert!(
                of.iter().chain(&rest).copied().eq(10 * n..10 * n + 6),
                "seed {seed}: {of:?}, {rest:?}"
            );
            let expected =
                if end == SourceEnd::Drained { rest.is_empty() } else { end == SourceEnd::Removed };
            assert!(expected, "seed {seed}: {end:?}, {rest:?}");
            assert_eq!(script.polls_after_end(), 0);
        }
    }
}

// Rules 2.1, 2.2, 5.4
#[test]
fn messages_of_a_key_keep_their_order_under_any_schedule_and_handlers_are_as_many_as_allowed() {
    let mut fullest = 0;
    for seed in 0..4 * SEEDS {
        let simulation = Simulation::new(seed).with_strict_wakers();
        let world = simulation.world().clone();
        let scripts = [world.script("a").scattered(0..20), world.script("b").scattered(100..120)];
        let (all, per_source) = (1 + seed as usize % 5, 1 + seed as usize % 4);
        let key = |n: &u32| *n % 3;
        // By source: what runs, and what has ended.
        let running = Rc::new(RefCell::new(BTreeMap::<(u32, u32), u32>::new()));
        let ended = Rc::new(RefCell::new(Vec::new()));
        let most = Rc::new(RefCell::new(0));
        let context = world.context("t");
        let drain = fan_in(&context, scripts.clone(), |n: u32, _| {
            let (world, running, ended, most) =
                (world.clone(), Rc::clone(&running), Rc::clone(&ended), Rc::clone(&most));
            async move {
                let before = running.borrow_mut().insert((n / 100, key(&n)), n);
                assert_eq!(before, None, "its key is busy");
                let (here, there) = {
                    let running = running.borrow();
                    let of = |source| running.keys().filter(|key| key.0 == source).count();
                    (of(n / 100), running.len())
                };
                assert!(here <= per_source && there <= all, "{here} and {there}");
                most.replace_with(|most| (*most).max(there));
                for _ in 0..world.below(4) {
                    world.pause().await;
                }
                running.borrow_mut().remove(&(n / 100, key(&n)));
                ended.borrow_mut().push(n);
                Ok::<_, BoxError>(())
            }
        });
        let drain = drain.concurrency(all).per_source_concurrency(per_source);
        let report = simulation.run(drain.ordered_by(key));
        let report = report.unwrap_or_else(|stopped| panic!("seed {seed}: {stopped}"));
        assert_eq!(report.expect("no failure").handled(), 40);
        for first in [0, 100] {
            for key in 0..3 {
                let of = |n: &u32| *n / 100 == first / 100 && n % 3 == key;
                let ended = ended.borrow();
                let ended = ended.iter().copied().filter(of);
                assert!(ended.eq((first..first + 20).filter(of)), "seed {seed}, key {key}");
            }
        }
        assert!(scripts.iter().all(|script| script.polls_after_end() == 0), "seed {seed}");
        fullest = fullest.max(*most.borrow());
    }
    assert_eq!(fullest, 5, "and they are used");
}
