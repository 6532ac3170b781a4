//! Rules 7.14 to 7.18: two drains in one process that exchange partitions.

use std::rc::Rc;

use watershed::RetryPolicy;
use watershed::transport::Link;

use crate::scene::*;

// Rules 7.14, 7.17, 7.18
#[test]
fn two_drains_that_exchange_their_partitions_lose_and_repeat_nothing() {
    for order in ORDERS {
        for seed in 0..20 {
            let scene = Scene::with(seed, &[40, 40, 40], |log| log.endless());
            let consumers = [scene.log.consumer(), scene.log.consumer()];
            let links = consumers.clone().map(|consumer| Rc::new(Link::new(consumer)));
            let contexts = [scene.world.context("left"), scene.world.context("right")];
            let drains = [Drain::new(order), Drain::new(order)];
            let stops = drains.clone().map(|drain| drain.shutdown);
            let running: Vec<_> = (0..2)
                .map(|at| {
                    let drain = drains[at].clone().assigned(&links[at]);
                    let drain = drain.on(&contexts[at], Vec::new(), scene.works());
                    scene.simulation.spawn(format!("drain {at}"), drain)
                })
                .collect();
            for partition in 0..3 {
                consumers[0].assign(partition);
            }
            for turn in 0..12_usize {
                scene.run(scene.sleep(ms(7)));
                let (partition, from) = (turn as u32 % 3, turn % 2);
                if consumers[from].has(partition).is_some() {
                    scene.run(consumers[from].revoke(partition, None));
                    consumers[1 - from].assign(partition);
                }
            }
            scene.run(scene.sleep(ms(60_000)));
            assert!(scene.log.is_drained(), "{order:?} {seed}");
            stops.iter().for_each(|stop| stop.cancel());
            let mut accepted = 0;
            for drain in running {
                let report = settled(scene.run(drain));
                assert_eq!((report.lost(), report.unknown(), report.abandoned()), (0, 0, 0));
                accepted += report.accepted();
            }
            assert_eq!(accepted, 120);
            assert_eq!(scene.log.stale(), 0);
            scene.log.check().unwrap();
            for partition in 0..3 {
                assert!((0..40).all(|at| scene.log.handled(record(partition, at)) == 1));
            }
        }
    }
}

// The same with retries, which wait when their partition is asked back
#[test]
fn partitions_with_retries_move_and_lose_nothing() {
    for order in ORDERS {
        for seed in 0..20 {
            let scene = Scene::with(seed, &[20, 20], |log| log.endless());
            let consumers = [scene.log.consumer(), scene.log.consumer()];
            let links = consumers.clone().map(|consumer| Rc::new(Link::new(consumer)));
            let drains = [Drain::new(order), Drain::new(order)];
            let stops = drains.clone().map(|drain| drain.shutdown);
            let running: Vec<_> = (0..2)
                .map(|at| {
                    let context = scene.world.context("orders");
                    let drain = drains[at].clone().assigned(&links[at]);
                    let drain = drain.retry(RetryPolicy::fixed(9, ms(50)));
                    let handler =
                        scene.works_unless(|it, attempt| it.offset % 4 == 1 && attempt < 3);
                    let drain = drain.on(&context, Vec::new(), handler);
                    scene.simulation.spawn(format!("drain {at}"), drain)
                })
                .collect();
            consumers[0].assign(0);
            consumers[1].assign(1);
            for turn in 0..10_usize {
                scene.run(scene.sleep(ms(73)));
                let from = turn % 2;
                scene.run(consumers[from].revoke(0, Some(ms(1_000))));
                consumers[1 - from].assign(0);
            }
            scene.run(scene.sleep(ms(60_000)));
            assert!(scene.log.is_drained(), "{order:?} {seed}");
            stops.iter().for_each(|stop| stop.cancel());
            for drain in running {
                assert_eq!(settled(scene.run(drain)).lost(), 0);
            }
            scene.log.check().unwrap();
        }
    }
}
