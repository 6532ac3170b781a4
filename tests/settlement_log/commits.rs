//! Rule 7.14: what is committed, and when.

use watershed::testing::LogAnswer;
use watershed::{RetryPolicy, fan_in};

use crate::scene::*;

// Rules 7.6, 7.14
#[test]
fn every_record_is_committed_when_it_is_done() {
    for order in ORDERS {
        for seed in 0..30 {
            let scene = Scene::new(seed, &[20, 7]);
            let member = scene.member(&[0, 1]);
            let context = scene.world.context("orders");
            let drain = Drain::new(order).on(&context, member.sources, scene.works());
            let report = settled(scene.run(drain));
            assert_eq!((report.fetched(), report.accepted()), (27, 27));
            assert!(scene.log.is_drained());
            scene.log.check().unwrap();
            assert_eq!(scene.log.closed(), 1);
            assert_eq!(scene.log.handled(record(0, 3)), 1);
        }
    }
}

// Rule 7.14: the offset never passes a message that is not done
#[test]
fn a_commit_waits_for_the_first_one_that_is_not_done() {
    let scene = Scene::with(7, &[5], |log| log.prefetches(10));
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let handler = scene.works_slowly_on(record(0, 0), ms(1_000));
    let drain = Drain::new(Order::Unordered).concurrency(5).on(&context, member.sources, handler);
    let report = settled(scene.run(drain));
    assert_eq!(report.accepted(), 5);
    assert_eq!(scene.log.commits(0), [5]);
    scene.log.check().unwrap();
}

// Rule 7.14: one commit of a partition is in flight at a time
#[test]
fn what_is_done_during_a_commit_goes_with_the_next_one() {
    let scene = Scene::with(7, &[30], |log| log.latency(ms(0), ms(500)).prefetches(30));
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let drain = Drain::new(Order::Serial).on(&context, member.sources, scene.works());
    settled(scene.run(drain));
    scene.log.check().unwrap();
    assert!(scene.log.commits(0).len() < 5, "{:?}", scene.log.commits(0));
}

// Rule 7.14: a rejected one counts as done once its dead letter is confirmed
#[test]
fn a_record_is_passed_when_its_letter_is_stored() {
    for order in ORDERS {
        for seed in 0..30 {
            let scene = Scene::new(seed, &[9]);
            let member = scene.member(&[0]);
            let context = scene.world.context("orders");
            let handler = scene.works_unless(|record, _| record.offset % 4 == 1);
            let drain = Drain::new(order).letters(&scene).on(&context, member.sources, handler);
            let report = settled(scene.run(drain));
            assert_eq!((report.accepted(), report.rejected()), (7, 2));
            assert!(scene.log.is_drained());
            scene.log.check().unwrap();
        }
    }
}

// Rule 7.14: a refused commit undoes nothing, and rides with the next one
#[test]
fn a_commit_that_is_refused_rides_with_the_next_one() {
    for answer in [LogAnswer::Refused, LogAnswer::Unknown, LogAnswer::Missing] {
        let scene = Scene::new(7, &[9]);
        let member = scene.member(&[0]);
        scene.log.answer_commits([answer; 4]);
        let context = scene.world.context("orders");
        let drain = Drain::new(Order::Serial).on(&context, member.sources, scene.works());
        let report = settled(scene.run(drain));
        assert_eq!(report.accepted(), 9);
        assert!((0..9).all(|offset| scene.log.handled(record(0, offset)) == 1));
        assert!(scene.log.is_drained());
        scene.log.check().unwrap();
    }
}

// Rule 7.14: given up at the drain's end it is unknown
#[test]
fn a_commit_that_is_refused_to_the_end_is_unknown_and_keeps_the_effects() {
    for answer in [LogAnswer::Refused, LogAnswer::Unknown, LogAnswer::Silent] {
        let scene = Scene::new(7, &[4]);
        let member = scene.member(&[0]).linked(|link| link.settle_within(ms(1_000)));
        scene.log.answer_commits([answer; 1_000]);
        let context = scene.world.context("orders");
        let drain = Drain::new(Order::Serial).on(&context, member.sources, scene.works());
        let report = settled(scene.run(drain));
        assert_eq!((report.unknown(), report.accepted()), (4, 0));
        assert_eq!(context.scope().len(), 0);
        assert_eq!(scene.log.committed(0), 0);
        scene.log.check().unwrap();
    }
}

// Rule 7.14: at most `max_ahead` messages go on behind one that is stuck, then taking from that
// partition stops, and only from that one
#[test]
fn taking_stops_behind_a_record_that_is_stuck_and_only_there() {
    for retries in [false, true] {
        let scene = Scene::with(7, &[1_000, 300], |log| log.prefetches(20).endless());
        let member = scene.member(&[0, 1]).linked(|link| link.max_ahead(10));
        let context = scene.world.context("orders");
        let (log, clock) = (scene.log.clone(), scene.world.clock().clone());
        let drain = fan_in(&context, member.sources, move |it, step| {
            let (log, clock) = (log.clone(), clock.clone());
            async move {
                use watershed::Clock;
                if it == record(0, 0) && step.attempt() == 1 {
                    if retries {
                        return Err("not yet");
                    }
                    clock.sleep_until(clock.now() + ms(60_000)).await;
                }
                log.apply(&step, it);
                Ok(())
            }
        });
        let drain = drain.unordered().concurrency(100).retry(RetryPolicy::fixed(5, ms(60_000)));
        let shutdown = watershed::CancellationSource::new();
        let drain = scene
            .simulation
            .spawn("drain", std::future::IntoFuture::into_future(drain.shutdown(shutdown.token())));
        scene.run(scene.sleep(ms(30_000)));
        let handled = (0..1_000).filter(|at| scene.log.handled(record(0, *at)) > 0).count();
        assert_eq!(handled, 10);
        assert_eq!((scene.log.committed(0), scene.log.committed(1)), (0, 300));
        scene.run(scene.sleep(ms(60_000)));
        assert_eq!(scene.log.committed(0), 1_000);
        shutdown.cancel();
        settled(scene.run(drain));
        scene.log.check().unwrap();
    }
}

// Rule 7.7: at most `max_unsettled` verdicts are with a transport
#[test]
fn taking_stops_where_too_many_are_not_settled() {
    let scene = Scene::with(7, &[100], |log| log.prefetches(20).latency(ms(1), ms(10_000)));
    let member = scene.member(&[0]).linked(|link| link.max_unsettled(6));
    let context = scene.world.context("orders");
    let handler = scene.works_slowly_on(record(9, 9), ms(0));
    let drain = Drain::new(Order::Unordered).on(&context, member.sources, handler);
    let drain = scene.simulation.spawn("drain", drain);
    scene.run(scene.sleep(ms(5_000)));
    let handled = (0..100).filter(|at| scene.log.handled(record(0, *at)) > 0).count();
    // What was in work when there was no room any more is handled all the same.
    assert!((6..=10).contains(&handled), "{handled}");
    settled(scene.run(drain));
    scene.log.check().unwrap();
}
