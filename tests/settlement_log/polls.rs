//! Rules 7.6, 7.8, 7.14 and 7.21: dropped, cancelled, shut down at every poll.

use watershed::RetryPolicy;
use watershed::testing::{LogAnswer, for_every_poll};

use crate::scene::*;

fn scene(at: u64) -> Scene {
    let scene = Scene::with(at % 3, &[6, 4], |log| log.latency(ms(2), ms(3)));
    scene.log.answer_commits([LogAnswer::Confirmed, LogAnswer::Refused, LogAnswer::Swallowed]);
    scene
}

fn kinds() -> impl Iterator<Item = (Order, bool, bool)> {
    let all = |order| [(order, false, false), (order, true, false), (order, false, true)];
    ORDERS.into_iter().flat_map(all)
}

/// A drain of some kind: with failures and retries, or with failures and dead letters.
fn drain_of(scene: &Scene, kind: (Order, bool, bool)) -> (Drain, Handler) {
    let (order, retries, letters) = kind;
    let drain = Drain::new(order);
    let fails = retries || letters;
    let handler =
        scene.works_unless(move |it, attempt| fails && it.offset % 3 == 1 && attempt == 1);
    match (retries, letters) {
        (true, _) => (drain.retry(RetryPolicy::fixed(3, ms(4))), handler),
        (_, true) => (drain.letters(scene), handler),
        _ => (drain, handler),
    }
}

// Rules 7.8, 7.14: dropped at every poll, then undone, then another consumer has the partitions
#[test]
fn dropped_at_every_poll_nothing_is_lost() {
    for kind in kinds() {
        for_every_poll(|point| {
            let scene = scene(point.polls());
            let member = scene.member(&[0, 1]);
            let context = scene.world.context("orders");
            let (drain, handler) = drain_of(&scene, kind);
            let ended = scene.run(point.cut(drain.on(&context, member.sources, handler)));
            if let Some(ended) = ended {
                settled(ended);
            }
            scene.log.calm();
            scene.roll_back(&context);
            assert_eq!(context.scope().len(), 0);
            scene.log.check().unwrap();
            drop(member.link);
            scene.finish(&[0, 1]);
        });
    }
}

// Rules 7.8, 7.15: … and by another drain of the same link, which still has the partitions
#[test]
fn dropped_at_every_poll_the_next_drain_of_the_link_loses_nothing() {
    for kind in kinds() {
        for_every_poll(|point| {
            let scene = scene(point.polls());
            let member = scene.member(&[0, 1]);
            let context = scene.world.context("orders");
            let (drain, handler) = drain_of(&scene, kind);
            let ended = scene.run(point.cut(drain.on(&context, member.sources, handler)));
            scene.log.calm();
            scene.roll_back(&context);
            if ended.is_none() {
                let consumer = &member.consumer;
                let parts = (0..2).map(|it| consumer.has(it).unwrap());
                let sources = parts.map(|it| member.link.partition(it)).collect();
                let next = Drain::new(Order::Unordered).on(&context, sources, scene.works());
                settled(scene.run(next));
            }
            assert!(
                scene.log.check().is_ok(),
                "{kind:?} {} {:?}",
                point.polls(),
                scene.log.check()
            );
            // A commit that was on its way is not known to have arrived.
            drop(member.link);
            scene.finish(&[0, 1]);
        });
    }
}

// Rule 7.21: shut down at every poll, what was fetched and not begun is released, the rest settled
#[test]
fn shut_down_at_every_poll_everything_is_settled() {
    for kind in kinds() {
        for_every_poll(|point| {
            let scene = scene(point.polls());
            let member = scene.member(&[0, 1]);
            let context = scene.world.context("orders");
            let (drain, handler) = drain_of(&scene, kind);
            let stop = drain.shutdown.clone();
            let drain = drain.on(&context, member.sources, handler);
            let ended = scene.run(point.cancel(&stop, drain));
            // What has attempts left, and gets none, is the drain's failure (3.9).
            assert!(ended.is_ok() || kind.1, "{ended:?}");
            let report = checked(&ended);
            assert_eq!((report.lost(), report.unknown(), report.abandoned()), (0, 0, 0));
            let committed = scene.log.committed(0) + scene.log.committed(1);
            assert_eq!(report.accepted() + report.rejected(), committed);
            assert_eq!(context.scope().len(), 0);
            assert_eq!(scene.log.closed(), 1);
            scene.log.check().unwrap();
            scene.finish(&[0, 1]);
        });
    }
}

// Rules 7.4, 7.21: cancelled at every poll, what runs is undone and released
#[test]
fn cancelled_at_every_poll_everything_is_undone_or_settled() {
    for kind in kinds() {
        for_every_poll(|point| {
            let scene = scene(point.polls());
            let member = scene.member(&[0, 1]);
            let context = scene.world.context("orders");
            let (drain, handler) = drain_of(&scene, kind);
            let stop = drain.cancellation.clone();
            let drain = drain.on(&context, member.sources, handler);
            let ended = scene.run(point.cancel(&stop, drain));
            let report = checked(&ended);
            assert_eq!((report.lost(), report.abandoned()), (0, 0), "{report:?}");
            let committed = scene.log.committed(0) + scene.log.committed(1);
            assert_eq!(report.accepted() + report.rejected() + report.unknown(), committed);
            assert_eq!(context.scope().len(), 0);
            scene.log.check().unwrap();
            scene.finish(&[0, 1]);
        });
    }
}

// Rules 7.6, 7.21: what the budget does not suffice for is abandoned, and counted
#[test]
fn shut_down_with_no_time_the_sum_is_right() {
    for kind in kinds() {
        for within in [0, 3, 10] {
            for_every_poll(|point| {
                let scene = scene(point.polls());
                let member = scene.member(&[0, 1]);
                let context = scene.world.context("orders");
                let (drain, handler) = drain_of(&scene, kind);
                let drain = drain.finish_within(ms(within));
                let stop = drain.shutdown.clone();
                let drain = drain.on(&context, member.sources, handler);
                let ended = scene.run(point.cancel(&stop, drain));
                checked(&ended);
                scene.log.calm();
                scene.roll_back(&context);
                scene.log.check().unwrap();
                drop(member.link);
                scene.finish(&[0, 1]);
            });
        }
    }
}
