//! Rules 7.5, 7.14 and 7.17: partitions that are taken away, and generations that are over.

use std::rc::Rc;

use watershed::testing::LogRecord;
use watershed::transport::Link;

use crate::scene::*;

// Rules 7.5, 7.17: at every poll, with every order
#[test]
fn a_partition_that_is_lost_is_committed_no_further() {
    for order in ORDERS {
        for latency in [0, 5] {
            at_every_poll(|poll| {
                let scene = Scene::with(poll, &[6, 6], |log| log.latency(ms(1), ms(latency)));
                let member = scene.member(&[0, 1]);
                let context = scene.world.context("orders");
                let drain = Drain::new(order).on(&context, member.sources, scene.works());
                let consumer = member.consumer.clone();
                let drain = after_polls(poll, drain, || consumer.lose(0));
                let (ended, done) = scene.run(drain);
                let report = settled(ended);
                scene.log.check().unwrap();
                assert_eq!((scene.log.stale(), scene.log.committed(1)), (0, 6));
                assert_eq!(context.scope().len(), 0, "{report:?}");
                scene.finish(&[0]);
                done
            });
        }
    }
}

// Rule 7.17: what was taken away is known before anything is sent
#[test]
fn several_partitions_that_are_lost_at_once_are_committed_no_further() {
    for order in ORDERS {
        at_every_poll(|poll| {
            let scene = Scene::new(poll, &[6, 6, 6, 6]);
            let member = scene.member(&[0, 1, 2, 3]);
            let context = scene.world.context("orders");
            let drain = Drain::new(order).on(&context, member.sources, scene.works());
            let consumer = member.consumer.clone();
            let drain = after_polls(poll, drain, || (0..4).for_each(|it| consumer.lose(it)));
            let (ended, done) = scene.run(drain);
            settled(ended);
            scene.log.check().unwrap();
            scene.finish(&[0, 1, 2, 3]);
            done
        });
    }
}

// Rule 7.5: lost between `Ok` and the commit, the effects stay and it counts as lost
#[test]
fn what_is_done_and_not_committed_stays_and_is_lost() {
    let scene = Scene::with(7, &[6], |log| log.prefetches(10));
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let handler = scene.works_slowly_on(record(0, 0), ms(3_600_000));
    let drain = Drain::new(Order::Unordered).concurrency(6);
    let running = scene.simulation.spawn("drain", drain.on(&context, member.sources, handler));
    scene.run(scene.sleep(ms(5_000)));
    member.consumer.lose(0);
    let report = settled(scene.run(running));
    assert_eq!((report.lost(), report.fetched()), (6, 6));
    assert_eq!(context.scope().len(), 0);
    assert!(scene.world.clock().now_millis() < 10_000);
    scene.log.check().unwrap();
}

// Rule 7.17: a partition that is given again is another one
#[test]
fn a_partition_that_is_lost_and_given_again_is_begun_anew() {
    for order in ORDERS {
        for latency in [0, 5, 40] {
            at_every_poll(|poll| {
                let scene = Scene::with(poll, &[6, 2], |log| log.latency(ms(latency), ms(2)));
                let consumer = scene.log.consumer();
                consumer.assign(0);
                consumer.assign(1);
                let link = Rc::new(Link::new(consumer.clone()));
                let context = scene.world.context("orders");
                let drain = Drain::new(order).assigned(&link);
                let stop = drain.shutdown.clone();
                let drain = drain.on(&context, Vec::new(), scene.works());
                let drain = after_polls(poll, drain, || {
                    consumer.lose(0);
                    consumer.assign(0);
                });
                let ends = async {
                    scene.sleep(ms(5_000)).await;
                    stop.cancel();
                };
                let ((ended, done), ()) = scene.run(async { futures::join!(drain, ends) });
                settled(ended);
                scene.log.check().unwrap();
                assert!(scene.log.is_drained(), "{poll} {order:?}");
                assert_eq!(context.scope().len(), 0);
                done && scene.world.clock().now_millis() < 60_000 && poll < 400
            });
        }
    }
}

trait Millis {
    fn now_millis(&self) -> u64;
}

impl<C: watershed::Clock> Millis for C {
    fn now_millis(&self) -> u64 {
        self.now().as_nanos() / 1_000_000
    }
}

// Rule 7.5: what comes again is begun once the earlier delivery is undone
#[test]
fn a_record_that_comes_again_is_begun_once_its_earlier_delivery_is_undone() {
    use futures::FutureExt;
    use std::sync::{Arc, Mutex};
    use watershed::Clock;
    use watershed::fan_in;

    let scene = Scene::new(7, &[3]);
    let consumer = scene.log.consumer();
    consumer.assign(0);
    let link = Link::new(consumer.clone());
    let context = scene.world.context("orders");
    let at_work = Arc::new(Mutex::new(0));
    let (log, clock, most) = (scene.log.clone(), scene.world.clock().clone(), at_work.clone());
    let stop = watershed::CancellationSource::new();
    let drain = fan_in(&context, [], move |it: LogRecord, step| {
        let (log, clock, at_work) = (log.clone(), clock.clone(), most.clone());
        async move {
            if it.offset == 1 {
                *at_work.lock().unwrap() += 1;
                assert_eq!(*at_work.lock().unwrap(), 1, "begun before the earlier one is undone");
                let undo = (at_work.clone(), clock.clone());
                step.register_compensation_with(undo, |(at_work, clock)| async move {
                    clock.sleep_until(clock.now() + ms(2_000)).await;
                    *at_work.lock().unwrap() -= 1;
                });
                if log.handled(it) == 0 {
                    log.apply(&step, it);
                    clock.sleep_until(clock.now() + ms(3_600_000)).await;
                }
            }
            log.apply(&step, it);
            Ok::<_, watershed::BoxError>(())
        }
        .boxed()
    });
    let drain = drain.unordered().concurrency(8).incoming(link.assigned()).shutdown(stop.token());
    let running = scene.simulation.spawn("drain", std::future::IntoFuture::into_future(drain));
    scene.run(scene.sleep(ms(500)));
    consumer.lose(0);
    consumer.assign(0);
    scene.run(scene.sleep(ms(20_000)));
    stop.cancel();
    settled(scene.run(running));
    scene.log.check().unwrap();
    assert!(scene.log.is_drained());
}
