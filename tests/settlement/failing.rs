//! Messages that fail: undone, and then given back, or stored and rejected.

use std::future::IntoFuture;
use std::sync::Mutex;

use futures::FutureExt;
use watershed::testing::{QueueCall, ScriptedQueue, Simulation};
use watershed::transport::{Able, Verdict};
use watershed::{
    Answer, BoxError, CancellationSource, Commit, CompensationPolicy, ErrorCode, Letter, OnFailure,
    RetryPolicy, Source, StepContext, fan_in, timers,
};

use crate::shop::{MINUTE, SECOND, Shop, able, assert_sum, run, stage};

fn unexpected(what: &str) {
    panic!("{what}");
}

fn releases(shop: &Shop) -> Vec<Option<std::time::Duration>> {
    let mut all = Vec::new();
    for call in shop.queue.calls() {
        if let QueueCall::Settle { batch, .. } = call {
            all.extend(batch.iter().filter_map(|(_, verdict)| match verdict {
                Verdict::Release { after, begun: true } => Some(*after),
                _ => None,
            }));
        }
    }
    all
}

/// Rule 7.1: the delay of a release grows with the delivery count, where the transport can delay.
#[test]
fn what_failed_comes_back_later_each_time() {
    for delays in [true, false] {
        let (simulation, shop, context) = stage(1);
        let shop =
            if delays { shop } else { shop.with_able(Able::each().fences().renews().counts()) };
        let link = shop.link();
        let mut calls = 0;
        let drain = fan_in(&context, [link.source()], |_, step: StepContext| {
            calls += 1;
            shop.work(&step);
            let fails = calls < 8;
            async move { if fails { Err("declined") } else { Ok(()) } }
        });
        let drain =
            drain.retry(RetryPolicy::exponential(2, SECOND)).on_failure(OnFailure::Continue);
        let report = run(&simulation, drain).unwrap();
        assert_sum(&report);
        assert_eq!((report.accepted(), report.released()), (1, 3));
        let after = releases(&shop);
        if delays {
            let after: Vec<_> = after.into_iter().map(Option::unwrap).collect();
            assert!(after.windows(2).all(|it| it[1] > it[0]), "{after:?}");
        } else {
            assert_eq!(after, [None; 3]);
        }
        shop.check_all(1);
    }
}

/// Rule 7.4: whatever the failure, its compensations run in reverse before the release.
#[test]
fn a_failure_is_undone_in_reverse_and_then_released_by_the_drain_itself() {
    for how in 0..3 {
        let (simulation, shop, context) = stage(1);
        let (link, order) = (shop.link(), Mutex::new(Vec::new()));
        let order = &*Box::leak(Box::new(order));
        let world = simulation.world();
        let drain = fan_in(&context, [link.source()], async |_, step| {
            shop.work(&step);
            for number in 0..2 {
                let world = world.clone();
                step.register_compensation(move || {
                    let world = world.clone();
                    async move {
                        world.pause().await;
                        order.lock().unwrap().push(number);
                    }
                });
            }
            match how {
                0 => Err("declined".into()),
                1 => panic!("thrown"),
                _ => {
                    timers::delay(&step, MINUTE).await?;
                    Ok::<_, BoxError>(())
                }
            }
        });
        let failure = run(&simulation, drain.message_timeout(SECOND)).unwrap_err();
        let report = failure.report();
        assert_sum(report);
        assert_eq!((report.failed(), report.released()), (1, 1), "{how}");
        assert_eq!(*order.lock().unwrap(), [1, 0]);
        assert!(!context.scope().has_actions());
        assert_eq!(shop.verdicts(), [[(0, "release")]]);
        assert_eq!(shop.queue.closed(), 1, "the drain had its last source");
        shop.check_all(1);
    }
}

/// Rule 7.4: with a place for letters: stored there, and then rejected.
#[test]
fn a_letter_is_stored_before_its_message_is_rejected() {
    let (simulation, shop, context) = stage(3);
    let (link, world) = (shop.link(), simulation.world());
    let drain = fan_in(&context, [link.source()], async |number, step| {
        shop.work(&step);
        if number == 1 { Err("declined") } else { Ok(()) }
    });
    let report = run(
        &simulation,
        drain.dead_letters(async |letter: Letter<u32>| {
            world.pause().await;
            assert_eq!(letter.deliveries()[0].deliveries, Some(1));
            shop.letter(&letter);
        }),
    );
    let report = report.unwrap();
    assert_sum(&report);
    assert_eq!((report.accepted(), report.rejected()), (2, 1));
    assert_eq!(shop.queue.rejected(), [1]);
    shop.check_all(3);
}

/// Rules 3.8 and 7.4: a letter that cannot be stored ends the drain, and its message goes back.
#[test]
fn a_message_whose_letter_is_not_stored_is_released() {
    for hangs in [false, true] {
        let (simulation, shop, context) = stage(1);
        let link = shop.link();
        let drain = fan_in(&context, [link.source()], async |_, step| {
            shop.work(&step);
            Err::<(), _>("declined")
        });
        let drain = drain.dead_letters(async |_: Letter<u32>| {
            if hangs {
                std::future::pending::<()>().await;
            }
            Err("full")
        });
        let failure = run(&simulation, drain.dead_letter_timeout(SECOND)).unwrap_err();
        assert_sum(failure.report());
        assert_eq!((failure.report().released(), failure.report().rejected()), (1, 0));
        shop.check_all(1);
    }
}

/// Rule 7.4: an undo that fails for good.
#[test]
fn what_cannot_be_undone_is_not_released() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Place {
        Letters,
        Keeps,
        Redrives,
        None,
    }
    for place in [Place::Letters, Place::Keeps, Place::Redrives, Place::None] {
        for continues in [false, true] {
            let (simulation, shop, context) = stage(2);
            let shop = match place {
                Place::Keeps => shop.with_able(able().rejects()),
                Place::Redrives => shop.with_able(able().redrives()),
                _ => shop,
            };
            shop.book().keeps_rejects = place == Place::Keeps;
            shop.book().redrives = place == Place::Redrives;
            let (link, stop) = (shop.link(), CancellationSource::new());
            let drain = fan_in(&context, [link.source()], async |number, step| {
                if number == 0 && shop.book().stuck.is_empty() {
                    let receipts = Shop::receipts(&step);
                    shop.book().stuck.extend(receipts.iter().copied());
                    *shop.book().live.entry(receipts[0]).or_default() += 1;
                    step.register_compensation(|| async { Err::<(), _>("cannot be undone") });
                    return Err("declined");
                }
                shop.work(&step);
                if number == 1 {
                    stop.cancel();
                }
                Ok(())
            });
            let drain = drain.retry(RetryPolicy::fixed(3, SECOND)).shutdown(stop.token());
            let drain = if continues { drain.on_failure(OnFailure::Continue) } else { drain };
            let ended = match place {
                Place::Letters => run(
                    &simulation,
                    drain.dead_letters(async |letter: Letter<u32>| {
                        assert!(letter.rollback().is_err());
                        shop.letter(&letter);
                    }),
                ),
                _ => run(&simulation, drain),
            };
            let report = match &ended {
                Ok(report) => report.clone(),
                Err(failure) => failure.report().clone(),
            };
            assert_sum(&report);
            let told = format!("{place:?} {continues} {report:?}");
            match place {
                Place::Letters | Place::Keeps => assert_eq!(report.rejected(), 1, "{told}"),
                Place::Redrives => assert!(report.released() >= 1, "{told}"),
                Place::None => assert_eq!(report.abandoned(), 1, "{told}"),
            }
            assert_eq!(ended.is_ok(), place != Place::None, "{told}");
            assert!(context.scope().has_actions(), "the action stays staged: {told}");
            assert!(shop.book().faults.is_empty(), "{:?}", shop.book().faults);
        }
    }
}

/// Rule 7.4
#[test]
fn a_policy_that_undoes_nothing_cannot_settle() {
    let (simulation, shop, context) = stage(1);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, _| Ok::<_, BoxError>(()));
    let failure =
        run(&simulation, drain.message_compensation(CompensationPolicy::none())).unwrap_err();
    assert_eq!(failure.error().code(), ErrorCode::Validation);
    assert!(shop.queue.calls().is_empty());
}

/// Rule 7.4: cancelled, or past its deadline, what heeds its token is undone and released within the grace.
#[test]
fn what_is_interrupted_is_undone_and_released_within_the_grace() {
    for cancels in [false, true] {
        for letters in [false, true] {
            let (simulation, shop, context) = stage(2);
            let (link, stop) = (shop.link(), CancellationSource::new());
            let drain = fan_in(&context, [link.source()], async |_, step| {
                shop.work(&step);
                if cancels {
                    stop.cancel();
                }
                timers::delay(&step, MINUTE).await?;
                Ok::<_, BoxError>(())
            });
            let drain = drain
                .timeout(5 * SECOND)
                .cancellation(stop.token())
                .retry(RetryPolicy::fixed(3, SECOND));
            let ended = if letters {
                run(
                    &simulation,
                    drain.dead_letters(async |_: Letter<u32>| unexpected("it is no letter")),
                )
            } else {
                run(&simulation, drain)
            };
            let failure = ended.unwrap_err();
            assert_sum(failure.report());
            assert_eq!(failure.report().released(), failure.report().fetched());
            assert_eq!(shop.queue.out(), Vec::<u64>::new());
            assert!(!context.scope().has_actions());
            shop.check_all(2);
        }
    }
}

/// Rule 7.6: what the budgets did not suffice for is abandoned, and staged.
#[test]
fn a_handler_that_does_not_heed_its_token_is_abandoned_and_staged() {
    let (simulation, shop, context) = stage(1);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        shop.work(&step);
        std::future::pending::<()>().await;
        Ok::<_, BoxError>(())
    });
    let failure = run(&simulation, drain.timeout(SECOND).grace(SECOND)).unwrap_err();
    assert_sum(failure.report());
    assert_eq!(failure.report().abandoned(), 1);
    assert_eq!((shop.live(), shop.verdicts().len()), (vec![0], 0));
    // Whoever undoes it releases it, as the last thing.
    let rollback = context.roll_back(&CompensationPolicy::sequential_reverse());
    run(&simulation, rollback).unwrap();
    assert_eq!(shop.verdicts(), [[(0, "release")]]);
    assert!(shop.queue.out().is_empty());
    shop.check_all(1);
}

/// Rule 7.4: what cannot be decoded.
#[test]
fn what_cannot_be_decoded_is_not_rejected_into_nothing() {
    for place in 0..4 {
        let (simulation, shop, context) = stage(3);
        let shop = match place {
            1 => shop.with_able(able().rejects()),
            2 => Shop { queue: shop.queue.clone().redrives_after(3), ..shop }
                .with_able(able().redrives()),
            _ => shop,
        };
        shop.book().keeps_rejects = place == 1;
        let link = shop.link();
        let source = link.source().decoded(|it| if it == 1 { Err("no order") } else { Ok(it) });
        let drain =
            fan_in(&context, [source], async |_, step| Ok::<_, BoxError>(drop(shop.work(&step))));
        let drain = drain.retry(RetryPolicy::fixed(2, SECOND));
        let ended = if place == 0 {
            run(
                &simulation,
                drain.dead_letters(async |letter: Letter<u32>| {
                    assert_eq!((letter.raw::<u32>(), letter.message()), (Some(&1), None));
                    shop.letter(&letter);
                }),
            )
        } else {
            run(&simulation, drain)
        };
        let (ok, report) = match ended {
            Ok(report) => (true, report),
            Err(failure) => (false, failure.report().clone()),
        };
        assert_sum(&report);
        match place {
            0 | 1 => {
                assert_eq!((ok, report.accepted(), report.rejected()), (true, 2, 1), "{place}")
            }
            2 => assert_eq!((ok, report.accepted(), shop.queue.redriven()), (true, 2, vec![1])),
            _ => {
                assert_eq!((ok, report.rejected(), report.abandoned()), (false, 0, 1), "{report:?}")
            }
        }
        shop.check_all(3);
    }
}

/// Rules 3.7 and 7.4: a key that cannot be made fails its message, as its handler would: it is released.
#[test]
fn a_message_whose_key_cannot_be_made_is_released() {
    let (simulation, shop, context) = stage(1);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    let drain = drain.ordered_by(|_: &u32| -> u32 { panic!("no key") });
    let failure = run(&simulation, drain).unwrap_err();
    assert_sum(failure.report());
    assert_eq!(failure.report().released(), 1, "{:?}", failure.report());
    shop.check_all(1);
}

/// Rules 3.11 and 7.1: later is no failure, and the message stays with the drain.
#[test]
fn a_message_that_is_to_come_later_keeps_its_lease() {
    let (simulation, shop, context) = stage(1);
    let link = shop.link();
    let mut calls = 0;
    let drain = fan_in(&context, [link.source()], |_, step: StepContext| {
        calls += 1;
        shop.work(&step);
        let first = calls == 1;
        async move { Ok::<_, BoxError>(if first { Answer::Later(5 * MINUTE) } else { Answer::Done }) }
    });
    let report = run(&simulation, drain.retry(RetryPolicy::none())).unwrap();
    assert_sum(&report);
    assert_eq!((report.fetched(), report.accepted()), (1, 1));
    shop.check_all(1);
}

/// Rule 7.24
#[test]
fn after_failures_in_a_row_taking_slows_down() {
    let (simulation, shop, context) = stage(6);
    let link = shop.link().slow_down_after(2, RetryPolicy::fixed(9, MINUTE));
    let (mut at, clock) = (Vec::new(), simulation.world().clock().clone());
    let drain = fan_in(&context, [link.source()], |number, step: StepContext| {
        use watershed::Clock;
        at.push((number, clock.now().since(watershed::Tick::ZERO).as_secs()));
        shop.work(&step);
        async move { if number < 3 { Err("the bank is broken") } else { Ok(()) } }
    });
    let report =
        run(&simulation, drain.dead_letters(async |letter: Letter<u32>| shop.letter(&letter)))
            .unwrap();
    assert_sum(&report);
    assert_eq!(at, [(0, 0), (1, 0), (2, 60), (3, 120), (4, 120), (5, 120)]);
}

/// Rule 7.24: undecodable messages do not count, either way.
#[test]
fn what_cannot_be_decoded_neither_slows_down_nor_makes_up_for_failures() {
    let (simulation, shop, context) = stage(8);
    let link = shop.link().slow_down_after(2, RetryPolicy::fixed(9, MINUTE));
    let (mut at, clock) = (Vec::new(), simulation.world().clock().clone());
    // 1, 3, 5, 7 cannot be decoded; 0 and 2 fail.
    let source = link.source().decoded(|it| if it % 2 == 1 { Err("no order") } else { Ok(it) });
    let drain = fan_in(&context, [source], |number, step: StepContext| {
        use watershed::Clock;
        at.push((number, clock.now().since(watershed::Tick::ZERO).as_secs()));
        shop.work(&step);
        async move { if number < 4 { Err("the bank is broken") } else { Ok(()) } }
    });
    let report =
        run(&simulation, drain.dead_letters(async |letter: Letter<u32>| shop.letter(&letter)))
            .unwrap();
    assert_sum(&report);
    assert_eq!(at, [(0, 0), (2, 0), (4, 60), (6, 60)]);
}

/// Rule 7.4: also where a rollback joins another one, and what has failed before is run again.
#[test]
fn a_message_is_not_given_back_by_a_rollback_that_joins_while_its_undo_fails() {
    let (simulation, shop, context) = stage(1);
    let link = shop.link();
    let gate = CancellationSource::new();
    let token = gate.token();
    context.register_compensation(move || {
        let token = token.clone();
        async move { token.cancelled().await }
    });
    let mut drain = Box::pin(
        fan_in(&context, [link.source()], async |_, step: StepContext| {
            step.register_compensation(|| async { Err("it cannot be undone") });
            std::future::pending::<Result<(), BoxError>>().await
        })
        .into_future(),
    );
    let mut polls = 0;
    while context.scope().len() < 2 && polls < 100 {
        assert!(drain.as_mut().now_or_never().is_none());
        polls += 1;
    }
    drop(drain);
    assert_eq!(context.scope().len(), 3, "the release is below the undo");
    let policy = CompensationPolicy::sequential_reverse();
    let mut first = context.roll_back(&policy).into_future().boxed_local();
    assert!((&mut first).now_or_never().is_none(), "the first action waits");
    let mut second = context.roll_back(&policy).into_future().boxed_local();
    assert!((&mut second).now_or_never().is_none());
    gate.cancel();
    let (first, second) = run(&simulation, async { futures::join!(first, second) });
    for ended in [first, second] {
        let failure = ended.unwrap_err();
        assert_eq!(failure.report().failures().len(), 2, "the undo, and the release behind it");
    }
    assert!(shop.verdicts().is_empty(), "it is not given back");
    assert_eq!(context.scope().len(), 2);
}
