//! Rule 7.18: a revocation is a question that is always answered.

use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use watershed::transport::{Assignment, Event, Link, Notices, Revocation};
use watershed::{Clock, RetryPolicy};

use crate::scene::*;

// Rules 7.17, 7.18: at every poll, with every order, and the next owner goes on where it ends
#[test]
fn a_partition_that_is_given_up_loses_and_repeats_nothing() {
    for order in ORDERS {
        for latency in [0, 5, 40] {
            at_every_poll(|poll| {
                let scene = Scene::with(poll, &[6, 6], |log| log.latency(ms(latency), ms(2)));
                let member = scene.member(&[0, 1]);
                let context = scene.world.context("orders");
                let drain = Drain::new(order).on(&context, member.sources, scene.works());
                let answer = Rc::new(Mutex::new(None));
                let consumer = member.consumer.clone();
                let slot = answer.clone();
                let drain = after_polls(poll, drain, move || {
                    *slot.lock().unwrap() = Some(consumer.revoke(0, None));
                });
                let (ended, done) = scene.run(drain);
                let report = settled(ended);
                scene.log.check().unwrap();
                assert_eq!((report.lost(), report.unknown(), report.abandoned()), (0, 0, 0));
                assert_eq!((scene.log.stale(), scene.log.committed(1)), (0, 6));
                if let Some(answer) = answer.lock().unwrap().take() {
                    assert_eq!(answer.now_or_never(), Some(0), "it is answered");
                }
                assert_eq!(context.scope().len(), 0);
                scene.finish(&[0]);
                assert!((0..6).all(|offset| scene.log.handled(record(0, offset)) == 1));
                done
            });
        }
    }
}

// Rule 7.18: what waits for a retry is released, and those behind it are given back as well
#[test]
fn what_waits_for_a_retry_is_given_back_when_its_partition_is() {
    for order in ORDERS {
        let scene = Scene::with(7, &[6, 2], |log| log.prefetches(8).endless());
        let member = scene.member(&[0, 1]);
        let context = scene.world.context("orders");
        let log = scene.log.clone();
        let handler = scene.works_unless(move |it, _| it == record(0, 2) && log.handled(it) == 1);
        let drain = Drain::new(order).retry(RetryPolicy::fixed(3, ms(3_600_000)));
        let stop = drain.shutdown.clone();
        let running = scene.simulation.spawn("drain", drain.on(&context, member.sources, handler));
        scene.run(scene.sleep(ms(5_000)));
        assert_eq!(scene.log.committed(0), 2);
        let answer = scene.run(member.consumer.revoke(0, Some(ms(60_000))));
        assert_eq!(answer, 0, "{order:?}");
        assert!(scene.world.clock().now().as_nanos() < 6_000_000_000, "{order:?}");
        stop.cancel();
        let report = settled(scene.run(running));
        assert_eq!((report.lost(), report.accepted()), (0, 4), "{report:?}");
        assert_eq!(context.scope().len(), 0);
        scene.log.check().unwrap();
        let next = scene.log.clone();
        drop(next);
    }
}

fn takes_too_long(
    asks: Option<Duration>,
    own: Option<Duration>,
) -> (Scene, u64, usize, watershed::FanInReport) {
    let scene = Scene::with(7, &[6, 3], |log| log.prefetches(8));
    let member = scene.member(&[0, 1]);
    let member = match own {
        Some(own) => member.linked(|link| link.revoke_within(own)),
        None => member,
    };
    let context = scene.world.context("orders");
    let handler = scene.works_slowly_on(record(0, 2), ms(3_600_000));
    let drain = Drain::new(Order::Unordered).concurrency(5);
    let running = scene.simulation.spawn("drain", drain.on(&context, member.sources, handler));
    scene.run(scene.sleep(ms(1_000)));
    let answer = scene.run(member.consumer.revoke(0, asks));
    let at = scene.world.clock().now().as_nanos() / 1_000_000_000;
    let report = settled(scene.run(running));
    assert_eq!(context.scope().len(), 0);
    scene.log.check().unwrap();
    (scene, at, answer, report)
}

// Rule 7.18: at the deadline it is given up all the same, and the rest is lost
#[test]
fn at_its_deadline_a_partition_is_given_up_and_the_rest_is_lost() {
    for (asks, own, expected) in [
        (Some(ms(5_000)), None, 6),
        (Some(ms(60_000)), Some(ms(3_000)), 4),
        (None, Some(ms(7_000)), 8),
        (Some(ms(0)), None, 1),
        (None, Some(ms(0)), 1),
    ] {
        let (scene, at, answer, report) = takes_too_long(asks, own);
        assert_eq!(at, expected);
        assert_eq!((report.lost(), answer), (4, 4), "{report:?}");
        assert!(scene.world.clock().now().as_nanos() < 20_000_000_000);
        assert_eq!(scene.log.committed(0), 2);
        scene.finish(&[0]);
    }
}

// Rule 7.18: what runs finishes, its accepts are flushed, then the partition is given up
#[test]
fn what_runs_is_finished_and_committed_before_the_answer() {
    let scene = Scene::with(7, &[6], |log| log.prefetches(8).latency(ms(1), ms(500)));
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let handler = scene.works_slowly_on(record(0, 1), ms(4_000));
    let drain = Drain::new(Order::Unordered).concurrency(3);
    let running = scene.simulation.spawn("drain", drain.on(&context, member.sources, handler));
    scene.run(scene.sleep(ms(1_000)));
    let answer = scene.run(member.consumer.revoke(0, None));
    assert_eq!(answer, 0);
    let done = (0..6).filter(|at| scene.log.handled(record(0, *at)) > 0).count() as u64;
    assert!(done >= 3);
    assert_eq!(scene.log.committed(0), done);
    let report = settled(scene.run(running));
    assert_eq!((report.accepted(), report.lost()), (done, 0));
    scene.log.check().unwrap();
}

// Rule 7.18: it is answered, too, when its drain goes away
#[test]
fn a_question_is_answered_when_its_drain_is_dropped() {
    for order in ORDERS {
        watershed::testing::for_every_poll(|point| {
            let scene = Scene::with(7, &[6], |log| log.endless());
            let member = scene.member(&[0]);
            let context = scene.world.context("orders");
            let handler = scene.works_slowly_on(record(0, 3), ms(60));
            let drain = Drain::new(order).on(&context, member.sources, handler);
            let asks = async {
                scene.sleep(ms(20)).await;
                member.consumer.revoke(0, None).await
            };
            let (_, answer) = scene.run(async { futures::join!(point.cut(drain), asks) });
            let _ = answer;
            scene.roll_back(&context);
            scene.log.check().unwrap();
            drop(member.link);
            scene.log.calm();
        });
    }
}

// Rule 7.18: … or none runs
#[test]
fn a_question_is_answered_where_no_drain_runs() {
    let scene = Scene::new(7, &[3]);
    let member = scene.member(&[0]);
    assert_eq!(member.consumer.revoke(0, None).now_or_never(), Some(0));
    let context = scene.world.context("orders");
    let drain = Drain::new(Order::Serial).on(&context, member.sources, scene.works());
    let report = settled(scene.run(drain));
    assert_eq!(report.fetched(), 0);
    scene.finish(&[0]);
}

// Rules 7.17, 7.18: `Assigned` and `Revoked` both queued before the drain begins
#[test]
fn what_was_given_and_asked_back_before_the_drain_begins_is_not_taken() {
    for again in [false, true] {
        let scene = Scene::new(7, &[3, 3]);
        let consumer = scene.log.consumer();
        let link = Rc::new(Link::new(consumer.clone()));
        consumer.assign(0);
        consumer.assign(1);
        assert_eq!(consumer.revoke(0, None).now_or_never(), Some(0));
        if again {
            consumer.assign(0);
        }
        let context = scene.world.context("orders");
        let drain = Drain::new(Order::Serial).assigned(&link);
        let stop = drain.shutdown.clone();
        let running = drain.on(&context, Vec::new(), scene.works());
        let running = scene.simulation.spawn("drain", running);
        scene.run(scene.sleep(ms(1_000)));
        assert_eq!(scene.log.committed(0), if again { 3 } else { 0 });
        assert_eq!(scene.log.committed(1), 3);
        stop.cancel();
        settled(scene.run(running));
        scene.log.check().unwrap();
    }
}

// Rule 7.18: a question about what is not ours is answered
#[test]
fn a_question_about_another_generation_is_answered_and_disturbs_nobody() {
    let scene = Scene::with(7, &[6], |log| log.endless());
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let drain = Drain::new(Order::Serial);
    let stop = drain.shutdown.clone();
    let running = drain.on(&context, member.sources, scene.works());
    let running = scene.simulation.spawn("drain", running);
    let answered = Arc::new(Mutex::new(Vec::new()));
    let notices: &Notices = member.consumer.told();
    for assignment in [(0, 0), (5, 77)] {
        let noted = answered.clone();
        let assignment = Assignment { partition: assignment.0, generation: assignment.1 };
        notices.tell(Event::Revoked(Revocation::new(assignment, move |open| {
            noted.lock().unwrap().push(open)
        })));
    }
    scene.run(scene.sleep(ms(1_000)));
    assert_eq!(*answered.lock().unwrap(), [0, 0]);
    assert_eq!(scene.log.committed(0), 6);
    stop.cancel();
    settled(scene.run(running));
}

// Rule 7.18: a partition that is to be given up holds up no other
#[test]
fn neighbours_go_on_while_a_partition_is_given_up() {
    let scene = Scene::with(7, &[3, 400], |log| log.prefetches(4));
    let member = scene.member(&[0, 1]);
    let context = scene.world.context("orders");
    let handler = scene.works_slowly_on(record(0, 0), ms(100_000));
    let drain = Drain::new(Order::Unordered).on(&context, member.sources, handler);
    let running = scene.simulation.spawn("drain", drain);
    scene.run(scene.sleep(ms(5)));
    let answer = member.consumer.revoke(0, None);
    scene.run(scene.sleep(ms(50_000)));
    assert_eq!(scene.log.committed(1), 400);
    assert_eq!(scene.run(answer), 0);
    settled(scene.run(running));
    scene.log.check().unwrap();
}

// Rule 7.18: whoever asks twice has both answers when the partition is given up, and not before
#[test]
fn a_question_that_is_asked_twice_is_answered_when_the_partition_is_given_up() {
    for order in ORDERS {
        let scene = Scene::with(7, &[6], |log| log.prefetches(8));
        let member = scene.member(&[0]);
        let context = scene.world.context("orders");
        let handler = scene.works_slowly_on(record(0, 1), ms(4_000));
        let drain = Drain::new(order).on(&context, member.sources, handler);
        let running = scene.simulation.spawn("drain", drain);
        scene.run(scene.sleep(ms(1_000)));
        let mut first = member.consumer.revoke(0, None);
        scene.run(scene.sleep(ms(1_000)));
        let second = member.consumer.revoke(0, Some(ms(60_000)));
        scene.run(scene.sleep(ms(1_000)));
        assert_eq!((&mut first).now_or_never(), None);
        assert_eq!(scene.run(first), 0);
        assert_eq!(scene.run(second), 0);
        assert_eq!(settled(scene.run(running)).lost(), 0);
        scene.log.check().unwrap();
    }
}

// Rule 7.18: what waits for a retry and keeps its permit, because too many wait, is released as well
#[test]
fn what_waits_with_its_permit_is_given_back_when_its_partition_is() {
    for order in ORDERS {
        let scene = Scene::with(7, &[6, 6], |log| log.prefetches(8).endless());
        let member = scene.member(&[0, 1]);
        let context = scene.world.context("orders");
        let log = scene.log.clone();
        let handler = scene.works_unless(move |it, _| log.handled(it) == 1);
        let mut drain = Drain::new(order).retry(RetryPolicy::fixed(3, ms(3_600_000)));
        drain.max_waiting = 1;
        let stop = drain.shutdown.clone();
        let running = scene.simulation.spawn("drain", drain.on(&context, member.sources, handler));
        scene.run(scene.sleep(ms(1_000)));
        for partition in [0, 1] {
            assert_eq!(scene.run(member.consumer.revoke(partition, None)), 0, "{order:?}");
            assert!(scene.world.clock().now().as_nanos() < 2_000_000_000, "{order:?} {partition}");
        }
        stop.cancel();
        let report = settled(scene.run(running));
        assert_eq!(report.accepted(), 0, "{report:?}");
        assert_eq!(context.scope().len(), 0);
        scene.log.check().unwrap();
        scene.finish(&[0, 1]);
    }
}

// Rules 7.5, 7.18: what waits for a retry when its partition is lost waits no longer
#[test]
fn what_waits_for_a_retry_is_dropped_when_its_partition_is_lost() {
    for max_waiting in [1, 100] {
        for order in ORDERS {
            let scene = Scene::with(7, &[6, 6], |log| log.prefetches(8).endless());
            let member = scene.member(&[0, 1]);
            let context = scene.world.context("orders");
            let log = scene.log.clone();
            let handler =
                scene.works_unless(move |it, _| it.partition == 0 && log.handled(it) == 1);
            let mut drain = Drain::new(order).retry(RetryPolicy::fixed(3, ms(3_600_000)));
            drain.max_waiting = max_waiting;
            let stop = drain.shutdown.clone();
            let drain = drain.on(&context, member.sources, handler);
            let running = scene.simulation.spawn("drain", drain);
            scene.run(scene.sleep(ms(1_000)));
            member.consumer.lose(0);
            scene.run(scene.sleep(ms(1_000)));
            assert_eq!(scene.log.committed(1), 6, "{order:?} {max_waiting}");
            stop.cancel();
            let report = settled(scene.run(running));
            assert!(report.lost() > 0 && report.released() == 0, "{report:?}");
            assert!(scene.world.clock().now().as_nanos() < 3_000_000_000, "{order:?}");
            assert_eq!(context.scope().len(), 0);
            scene.log.check().unwrap();
            scene.finish(&[0]);
        }
    }
}

// Rule 7.18: a partition that is asked back while the drain shuts down, and a shutdown while it is
#[test]
fn partitions_are_given_up_while_the_drain_shuts_down() {
    for order in ORDERS {
        for first in [false, true] {
            at_every_poll(|poll| {
                let scene = Scene::with(poll, &[6, 6], |log| log.endless());
                let member = scene.member(&[0, 1]);
                let context = scene.world.context("orders");
                let drain = Drain::new(order);
                let stop = drain.shutdown.clone();
                let handler = scene.works_unless(|it, _| it.offset == 4);
                let drain = drain.going_on().on(&context, member.sources, handler);
                let answer = Rc::new(Mutex::new(None));
                let (consumer, slot, ends) =
                    (member.consumer.clone(), answer.clone(), stop.clone());
                let both = move || {
                    if first {
                        ends.cancel();
                    }
                    *slot.lock().unwrap() = Some(consumer.revoke(0, None));
                    ends.cancel();
                };
                let drain = after_polls(poll, drain, both);
                let late = async {
                    scene.sleep(ms(200)).await;
                    stop.cancel();
                };
                let ((ended, done), ()) = scene.run(async { futures::join!(drain, late) });
                let report = settled(ended);
                assert_eq!((report.lost(), report.unknown(), report.abandoned()), (0, 0, 0));
                if let Some(answer) = answer.lock().unwrap().take() {
                    assert_eq!(answer.now_or_never(), Some(0), "it is answered");
                }
                assert_eq!(context.scope().len(), 0);
                scene.log.check().unwrap();
                scene.finish(&[0, 1]);
                done && poll < 120
            });
        }
    }
}
