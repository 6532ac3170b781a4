//! Rules 2.7, 7.12, 7.18 and 7.21: partitions that are removed from a drain, paused, and added again.

use std::pin::Pin;

use futures::FutureExt;
use watershed::channels::live;
use watershed::testing::LogConsumer;
use watershed::transport::{Link, TransportSource};
use watershed::{CancellationSource, fan_in};

use crate::scene::*;

type Live = TransportSource<LogConsumer>;

fn running(
    scene: &Scene,
    context: &watershed::StepContext,
    incoming: watershed::channels::IncomingSources<Live>,
    stop: &CancellationSource,
    order: Order,
) -> futures::future::RemoteHandle<Ended> {
    let drain = fan_in(context, [], scene.works());
    let drain = drain.incoming(incoming).shutdown(stop.token()).concurrency(3);
    let drain = match order {
        Order::Serial => std::future::IntoFuture::into_future(drain).boxed_local(),
        _ => std::future::IntoFuture::into_future(drain.unordered()).boxed_local(),
    };
    scene.simulation.spawn("drain", drain)
}

// Rules 2.7, 7.21
#[test]
fn a_partition_that_is_removed_and_added_again_loses_and_repeats_nothing() {
    for order in [Order::Serial, Order::Unordered] {
        for made_again in [false, true] {
            for at in 0..60 {
                let scene = Scene::with(at, &[9, 9], |log| log.prefetches(4).endless());
                let consumer = scene.log.consumer();
                let link = Link::new(consumer.clone());
                let (sources, incoming) = live::<Live>();
                let assignment = consumer.assign(0);
                let first = sources.add(link.partition(assignment)).unwrap();
                let _second = sources.add(link.partition(consumer.assign(1))).unwrap();
                let context = scene.world.context("orders");
                let stop = CancellationSource::new();
                let drain = running(&scene, &context, incoming, &stop, order);
                scene.run(scene.sleep(ms(at)));
                let removed = scene.run(first.remove()).expect("it has not ended");
                scene.run(scene.sleep(ms(50)));
                let again = if made_again {
                    drop(removed);
                    scene.run(scene.sleep(ms(50)));
                    link.partition(assignment)
                } else {
                    *Pin::into_inner(removed)
                };
                let _again = sources.add(again).unwrap();
                scene.run(scene.sleep(ms(1_000)));
                assert!(scene.log.is_drained(), "{order:?} {made_again} {at}");
                stop.cancel();
                let report = settled(scene.run(drain));
                assert_eq!((report.accepted(), report.abandoned(), report.lost()), (18, 0, 0));
                scene.log.check().unwrap();
            }
        }
    }
}

// Rules 2.7, 7.21: a partition that is removed, and asked back by the transport
#[test]
fn a_partition_that_is_removed_is_given_up_when_it_is_asked_for() {
    for order in [Order::Serial, Order::Unordered] {
        for dropped in [false, true] {
            for at in 0..60 {
                let scene = Scene::with(at, &[9, 3], |log| log.prefetches(4).endless());
                let consumer = scene.log.consumer();
                let link = Link::new(consumer.clone());
                let (sources, incoming) = live::<Live>();
                let first = sources.add(link.partition(consumer.assign(0))).unwrap();
                let _second = sources.add(link.partition(consumer.assign(1))).unwrap();
                let context = scene.world.context("orders");
                let stop = CancellationSource::new();
                let drain = running(&scene, &context, incoming, &stop, order);
                scene.run(scene.sleep(ms(at)));
                let removed = scene.run(first.remove());
                let kept = removed.filter(|_| !dropped);
                assert_eq!(scene.run(consumer.revoke(0, None)), 0);
                assert!(scene.simulation.polls() < 5_000);
                stop.cancel();
                let report = settled(scene.run(drain));
                assert_eq!((report.abandoned(), report.lost()), (0, 0), "{report:?}");
                drop(kept);
                scene.log.check().unwrap();
                scene.finish(&[0, 1]);
            }
        }
    }
}

// Rules 2.7, 7.12, 7.18
#[test]
fn a_partition_that_is_paused_is_committed_and_given_up_all_the_same() {
    for order in [Order::Serial, Order::Unordered] {
        for at in 0..60 {
            let scene = Scene::with(at, &[9, 3], |log| log.prefetches(4).endless());
            let consumer = scene.log.consumer();
            let link = Link::new(consumer.clone());
            let (sources, incoming) = live::<Live>();
            let first = sources.add(link.partition(consumer.assign(0))).unwrap();
            let context = scene.world.context("orders");
            let stop = CancellationSource::new();
            let drain = running(&scene, &context, incoming, &stop, order);
            scene.run(scene.sleep(ms(at)));
            first.pause();
            scene.run(scene.sleep(ms(100)));
            let done = (0..9).take_while(|it| scene.log.handled(record(0, *it)) > 0).count();
            assert_eq!(scene.log.committed(0), done as u64);
            if at % 2 == 0 {
                assert_eq!(scene.run(consumer.revoke(0, None)), 0);
            } else {
                first.resume();
                scene.run(scene.sleep(ms(1_000)));
                assert_eq!(scene.log.committed(0), 9);
            }
            stop.cancel();
            settled(scene.run(drain));
            scene.log.check().unwrap();
            scene.finish(&[0, 1]);
        }
    }
}
