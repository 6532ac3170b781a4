//! Rules 7.21 and 7.22: how sources and drains end.

use std::rc::Rc;

use watershed::transport::Link;
use watershed::{CancellationSource, ErrorCode};

use crate::scene::*;

// Rule 7.22: read until empty, by the transport's own end
#[test]
fn a_source_that_is_read_until_empty_ends_without_a_fault() {
    for order in ORDERS {
        for records in 0..6 {
            let scene = Scene::new(records, &[records]);
            let member = scene.member(&[0]);
            let context = scene.world.context("orders");
            let drain = Drain::new(order).on(&context, member.sources, scene.works());
            assert_eq!(settled(scene.run(drain)).accepted(), records);
        }
    }
}

// Rule 7.22: a released record of a source that is read until empty comes again before it ends
#[test]
fn the_last_record_is_given_back_and_comes_again_before_the_end() {
    for order in ORDERS {
        for seed in 0..20 {
            let scene = Scene::new(seed, &[4]);
            let member = scene.member(&[0]);
            let context = scene.world.context("orders");
            let log = scene.log.clone();
            let handler = scene.works_unless(move |it, _| it.offset == 3 && log.handled(it) <= 2);
            let drain = Drain::new(order).going_on().on(&context, member.sources, handler);
            let report = settled(scene.run(drain));
            assert_eq!((report.accepted(), report.released()), (4, 2), "{order:?} {seed}");
            scene.log.check().unwrap();
        }
    }
}

// Rule 7.22: a revoked partition ends its source, and that is no fault
#[test]
fn a_drain_ends_without_a_fault_when_all_its_partitions_are_given_up() {
    for order in ORDERS {
        let scene = Scene::with(7, &[4, 4], |log| log.endless());
        let member = scene.member(&[0, 1]);
        let context = scene.world.context("orders");
        let drain = Drain::new(order).on(&context, member.sources, scene.works());
        let running = scene.simulation.spawn("drain", drain);
        scene.run(scene.sleep(ms(1_000)));
        assert_eq!(scene.run(member.consumer.revoke(0, None)), 0);
        assert_eq!(scene.run(member.consumer.revoke(1, None)), 0);
        assert_eq!(settled(scene.run(running)).accepted(), 8);
        assert_eq!(scene.log.closed(), 1);
    }
}

// Rules 7.18, 7.21: with `assigned`, the drain lives without a partition, and ends when it is shut down
#[test]
fn a_drain_waits_for_partitions_until_it_is_shut_down() {
    for order in ORDERS {
        let scene = Scene::with(7, &[4, 4], |log| log.endless());
        let consumer = scene.log.consumer();
        let link = Rc::new(Link::new(consumer.clone()));
        let context = scene.world.context("orders");
        let drain = Drain::new(order).assigned(&link);
        let stop = drain.shutdown.clone();
        let running = drain.on(&context, Vec::new(), scene.works());
        let running = scene.simulation.spawn("drain", running);
        scene.run(scene.sleep(ms(1_000)));
        consumer.assign(0);
        scene.run(scene.sleep(ms(1_000)));
        assert_eq!(scene.log.committed(0), 4);
        assert_eq!(scene.run(consumer.revoke(0, None)), 0);
        scene.run(scene.sleep(ms(1_000)));
        consumer.assign(1);
        consumer.assign(0);
        scene.log.append(0, 3);
        scene.run(scene.sleep(ms(1_000)));
        assert!(scene.log.is_drained());
        stop.cancel();
        let report = settled(scene.run(running));
        assert_eq!(report.accepted(), 11);
        assert_eq!(scene.log.closed(), 1);
        scene.log.check().unwrap();
    }
}

// Rule 7.21: a fetch that was sent is awaited, and what it brings is thrown away
#[test]
fn a_fetch_that_is_on_its_way_at_a_shutdown_is_awaited() {
    let scene = Scene::with(7, &[9], |log| log.latency(ms(500), ms(1)).endless());
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let drain = Drain::new(Order::Serial);
    let stop = drain.shutdown.clone();
    let running = drain.on(&context, member.sources, scene.works());
    let running = scene.simulation.spawn("drain", running);
    scene.run(scene.sleep(ms(520)));
    stop.cancel();
    settled(scene.run(running));
    scene.log.check().unwrap();
    scene.finish(&[0]);
}

// Rule 7.21: its wait is never longer than the budget
#[test]
fn a_drain_of_an_idle_partition_is_shut_down_at_once() {
    let scene = Scene::with(7, &[2], |log| log.endless());
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let drain = Drain::new(Order::Serial).finish_within(ms(100));
    let stop = drain.shutdown.clone();
    let running = drain.on(&context, member.sources, scene.works());
    let running = scene.simulation.spawn("drain", running);
    scene.run(scene.sleep(ms(5_000)));
    stop.cancel();
    assert_eq!(settled(scene.run(running)).accepted(), 2);
}

// Rule 7.10: one drain at a time
#[test]
fn a_second_drain_of_a_link_is_refused() {
    let scene = Scene::with(7, &[2, 2], |log| log.endless());
    let mut member = scene.member(&[0, 1]);
    let context = scene.world.context("orders");
    let second = vec![member.sources.pop().unwrap()];
    let drain = Drain::new(Order::Serial);
    let stop: CancellationSource = drain.shutdown.clone();
    let running = drain.on(&context, member.sources, scene.works());
    let running = scene.simulation.spawn("drain", running);
    scene.run(scene.sleep(ms(100)));
    let refused = scene.run(Drain::new(Order::Serial).on(&context, second, scene.works()));
    assert_eq!(refused.unwrap_err().error().code(), ErrorCode::Validation);
    stop.cancel();
    settled(scene.run(running));
}

// Rule 7.23: fetches that fail for a reason that passes are sent again
#[test]
fn fetches_that_fail_are_sent_again() {
    for order in ORDERS {
        let scene = Scene::new(7, &[9, 3]);
        let member = scene.member(&[0, 1]);
        scene.log.fail_fetches(5);
        let context = scene.world.context("orders");
        let drain = Drain::new(order).on(&context, member.sources, scene.works());
        assert_eq!(settled(scene.run(drain)).accepted(), 12);
        scene.log.check().unwrap();
    }
}
