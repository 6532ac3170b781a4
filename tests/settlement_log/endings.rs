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

// Rules 7.6, 7.21: a release that is refused to the end is abandoned, and the drain ends
#[test]
fn seeks_that_are_refused_to_the_end_are_abandoned_and_the_drain_ends() {
    use watershed::testing::LogAnswer;
    for answer in [LogAnswer::Refused, LogAnswer::Unknown, LogAnswer::Silent] {
        for order in ORDERS {
            let scene = Scene::with(7, &[40], |log| log.prefetches(8).endless());
            let member = scene.member(&[0]).linked(|link| link.settle_within(ms(1_000)));
            scene.log.answer_seeks([answer; 1_000]);
            let context = scene.world.context("orders");
            let drain = Drain::new(order);
            let stop = drain.shutdown.clone();
            let running = drain.on(&context, member.sources, scene.works());
            let running = scene.simulation.spawn("drain", running);
            scene.run(scene.sleep(ms(20)));
            stop.cancel();
            let report = settled(scene.run(running));
            assert!(report.abandoned() <= 1 && report.unknown() == 0, "{report:?}");
            scene.log.check().unwrap();
            scene.finish(&[0]);
        }
    }
}

// A sketch's bug: a partition that is replaced stops its own fetch
#[test]
fn a_partition_that_is_replaced_stops_its_own_fetch() {
    let scene = Scene::with(7, &[2], |log| log.endless());
    let consumer = scene.log.consumer();
    let link = Rc::new(Link::new(consumer.clone()));
    consumer.assign(0);
    let context = scene.world.context("orders");
    let drain = Drain::new(Order::Serial).assigned(&link).finish_within(ms(50));
    let stop = drain.shutdown.clone();
    let running = drain.on(&context, Vec::new(), scene.works());
    let running = scene.simulation.spawn("drain", running);
    for turn in 1..5 {
        scene.run(scene.sleep(ms(1_000)));
        consumer.assign(0);
        scene.log.append(0, 1);
        scene.run(scene.sleep(ms(100)));
        assert_eq!(scene.log.committed(0), 2 + turn);
    }
    stop.cancel();
    assert_eq!(settled(scene.run(running)).accepted(), 6);
    scene.log.check().unwrap();
}

// A sketch's bug: timers that have passed spin
#[test]
fn a_drain_that_has_nothing_to_do_is_not_polled() {
    let scene = Scene::with(7, &[20, 0], |log| log.endless());
    let member = scene.member(&[0, 1]);
    let context = scene.world.context("orders");
    let drain = Drain::new(Order::Unordered);
    let stop = drain.shutdown.clone();
    let running = drain.on(&context, member.sources, scene.works());
    let running = scene.simulation.spawn("drain", running);
    scene.run(scene.sleep(ms(1_000)));
    let before = scene.simulation.polls();
    scene.run(scene.sleep(ms(3_600_000)));
    // Each of two fetches waits for 20 seconds.
    assert!(scene.simulation.polls() - before < 4_000, "{}", scene.simulation.polls() - before);
    stop.cancel();
    settled(scene.run(running));
}

// A sketch's bug: a source that is made again orphans what the first one has fetched
#[test]
fn a_source_that_is_made_again_goes_on_where_the_first_one_was() {
    for order in ORDERS {
        for at in 0..30 {
            let scene = Scene::with(at, &[9], |log| log.prefetches(4).endless());
            let consumer = scene.log.consumer();
            let link = Link::new(consumer.clone());
            let assignment = consumer.assign(0);
            drop(link.partition(assignment));
            let context = scene.world.context("orders");
            let first =
                Drain::new(order).on(&context, vec![link.partition(assignment)], scene.works());
            let first = scene.simulation.spawn("first", first);
            scene.run(scene.sleep(ms(at)));
            drop(first);
            scene.run(scene.sleep(ms(1)));
            scene.roll_back(&context);
            let drain = Drain::new(order);
            let stop = drain.shutdown.clone();
            let again = drain.on(&context, vec![link.partition(assignment)], scene.works());
            let again = scene.simulation.spawn("again", again);
            scene.run(scene.sleep(ms(1_000)));
            assert!((0..9).all(|it| scene.log.handled(record(0, it)) > 0));
            stop.cancel();
            settled(scene.run(again));
            scene.log.check().unwrap();
        }
    }
}
