//! Rules 7.2, 7.14 and 7.15: each answer at each commit and each seek.

use watershed::testing::LogAnswer;

use crate::scene::*;

const ANSWERS: [LogAnswer; 8] = [
    LogAnswer::Confirmed,
    LogAnswer::Sent,
    LogAnswer::Refused,
    LogAnswer::Lost,
    LogAnswer::Unknown,
    LogAnswer::Swallowed,
    LogAnswer::Missing,
    LogAnswer::Silent,
];

// Rules 7.2, 7.14
#[test]
fn each_answer_at_each_commit() {
    for order in ORDERS {
        for answer in ANSWERS {
            for at in 0..8 {
                let scene = Scene::new(at, &[9]);
                let member = scene.member(&[0]).linked(|link| link.settle_within(ms(5_000)));
                let script = (0..at).map(|_| LogAnswer::Confirmed).chain([answer]);
                scene.log.answer_commits(script);
                let context = scene.world.context("orders");
                let drain = Drain::new(order).on(&context, member.sources, scene.works());
                let report = settled(scene.run(drain));
                scene.log.check().unwrap();
                if answer != LogAnswer::Lost {
                    assert_eq!(report.accepted(), 9, "{order:?} {answer:?} {at}");
                    assert!(scene.log.is_drained());
                    assert!((0..9).all(|offset| scene.log.handled(record(0, offset)) == 1));
                }
                assert_eq!(context.scope().len(), 0);
                scene.finish(&[0]);
            }
        }
    }
}

// Rules 7.2, 7.15
#[test]
fn each_answer_at_each_seek() {
    for order in ORDERS {
        for answer in ANSWERS {
            for at in 0..4 {
                let scene = Scene::new(at, &[9]);
                let member = scene.member(&[0]).linked(|link| link.settle_within(ms(5_000)));
                let script = (0..at).map(|_| LogAnswer::Confirmed).chain([answer]);
                scene.log.answer_seeks(script);
                let context = scene.world.context("orders");
                let log = scene.log.clone();
                // Two of them are given back twice before they are handled.
                let handler = scene.works_unless(move |record, _| {
                    record.offset % 5 == 2 && log.handled(record) <= 2
                });
                let drain = Drain::new(order).going_on().on(&context, member.sources, handler);
                let report = settled(scene.run(drain));
                scene.log.check().unwrap();
                assert_eq!(context.scope().len(), 0);
                if answer != LogAnswer::Lost {
                    assert_eq!(report.accepted(), 9, "{order:?} {answer:?} {at}");
                }
                scene.finish(&[0]);
            }
        }
    }
}
