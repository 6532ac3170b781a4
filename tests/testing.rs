//! What the feature `testing` promises to tests: the same seed is the same run, and no fault,
//! wake-up or effect goes unnoticed.

#[macro_use]
mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::future::{join, pending};
use futures::task::SpawnExt;
use futures::{FutureExt, StreamExt};
use watershed::group::Group;
use watershed::testing::{
    Entry, Fault, Ledger, Simulation, Stopped, explore, for_every_fault, for_every_poll,
};
use watershed::{
    BoxError, Clock, CompensationPolicy, ErrorCode, StepContext, Tick, fan_in, timers,
};

/// Four tasks that each take five turns, and the order in which they took them.
fn order_of_turns(seed: u64) -> (Vec<u32>, Vec<String>) {
    let simulation = Simulation::new(seed);
    let turns = Rc::new(RefCell::new(Vec::new()));
    let handles: Vec<_> = (0..4)
        .map(|task| {
            let (turns, world) = (Rc::clone(&turns), simulation.world().clone());
            simulation.spawn(format!("task {task}"), async move {
                for _ in 0..5 {
                    turns.borrow_mut().push(task);
                    world.pause().await;
                }
            })
        })
        .collect();
    simulation.run(futures::future::join_all(handles)).expect("they end");
    let trace = simulation.world().trace().iter().map(ToString::to_string).collect();
    (turns.take(), trace)
}

// Rule 5.4
#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another_order() {
    let mut orders = BTreeSet::new();
    for seed in 0..100 {
        let first = order_of_turns(seed);
        assert_eq!(first, order_of_turns(seed), "seed {seed}");
        assert_eq!(first.0.len(), 20);
        orders.insert(first.0);
    }
    assert!(orders.len() > 95, "{} orders", orders.len());
}

// Rule 5.4
#[test]
fn a_drain_with_a_seed_leaves_the_same_trace_twice() {
    let run = |seed| {
        let simulation = Simulation::new(seed);
        let world = simulation.world();
        let context = world.context("t");
        let sources = [world.script("a").scattered(0..20), world.script("b").scattered(20..40)];
        let drain = fan_in(&context, sources, |message, _| {
            let world = world.clone();
            async move {
                world.pause().await;
                world.note(format!("handled {message}"));
                Ok::<_, BoxError>(())
            }
        });
        let drain = drain.concurrency(2);
        assert_eq!(simulation.run(drain).expect("it ends").expect("it succeeds").handled(), 40);
        world.trace()
    };
    let traces: Vec<_> = (0..50).map(run).collect();
    assert_eq!(traces, (0..50).map(run).collect::<Vec<_>>());
    let notes = |trace: &Vec<watershed::testing::Event>| {
        let handled = trace.iter().filter(|event| event.what().starts_with("handled"));
        handled.map(|event| event.what().to_owned()).collect::<Vec<_>>()
    };
    let orders: BTreeSet<_> = traces.iter().map(notes).collect();
    assert!(orders.len() > 45, "{} orders of handling", orders.len());
}

// Rule 5.4
#[test]
fn time_jumps_to_the_next_timer_when_nothing_can_run_and_not_before() {
    let simulation = Simulation::new(1);
    let world = simulation.world().clone();
    let hour = Duration::from_secs(3_600);
    let busy = {
        let world = world.clone();
        async move {
            for _ in 0..50 {
                assert_eq!(world.clock().now(), Tick::ZERO, "somebody can run");
                support::yields(1).await;
            }
        }
    };
    simulation.spawn("busy", busy).forget();
    let waits = async {
        world.clock().sleep_until(Tick::ZERO + hour).await;
        world.clock().sleep_until(Tick::ZERO + 3 * hour).await;
    };
    simulation.run(waits).expect("it ends");
    assert_eq!(world.clock().now(), Tick::ZERO + 3 * hour);
    assert_eq!(world.trace().iter().filter(|event| event.what() == "time passes").count(), 2);
}

#[test]
fn a_run_in_which_nobody_can_go_on_names_who_waits() {
    let simulation = Simulation::new(1);
    simulation.spawn("reader", pending::<()>()).forget();
    simulation.spawn("quick", async {}).forget();
    let stopped = simulation.run(pending::<()>()).expect_err("nobody wakes it");
    assert_eq!(stopped, Stopped::Stuck { tasks: "main, reader".into() });
    assert_eq!(simulation.run(async { 1 }), Ok(1), "the next run goes on");
}

#[test]
fn a_run_that_goes_on_for_ever_ends_at_its_limit() {
    let simulation = Simulation::new(1).with_most_polls(500);
    let stopped = simulation.run(support::yields(usize::MAX)).expect_err("it never ends");
    assert_eq!(stopped, Stopped::Endless { polls: 500 });
    assert_eq!(simulation.polls(), 500);
}

#[test]
fn strict_wakers_find_a_future_that_keeps_an_old_one() {
    // The second poll comes from elsewhere; what it is woken by later is the first poll's waker.
    let forgetful = |signal: Rc<RefCell<Option<Waker>>>| {
        let mut polls = 0;
        poll_fn(move |cx| {
            polls += 1;
            match polls {
                1 => {
                    *signal.borrow_mut() = Some(cx.waker().clone());
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                2 => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
    };
    let run = |simulation: &Simulation| {
        let signal = Rc::new(RefCell::new(None::<Waker>));
        let wakes = {
            let signal = Rc::clone(&signal);
            let clock = simulation.world().clock().clone();
            async move {
                clock.sleep_until(Tick::from_nanos(5)).await;
                signal.take().expect("it was polled").wake();
            }
        };
        simulation.spawn("waker", wakes).forget();
        simulation.run(forgetful(signal))
    };
    assert_eq!(run(&Simulation::new(1)), Ok(()));
    let stopped = run(&Simulation::new(1).with_strict_wakers());
    assert!(matches!(stopped, Err(Stopped::Stuck { .. })), "{stopped:?}");
}

// Rule 5.1
#[test]
fn a_group_runs_on_the_spawner_of_a_simulation() {
    for seed in 0..20 {
        let simulation = Simulation::new(seed).with_strict_wakers();
        let context = simulation.world().context("t");
        let group = Group::new(&context);
        for task in 0..5_u64 {
            let work = move |step: StepContext| async move {
                timers::delay(&step, Duration::from_secs(task)).await?;
                if task == 3 { Err(BoxError::from("three")) } else { Ok(()) }
            };
            group.go_on(&simulation.spawner(), None, work).expect("it spawns");
        }
        let error = simulation.run(group.wait()).expect("it ends").expect_err("three fails");
        assert_eq!(error.error().code(), ErrorCode::Handler);
        assert_eq!(simulation.world().clock().now(), Tick::ZERO + Duration::from_secs(3));
    }
}

#[test]
fn a_task_whose_handle_is_dropped_is_dropped_and_a_panic_is_raised_at_its_handle() {
    let simulation = Simulation::new(1);
    let token = Rc::new(());
    let kept = Rc::clone(&token);
    let handle = simulation.spawn("dropped", async move {
        pending::<()>().await;
        drop(kept);
    });
    simulation.run(support::yields(10)).expect("it ends");
    assert_eq!(Rc::strong_count(&token), 2);
    drop(handle);
    simulation.run(support::yields(10)).expect("it ends");
    assert_eq!(Rc::strong_count(&token), 1);

    let panics = simulation.spawn("panics", async { panic!("in the task") });
    let raised = catch_unwind(AssertUnwindSafe(|| simulation.run(panics)));
    let payload = raised.expect_err("the panic is raised");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"in the task"));
}

#[test]
fn tasks_may_spawn_tasks() {
    let simulation = Simulation::new(1);
    let spawner = simulation.spawner();
    let outer = simulation.spawn("outer", async move {
        let inner = spawner.spawn_with_handle(async { 20 }).expect("it spawns");
        inner.await + 1
    });
    assert_eq!(simulation.run(join(outer, async { 2 })), Ok((21, 2)));
}

// Rule 2.6
#[test]
fn a_script_does_what_it_says_act_by_act() {
    let simulation = Simulation::new(1);
    let world = simulation.world();
    let script = world.script("s").item(Ok(1)).pending(3).item(Ok(2)).stray_wakes(2).fault("no");
    let script = script.pending(0).wait(Duration::from_secs(5)).item(Ok(3));
    let seen = Rc::new(Cell::new(Tick::MAX));
    let mut stream = script.clone();
    let all = async {
        let mut all = Vec::new();
        while let Some(item) = stream.next().await {
            if item == Ok(3) {
                seen.set(world.clock().now());
            }
            all.push(item);
        }
        all
    };
    assert_eq!(simulation.run(all), Ok(vec![Ok(1), Ok(2), Err("no"), Ok(3)]));
    assert_eq!(seen.get(), Tick::ZERO + Duration::from_secs(5));
    // Four items, three times pending, a wait polled once more by the stray wake-up, the end.
    assert_eq!((script.polls(), script.taken(), script.polls_after_end()), (10, 4, 0));
    assert_eq!(stream.next().now_or_never(), Some(None));
    assert_eq!((script.polls(), script.polls_after_end()), (11, 1));
}

#[test]
fn a_script_that_never_goes_on_keeps_what_comes_after() {
    let simulation = Simulation::new(1);
    let script = simulation.world().script("s").item(1).never().item(2);
    let stopped = simulation.run(script.clone().collect::<Vec<_>>());
    assert!(matches!(stopped, Err(Stopped::Stuck { .. })));
    assert_eq!((script.taken(), script.rest()), (1, vec![2]));
}

#[test]
fn a_script_panics_where_it_says_and_can_be_read_on() {
    let simulation = Simulation::new(1);
    let script = simulation.world().script("s").item(1).panic("here").item(2);
    let raised =
        catch_unwind(AssertUnwindSafe(|| simulation.run(script.clone().collect::<Vec<_>>())));
    let payload = raised.expect_err("it panics");
    assert_eq!(payload.downcast_ref::<String>().map(String::as_str), Some("here"));
    assert_eq!(simulation.run(script.collect::<Vec<_>>()), Ok(vec![2]));
}

#[test]
fn a_waiting_script_that_is_dropped_forgets_its_timer() {
    let simulation = Simulation::new(1);
    let mut script = simulation.world().script("s").wait(Duration::from_secs(1)).item(1);
    assert_eq!(script.next().now_or_never(), None);
    assert_eq!(simulation.world().clock().sleepers(), 1);
    drop(script);
    assert_eq!(simulation.world().clock().sleepers(), 0);
}

#[test]
fn a_ledger_notices_every_mistake() {
    let wrong = |entries: &[fn(&Ledger<u32>)]| {
        let ledger = Ledger::new();
        for entry in entries {
            entry(&ledger);
        }
        ledger.check().expect_err("it is wrong").to_string()
    };
    let done: fn(&Ledger<u32>) = |ledger| ledger.done(7);
    let undone: fn(&Ledger<u32>) = |ledger| ledger.undone(7);
    let committed: fn(&Ledger<u32>) = |ledger| ledger.committed(7);
    let stuck: fn(&Ledger<u32>) = |ledger| ledger.stuck(7);
    assert_eq!(wrong(&[done]), "neither committed nor undone: 7");
    assert_eq!(wrong(&[done, done, undone]), "7 was done twice");
    assert_eq!(wrong(&[undone]), "7 was undone, but never done");
    assert_eq!(wrong(&[committed]), "7 was committed, but never done");
    assert_eq!(wrong(&[done, undone, undone]), "7 was undone twice");
    assert_eq!(wrong(&[done, undone, committed]), "7 was committed after it was undone");
    assert_eq!(wrong(&[done, committed, committed]), "7 was committed twice");
    assert_eq!(wrong(&[done, committed, done]), "7 was done after it was committed");
    assert_eq!(wrong(&[done, committed, stuck]), "7 was stuck after it was committed");
    assert_eq!(wrong(&[done, stuck, committed]), "7 was committed after it was stuck");
    assert_eq!(
        wrong(&[done, undone, undone, |ledger| ledger.done(8), |ledger| ledger.done(9)]),
        "7 was undone twice; neither committed nor undone: 8, 9",
    );
}

#[test]
fn a_ledger_accepts_every_way_to_an_end() {
    let ledger = Ledger::new();
    ledger.done("again");
    ledger.undone("again");
    ledger.done("again");
    ledger.committed("again");
    ledger.done("stuck, then undone");
    ledger.stuck("stuck, then undone");
    ledger.undone("stuck, then undone");
    ledger.done("stuck");
    ledger.stuck("stuck");
    ledger.done("open");
    assert_eq!(ledger.clone().open(), ["open"]);
    assert_eq!(ledger.commit_open(), 1);
    let account = ledger.check().expect("all is well");
    assert_eq!((account.committed(), account.undone(), account.stuck()), (2, 1, 1));
    assert_eq!(ledger.entries().last(), Some(&Entry::Committed("open")));
    assert_eq!(ledger.entries().len(), 11);
}

// Rule 4.5
#[test]
fn every_poll_of_a_future_is_cut_off_once() {
    let mut kept = Vec::new();
    let runs = for_every_poll(|point| {
        let polls = Rc::new(Cell::new(0));
        let counted = {
            let (polls, mut future) = (Rc::clone(&polls), Box::pin(support::yields(3)));
            poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                future.as_mut().poll(cx)
            })
        };
        let ended = Simulation::new(1).run(point.cut(counted)).expect("it ends").is_some();
        kept.push((polls.get(), ended));
        assert_eq!(Rc::strong_count(&polls), 1, "the future is gone");
    });
    assert_eq!(kept, [(0, false), (1, false), (2, false), (3, false), (4, true)]);
    assert_eq!(runs, 5);
}

#[test]
fn a_future_that_is_not_awaited_proves_nothing_and_is_told_of() {
    let panic = catch_unwind(|| for_every_poll(|point| drop(point.cut(async {}))));
    let payload = panic.expect_err("it panics");
    let message = payload.downcast_ref::<String>().expect("with a message");
    assert_eq!(message, "no future was cut after poll 0, or it was not awaited");
}

// Rules 3.2, 3.7, 4.1
#[test]
fn every_point_fails_once_by_an_error_and_once_by_a_panic() {
    let mut fired = Vec::new();
    let points = for_every_fault(|faults| {
        let simulation = Simulation::new(1);
        let world = simulation.world();
        let (context, ledger) = (world.context("t"), Ledger::new());
        let sources = [world.script("a").items(0..2)];
        let drain = fan_in(&context, sources, |message, step: StepContext| {
            let (faults, ledger) = (faults.clone(), ledger.clone());
            async move {
                ledger.apply(&step, message);
                faults.reach(format!("message {message}"))?;
                Ok::<_, BoxError>(())
            }
        });
        let code =
            simulation.run(drain).expect("it ends").err().map(|failure| failure.error().code());
        fired.push((faults.fault(), faults.fired(), code));
        let policy = CompensationPolicy::sequential_reverse();
        let rollback = context.scope().roll_back(&policy);
        simulation.run(rollback).expect("it ends").expect("it succeeds");
        assert_eq!(ledger.open().is_empty(), code.is_some());
    });
    assert_eq!(points, ["message 0", "message 1"]);
    let (handler, panic) = (Some(ErrorCode::Handler), Some(ErrorCode::Panic));
    let name = |message: usize| Some(format!("message {message}"));
    assert_eq!(
        fired,
        [
            (None, None, None),
            (Some(Fault::Error), name(0), handler),
            (Some(Fault::Panic), name(0), panic),
            (Some(Fault::Error), name(1), handler),
            (Some(Fault::Panic), name(1), panic),
        ],
    );
}

#[test]
fn a_fault_that_does_not_fire_where_it_should_is_told_of() {
    let mut run = 0;
    let panic = catch_unwind(AssertUnwindSafe(|| {
        for_every_fault(|faults| {
            run += 1;
            if run == 1 {
                faults.reach("only in the first run").expect("it is clean");
            }
        })
    }));
    assert!(panic.is_err());
    assert_eq!(run, 2);
}

#[test]
fn the_first_seed_that_breaks_is_found_and_shows_it_again() {
    let scenario = |simulation: &Simulation| {
        let world = simulation.world();
        let (a, b) = (world.pause(), world.pause());
        let first = simulation.run(futures::future::select(a, b)).map_err(|_| "stuck")?;
        world.note("one is ready");
        assert!(world.below(50) != 7, "a bug");
        match first {
            futures::future::Either::Left(_) => Ok(()),
            futures::future::Either::Right(_) if world.below(50) > 0 => Ok(()),
            futures::future::Either::Right(_) => Err("an error"),
        }
    };
    let finding = explore(0..10_000, scenario).expect_err("some seed breaks it");
    assert!(explore(0..finding.seed(), scenario).is_ok(), "it is the first one");
    let again = explore([finding.seed()], scenario).expect_err("it breaks again");
    assert_eq!(again.trace(), finding.trace());
    assert_eq!(again.to_string(), finding.to_string());
    assert!(format!("{finding:?}").contains("\n    0.0"), "the trace is shown");
}

#[test]
fn a_simulation_that_is_dropped_frees_its_tasks_and_what_they_spawned() {
    let held = Arc::new(());
    let simulation = Simulation::new(1);
    let (first, spawner) = (Arc::clone(&held), simulation.spawner());
    let task = simulation.spawn("task", async move {
        pending::<()>().await;
        drop(first);
    });
    let (second, again) = (Arc::clone(&held), spawner.clone());
    let child = async move {
        pending::<()>().await;
        drop((second, again));
    };
    spawner.spawn(child).expect("it runs");
    drop((task, simulation));
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(spawner.spawn(async {}).is_err(), "it is gone");
}
