//! Random programs: partitions that move between two drains while everything goes wrong.

use std::rc::Rc;

use futures::FutureExt;
use futures::future::BoxFuture;
use watershed::testing::LogRecord;
use watershed::transport::Link;
use watershed::{RetryPolicy, timers};

use crate::scene::*;

/// Set to a number, so many programs are run instead of some hundreds; `SETTLEMENT_SEED` is the first
/// seed.
const PROGRAMS: &str = "SETTLEMENT_PROGRAMS";

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

// Rules 7.5, 7.6, 7.14, 7.15, 7.17, 7.18, 7.21: it ends, nothing is lost, no offset passes what is not
// done, and the accounts are exact
#[test]
fn random_programs_lose_nothing() {
    let first = number("SETTLEMENT_SEED", 0);
    for seed in first..first + number(PROGRAMS, 500) {
        let outcome = std::panic::catch_unwind(|| program(seed));
        if let Err(panic) = outcome {
            eprintln!("SETTLEMENT_SEED={seed} {PROGRAMS}=1");
            std::panic::resume_unwind(panic);
        }
    }
}

fn trace(text: &str, scene: &Scene) {
    if std::env::var("SETTLEMENT_TRACE").is_ok() {
        use watershed::Clock;
        eprintln!(
            "{} {text} {:?}",
            scene.world.clock().now().as_nanos() / 1_000,
            scene.log.check()
        );
    }
}

/// A drain of any kind, whose handlers fail now and then, and not for ever.
fn any_drain(scene: &Scene, seed: u64, ends_soon: bool) -> (Drain, Handler) {
    let pick = |end| scene.world.below(end);
    let mut drain = Drain::new(ORDERS[pick(3) as usize]);
    drain.concurrency = 1 + pick(6) as usize;
    drain.goes_on = true;
    if pick(2) == 0 {
        drain.retry = Some(RetryPolicy::fixed(3, ms(pick(40))));
        drain.max_waiting = 1 + pick(3) as usize;
    }
    if pick(2) == 0 {
        drain = drain.letters(scene);
    }
    // Its fetches are as short as that.
    if ends_soon && pick(3) == 0 {
        drain.finish_within = Some(ms(10 + pick(50)));
    }
    let fails = pick(3) * 7;
    let slow = ms([0, 0, 30][pick(3) as usize]);
    let log = scene.log.clone();
    let mut works = scene.works_unless(move |record, _| {
        let mut mixed = seed ^ (record.offset * 31 + u64::from(record.partition) * 17);
        mixed = mixed.wrapping_add(log.handled(record)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        log.handled(record) < 5 && (mixed >> 40) % 50 < fails
    });
    let handler = move |record: LogRecord, step: watershed::StepContext| {
        let work = works(record, step.clone());
        async move {
            work.await?;
            // It hears that it is cancelled.
            Ok(timers::delay(&step, slow).await?)
        }
        .boxed()
    };
    (drain, Box::new(handler))
}

fn program(seed: u64) {
    let simulation = watershed::testing::Simulation::new(seed);
    let world = simulation.world().clone();
    let pick = |end| world.below(end);
    let partitions: Vec<u64> = (0..1 + pick(3)).map(|_| pick(12)).collect();
    let mishaps = [0, 0, 10, 40][pick(4) as usize];
    let prefetch = 1 + pick(6) as usize;
    let (fetch, settle) = (pick(20), pick(20));
    let scene = Scene::with(seed ^ 0x5eed, &partitions, |log| {
        log.endless().prefetches(prefetch).latency(ms(fetch), ms(settle)).mishaps(seed, mishaps)
    });
    let count = partitions.len() as u64;
    let consumers = [scene.log.consumer(), scene.log.consumer()];
    let links = consumers.clone().map(|consumer| {
        let link = Link::new(consumer).settle_within(ms(200 + pick(2_000)));
        let link = link.max_ahead(1 + pick(8) as usize).max_unsettled(1 + pick(20) as usize);
        Rc::new(link)
    });
    let contexts = [scene.world.context("left"), scene.world.context("right")];
    let way = pick(5);
    let mut stops = Vec::new();
    let mut running = Vec::new();
    for at in 0..2 {
        let (drain, handler) = any_drain(&scene, seed, way % 4 != 0);
        let drain = drain.assigned(&links[at]);
        stops.push((drain.shutdown.clone(), drain.cancellation.clone()));
        let drain = drain.on(&contexts[at], Vec::new(), handler);
        running.push(scene.simulation.spawn(format!("drain {at}"), drain));
    }
    let mut asked = Vec::new();
    for partition in 0..count {
        consumers[pick(2) as usize].assign(partition as u32);
    }
    for _ in 0..pick(12) {
        scene.run(scene.sleep(ms(pick(40))));
        let partition = pick(count) as u32;
        let Some(from) = (0..2).find(|at| consumers[*at].has(partition).is_some()) else {
            consumers[pick(2) as usize].assign(partition);
            continue;
        };
        let kind = pick(4);
        trace(&format!("{kind} of {partition} at {from}"), &scene);
        match kind {
            0 => consumers[from].lose(partition),
            1 => {
                let within = [None, Some(ms(pick(100)))][pick(2) as usize];
                asked.push(consumers[from].revoke(partition, within).boxed());
            }
            2 => {
                let within = [None, Some(ms(pick(100)))][pick(2) as usize];
                scene.run(consumers[from].revoke(partition, within));
                consumers[pick(2) as usize].assign(partition);
            }
            _ => {
                consumers[from].lose(partition);
                consumers[pick(2) as usize].assign(partition);
            }
        }
    }
    trace(&format!("way {way}"), &scene);
    if way == 0 {
        // To the end.
        scene.log.calm();
        for partition in 0..count as u32 {
            if (0..2).all(|at| consumers[at].has(partition).is_none()) {
                consumers[pick(2) as usize].assign(partition);
            }
        }
        scene.run(scene.sleep(ms(90_000)));
        for partition in 0..count as u32 {
            if (0..2).all(|at| consumers[at].has(partition).is_none()) {
                consumers[pick(2) as usize].assign(partition);
            }
        }
        scene.run(scene.sleep(ms(90_000)));
        assert!(scene.log.is_drained(), "all is handled in the end");
    }
    for (at, drain) in running.into_iter().enumerate() {
        match way {
            // What a dropped drain leaves is undone.
            1 | 4 => drop(drain),
            2 => {
                stops[at].1.cancel();
                checked(&scene.run(drain));
            }
            _ => {
                stops[at].0.cancel();
                checked(&scene.run(drain));
            }
        }
    }
    scene.run(scene.sleep(ms(1)));
    let is_open = |answer: BoxFuture<'static, usize>| answer.now_or_never().is_none();
    assert_eq!(asked.into_iter().filter_map(|it| is_open(it).then_some(())).count(), 0);
    scene.log.calm();
    contexts.iter().for_each(|context| scene.roll_back(context));
    scene.log.check().unwrap();
    if way == 4 {
        // Another drain of the same link goes on.
        for at in 0..2 {
            let (drain, handler) = any_drain(&scene, seed, false);
            let drain = drain.assigned(&links[at]);
            let stop = drain.shutdown.clone();
            let drain = drain.on(&contexts[at], Vec::new(), handler);
            let drain = scene.simulation.spawn(format!("drain {at} again"), drain);
            scene.run(scene.sleep(ms(90_000)));
            let parts = 0..count as u32;
            let held = parts.filter(|partition| consumers[at].has(*partition).is_some());
            for partition in held {
                // A commit of the first drain may have been on its way.
                let left = partitions[partition as usize] - scene.log.committed(partition);
                let last =
                    (0..left).map(|it| record(partition, scene.log.committed(partition) + it));
                assert!(last.into_iter().all(|it| scene.log.handled(it) > 0), "nothing waits");
            }
            stop.cancel();
            checked(&scene.run(drain));
            scene.roll_back(&contexts[at]);
        }
        scene.log.check().unwrap();
    }
    let drained: Vec<_> = (0..count as u32).collect();
    let context = scene.world.context("the next one");
    let member = scene.member(&drained);
    let drain = Drain::new(Order::Unordered);
    let stop = drain.shutdown.clone();
    let drain = drain.on(&context, member.sources, scene.works());
    let drain = scene.simulation.spawn("the last", drain);
    scene.run(scene.sleep(ms(60_000)));
    stop.cancel();
    settled(scene.run(drain));
    scene.log.check().unwrap();
    assert!(scene.log.is_drained());
    assert_eq!(scene.log.stale(), 0);
}
