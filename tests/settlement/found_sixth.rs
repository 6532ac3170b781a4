//! What a sixth outsider has found.

use std::cell::Cell;
use std::future::IntoFuture;
use std::rc::Rc;
use std::task::Poll;

use watershed::channels::{AnySource, Window};
use watershed::testing::{ScriptedQueue, Simulation};
use watershed::transport::{Able, Link, Ticket};
use watershed::{BoxError, CompensationPolicy, ErrorCode, LocalUndos, Source, StepContext, fan_in};

use crate::support::{Gate, Hand};

type Groups<'a> = AnySource<'a, Vec<u32>, Ticket>;

// Rule 7.16
#[test]
fn windows_of_a_transport_that_keeps_order_by_group_have_no_plain_source_beside_them() {
    for (groups, windows_first) in [(true, true), (true, false), (false, true)] {
        let simulation = Simulation::new(1);
        let world = simulation.world();
        let context = world.context("orders");
        let able = Able::each().prefetches(6);
        let queue = ScriptedQueue::new(world).able(if groups { able.groups() } else { able });
        let link = Link::new(queue.grouped_by(|n: &u32| format!("g{}", n % 3)).with(0..6));
        let plain: Groups<'_> = link.source().picked(|n| Some(vec![n])).erased();
        let windows: Groups<'_> = Window::new(&context, link.source()).count(1).erased();
        let sources = if windows_first { [windows, plain] } else { [plain, windows] };
        let drain =
            fan_in(&context, sources, async |_: Vec<u32>, _: StepContext| Ok::<_, BoxError>(()));
        match simulation.run(drain.concurrency(3).until_idle()).unwrap() {
            Ok(report) => assert_eq!((groups, report.accepted()), (false, 6)),
            Err(failure) => {
                assert!(groups);
                assert_eq!(failure.error().code(), ErrorCode::Validation);
                assert_eq!(failure.report().fetched(), 0);
            }
        }
    }
}

// Rule 7.16
#[test]
fn two_windows_of_one_transport_or_two_plain_sources_are_welcome() {
    for plain in [true, false] {
        let simulation = Simulation::new(1);
        let world = simulation.world();
        let context = world.context("orders");
        let queue = ScriptedQueue::new(world).able(Able::each().prefetches(6).groups());
        let link = Link::new(queue.grouped_by(|n: &u32| format!("g{}", n % 3)).with(0..6));
        let sources: [Groups<'_>; 2] = [(); 2].map(|()| {
            if plain {
                link.source().picked(|n| Some(vec![n])).erased()
            } else {
                Window::new(&context, link.source()).count(1).erased()
            }
        });
        let drain =
            fan_in(&context, sources, async |_: Vec<u32>, _: StepContext| Ok::<_, BoxError>(()));
        let report = simulation.run(drain.concurrency(3).until_idle()).unwrap().unwrap();
        assert_eq!(report.accepted(), 6);
    }
}

// Rules 4.10, 4.15, 7.4
#[test]
fn what_releases_a_message_is_run_by_whoever_could_undo_it() {
    let policies = [CompensationPolicy::sequential_reverse(), CompensationPolicy::parallel()];
    for (first, policy) in policies.iter().flat_map(|it| policies.iter().map(move |o| (it, o))) {
        let simulation = Simulation::new(1);
        let world = simulation.world();
        let queue = ScriptedQueue::new(world).with([7_u32]);
        let link = Link::new(queue.clone());
        let (undos, ran) = (LocalUndos::new(), Rc::new(Cell::new(0)));
        let (gate, undone) = (Gate::default(), Gate::default());
        let context = world.context("orders");
        let drain = fan_in(&context, [link.source()], async |_: u32, step: StepContext| {
            let runs = Rc::clone(&ran);
            undos.register(&step, move || {
                runs.set(runs.get() + 1);
                async {}
            });
            let undone = undone.clone();
            step.register_compensation(move || {
                let undone = undone.clone();
                async move { undone.wait().await }
            });
            gate.wait().await;
            Ok::<_, BoxError>(())
        });
        let mut drain = Hand::new(drain.local_undos(&undos).into_future());
        assert!(drain.run().is_pending());
        drop(drain);
        let mut other = Hand::new(context.roll_back(first));
        let mut given = Hand::new(context.roll_back(policy).local(&undos));
        assert!(other.run().is_pending());
        assert!(given.run().is_pending());
        undone.open();
        let other = other.run();
        let Poll::Ready(Ok(_)) = given.run() else { panic!("it has all that it needs") };
        assert_eq!((ran.get(), context.scope().len()), (1, 0), "{first:?}, {policy:?}");
        assert_eq!((queue.left().len(), queue.out().len()), (1, 0), "it is released");
        drop(other);
    }
}
