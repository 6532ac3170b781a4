//! The outcomes of a settlement, and what each does to what a handler has staged.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use watershed::testing::{ScriptedQueue, SettleAnswer as Says, Simulation};
use watershed::transport::{Able, Settled, Verdict};
use watershed::{
    BoxError, CompensationPolicy, Error, ErrorCode, Letter, OnFailure, RetryPolicy, Source,
    StepContext, fan_in, timers,
};

use crate::shop::{MINUTE, SECOND, Shop, able, assert_sum, run, stage};

/// Rules 7.2, 7.3 and 7.6: what each answer to an accept comes to.
#[test]
fn only_a_refused_accept_undoes_a_success() {
    for answer in [
        Says::Usual,
        Says::Sent,
        Says::Lost,
        Says::UnknownApplied,
        Says::Unknown,
        Says::Missing,
        Says::Never,
    ] {
        let (simulation, shop, context) = stage(1);
        shop.queue.settles([answer]);
        let link = shop.link();
        let stop = watershed::CancellationSource::new();
        let drain = fan_in(&context, [link.source()], async |_, step| {
            shop.work(&step);
            stop.cancel();
            Ok::<_, BoxError>(())
        });
        let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
        assert_sum(&report);
        let wanted = match answer {
            Says::Usual | Says::Sent => (1, 0, 0),
            Says::Lost => (0, 1, 0),
            _ => (0, 0, 1),
        };
        assert_eq!((report.accepted(), report.lost(), report.unknown()), wanted, "{answer:?}");
        assert_eq!((report.handled(), shop.live()), (1, vec![0]), "{answer:?}");
        assert!(!context.scope().has_actions(), "{answer:?}");
        shop.check_all(1);
    }
}

/// Rule 7.3
#[test]
fn a_refused_accept_is_sent_again_with_a_back_off() {
    let (simulation, shop, context) = stage(1);
    shop.queue.settles([Says::Refused; 3]);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    let report = run(&simulation, drain).unwrap();
    assert_eq!((report.accepted(), shop.live()), (1, vec![0]));
    let times = shop.times();
    assert_eq!(times.len(), 4);
    let gaps: Vec<_> = times.windows(2).map(|it| it[1].since(it[0])).collect();
    assert!(
        gaps[0] > std::time::Duration::ZERO && gaps.windows(2).all(|it| it[1] > it[0]),
        "{gaps:?}"
    );
    shop.check_all(1);
}

/// Rule 7.3
#[test]
fn an_accept_that_is_refused_to_the_end_is_undone_and_released() {
    let (simulation, shop, context) = stage(1);
    shop.queue.settles([Says::Refused; 6]);
    let link = shop.link().settle_within(SECOND);
    let mut calls = 0;
    let drain = fan_in(&context, [link.source()], |_, step: watershed::StepContext| {
        calls += 1;
        shop.work(&step);
        async { Ok::<_, BoxError>(()) }
    });
    let report = run(&simulation, drain).unwrap();
    assert_sum(&report);
    assert_eq!(calls, 2);
    assert_eq!((report.fetched(), report.accepted(), report.released()), (2, 1, 1));
    assert_eq!(shop.book().undone.len(), 1);
    shop.check_all(1);
}

/// Rules 7.3 and 7.4: where it cannot be undone it is put aside, if the transport keeps such, and the action
/// stays staged.
#[test]
fn a_message_whose_accept_is_refused_and_that_cannot_be_undone_is_put_aside() {
    for keeps in [false, true] {
        let (simulation, shop, context) = stage(1);
        let shop = if keeps { shop.with_able(able().rejects()) } else { shop };
        shop.queue.settles([Says::Refused; 5]);
        let link = shop.link().settle_within(SECOND);
        let drain = fan_in(&context, [link.source()], async |_, step: watershed::StepContext| {
            step.register_compensation(|| async { Err("it cannot be undone") });
            Ok::<_, BoxError>(())
        });
        let failure = run(&simulation, drain).unwrap_err();
        assert_sum(failure.report());
        let report = failure.report();
        let expected = if keeps { (1, 0) } else { (0, 1) };
        assert_eq!((report.rejected(), report.abandoned()), expected, "{report:?}");
        assert_eq!(shop.queue.rejected().len(), usize::from(keeps));
        assert_eq!(context.scope().len(), 1, "the action stays staged");
    }
}

/// Rule 7.3: where a later one has begun, its effects stay.
#[test]
fn a_refused_accept_behind_which_another_has_begun_is_unknown() {
    let (simulation, shop, context) = stage(2);
    let shop = shop.with_able(able().batches_of(1));
    shop.queue.settles([Says::Refused; 5]);
    let link = shop.link().settle_within(SECOND);
    let mut first = true;
    let stop = watershed::CancellationSource::new();
    let drain = fan_in(&context, [link.source()], async |number, step| {
        shop.work(&step);
        if number == 1 {
            timers::delay(&step, 10 * SECOND).await?;
            stop.cancel();
        }
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
    assert_sum(&report);
    assert_eq!((report.accepted(), report.unknown(), report.released()), (1, 1, 0));
    assert_eq!(shop.live(), [0, 1]);
    shop.check_all(2);
    let _ = &mut first;
}

/// Rule 7.3: by key, only one of the same key counts.
#[test]
fn a_refused_accept_behind_which_another_key_has_begun_is_undone() {
    for across in [false, true] {
        let (simulation, shop, context) = stage(2);
        let shop = shop.with_able(able().batches_of(1));
        shop.queue.settles([Says::Refused; 5]);
        let link = shop.link().settle_within(SECOND);
        let stop = watershed::CancellationSource::new();
        let drain = fan_in(&context, [link.source()], async |number, step| {
            shop.work(&step);
            if number == 1 {
                timers::delay(&step, 10 * SECOND).await?;
                stop.cancel();
            }
            Ok::<_, BoxError>(())
        });
        let drain = drain.shutdown(stop.token()).concurrency(2);
        let report = if across {
            run(&simulation, drain.ordered_across_sources_by(|it: &u32| *it))
        } else {
            run(&simulation, drain.ordered_by(|it: &u32| *it))
        };
        let report = report.unwrap();
        assert_sum(&report);
        assert!(report.released() >= 1, "{report:?}");
        assert_eq!((report.unknown(), shop.book().undone.len()), (0, 1));
        shop.check_all(2);
    }
}

/// Rules 7.2 and 7.6: what each answer to a release comes to.
#[test]
fn a_release_that_is_refused_to_the_end_is_abandoned() {
    for (answer, times, wanted) in [
        (Says::Usual, 1, [1, 0, 0, 0]),
        (Says::Sent, 1, [1, 0, 0, 0]),
        (Says::Refused, 2, [1, 0, 0, 0]),
        (Says::Refused, 9, [0, 1, 0, 0]),
        (Says::Lost, 1, [0, 0, 1, 0]),
        (Says::Unknown, 1, [0, 0, 0, 1]),
        (Says::UnknownApplied, 1, [0, 0, 0, 1]),
        (Says::Missing, 1, [0, 0, 0, 1]),
        (Says::Never, 1, [0, 0, 0, 1]),
    ] {
        for reject in [false, true] {
            let (simulation, shop, context) = stage(1);
            shop.queue.settles(vec![answer; times]);
            let link = shop.link().settle_within(2 * SECOND);
            let drain = fan_in(&context, [link.source()], async |_, step| {
                shop.work(&step);
                Err::<(), _>("declined")
            });
            let drain = drain.grace(MINUTE);
            let (report, settled) = if reject {
                let stop = watershed::CancellationSource::new();
                let drain = drain.dead_letters(async |letter: watershed::Letter<u32>| {
                    shop.letter(&letter);
                    stop.cancel();
                });
                let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
                let rejected = report.rejected();
                (report, rejected)
            } else {
                let report = run(&simulation, drain).unwrap_err().report().clone();
                let released = report.released();
                (report, released)
            };
            assert_sum(&report);
            let is = [settled, report.abandoned(), report.lost(), report.unknown()];
            assert_eq!(is, wanted, "{answer:?}, {times} times, reject: {reject}");
            assert!(shop.live().is_empty());
            shop.check_all(1);
        }
    }
}

/// Rule 7.3: until the accept has its outcome, what the handler staged is staged.
#[test]
fn compensations_are_staged_until_the_accept_is_answered() {
    let (simulation, shop, context) = stage(1);
    let shop = shop.slow(SECOND);
    let (link, progress) = (shop.link(), watershed::Progress::new());
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    let clock = simulation.world().clock().clone();
    let watched = progress.clone();
    let seen = simulation.spawn("watch", async move {
        use watershed::Clock;
        clock.sleep_until(clock.now() + SECOND + SECOND / 2).await;
        (watched.report().handled(), watched.report().staged())
    });
    let report = run(&simulation, drain.progress(&progress)).unwrap();
    assert_eq!(report.accepted(), 1);
    assert_eq!(simulation.run(seen), Ok((1, 1)));
}

/// Rules 7.7 and 7.20: the result counts per message.
#[test]
fn a_batch_has_an_outcome_for_each_of_its_messages() {
    let (simulation, shop, context) = stage(4);
    let shop = shop.slow(SECOND);
    shop.queue.settles([Says::Usual, Says::Unknown, Says::Lost, Says::Sent]);
    let (link, stop) = (shop.link(), watershed::CancellationSource::new());
    let mut calls = 0;
    let drain = fan_in(&context, [link.source()], |_, step: watershed::StepContext| {
        calls += 1;
        if calls == 4 {
            stop.cancel();
        }
        shop.work(&step);
        async { Ok::<_, BoxError>(()) }
    });
    let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
    assert_sum(&report);
    assert_eq!((report.accepted(), report.unknown(), report.lost()), (2, 1, 1));
    shop.check_all(4);
}

/// Rule 7.1: the handler settles by itself.
#[test]
fn a_handler_that_settles_by_itself_has_the_outcome_that_it_says() {
    let error = || Error::new(ErrorCode::Handler, "of the handler");
    let cases = [
        (Some(Settled::Confirmed), [1, 0, 0]),
        (Some(Settled::Sent), [1, 0, 0]),
        (Some(Settled::Lost(error())), [0, 1, 0]),
        (Some(Settled::Unknown(error())), [0, 0, 1]),
        (None, [0, 0, 1]),
    ];
    for (outcome, wanted) in cases {
        for fails in 0..4 {
            let (simulation, shop, context) = stage(1);
            let link = shop.link();
            let stop = watershed::CancellationSource::new();
            let drain = fan_in(&context, [link.source()], async |_, step| {
                shop.work(&step);
                stop.cancel();
                let settling = step.settling()?;
                if let Some(outcome) = outcome.clone() {
                    settling.ended(outcome);
                }
                match fails {
                    1 => return Err("after all".into()),
                    2 => panic!("after all"),
                    3 => timers::delay(&step, MINUTE).await?,
                    _ => {}
                }
                Ok::<_, BoxError>(())
            });
            let drain = drain.on_failure(OnFailure::Continue).message_timeout(20 * SECOND);
            let drain = drain.retry(RetryPolicy::fixed(3, SECOND));
            let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
            assert_sum(&report);
            let is = [report.accepted(), report.lost(), report.unknown()];
            assert_eq!(is, wanted, "{outcome:?}, {fails}");
            assert_eq!(report.attempts(), 1);
            assert!(shop.verdicts().is_empty(), "the drain gives no verdict");
            assert_eq!(shop.live(), [0], "and undoes nothing");
            assert!(!context.scope().has_actions());
        }
    }
}

/// Rule 7.1: refused, it is as if it had not been tried.
#[test]
fn a_settlement_by_hand_that_is_refused_was_not_tried() {
    for fails in [false, true] {
        let (simulation, shop, context) = stage(1);
        let link = shop.link();
        let drain = fan_in(&context, [link.source()], async |_, step| {
            shop.work(&step);
            step.settling()?.ended(Settled::Refused(Error::new(ErrorCode::Handler, "no")));
            if fails && step.attempt() == 1 { Err("once".into()) } else { Ok::<_, BoxError>(()) }
        });
        let report = run(&simulation, drain.retry(RetryPolicy::fixed(2, SECOND))).unwrap();
        assert_eq!((report.accepted(), report.attempts()), (1, 1 + u64::from(fails)));
        shop.check_all(1);
    }
}

/// Rule 7.1: from `settling` on nothing is undone, whatever becomes of the lease.
#[test]
fn a_lease_that_is_lost_behind_settling_undoes_nothing() {
    let (simulation, shop, context) = stage(1);
    shop.queue.renews([watershed::testing::RenewalAnswer::Lost]);
    let link = shop.link();
    let stop = watershed::CancellationSource::new();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        shop.work(&step);
        stop.cancel();
        let settling = step.settling()?;
        assert!(step.receipt::<watershed::testing::QueueReceipt>(0).is_some());
        timers::delay(&step, MINUTE).await?;
        settling.ended(Settled::Confirmed);
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
    assert_sum(&report);
    assert_eq!((report.handled(), report.accepted(), report.lost()), (1, 1, 0));
    assert!(shop.book().undone.is_empty());
}

/// Rule 7.1
#[test]
fn a_message_of_a_plain_source_is_not_settled() {
    let simulation = Simulation::new(7);
    let context = simulation.world().context("plain");
    let drain = fan_in(&context, [futures::stream::iter([1])], async |_, step| {
        assert!(step.deliveries().is_empty() && step.undo_key().is_none());
        assert_eq!(step.settling().unwrap_err().code(), ErrorCode::Validation);
        Ok::<_, BoxError>(())
    });
    assert_eq!(run(&simulation, drain).unwrap().handled(), 1);
}

/// Rule 6.3: what is fetched and not settled is seen while the drain runs.
#[test]
fn a_running_drain_shows_what_is_unsettled() {
    let (simulation, shop, context) = stage(3);
    let (link, progress) = (shop.link(), watershed::Progress::new());
    let seen = std::cell::RefCell::new(Vec::new());
    let drain = fan_in(&context, [link.source()], async |_, step| {
        shop.work(&step);
        timers::delay(&step, SECOND).await?;
        let now = progress.report();
        seen.borrow_mut().push((now.fetched(), now.accepted()));
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain.progress(&progress)).unwrap();
    assert_sum(&report);
    assert_eq!(seen.take(), [(3, 0), (3, 1), (3, 2)]);
    assert_eq!((progress.report().fetched(), progress.report().accepted()), (3, 3));
}

/// Rules 4.15 and 7.3: undos of the user's own live as long.
#[test]
fn local_undos_are_kept_until_the_accept_is_answered() {
    for refused in [0, 9] {
        let (simulation, shop, context) = stage(1);
        shop.queue.settles(vec![Says::Refused; refused]);
        let undos = watershed::LocalUndos::new();
        let link = shop.link().settle_within(SECOND);
        let undone = std::rc::Rc::new(std::cell::Cell::new(0));
        let stop = watershed::CancellationSource::new();
        let drain = fan_in(&context, [link.source()], async |_, step| {
            let undone = std::rc::Rc::clone(&undone);
            undos.register(&step, move || {
                undone.set(undone.get() + 1);
                async {}
            });
            stop.cancel();
            Ok::<_, BoxError>(())
        });
        let report = run(&simulation, drain.local_undos(&undos).shutdown(stop.token())).unwrap();
        assert_sum(&report);
        assert_eq!(undone.get(), u32::from(refused > 0));
        assert!(!context.scope().has_actions());
        assert_eq!(report.accepted(), u64::from(refused == 0));
    }
}

/// Rule 7.3: a step goes on with another message when its own is settled, unless somebody has it: what is
/// staged there is not undone with a later message, nor is anything of one that is settled.
#[test]
fn a_step_that_is_kept_beyond_the_settlement_is_that_of_no_later_message() {
    let simulation = Simulation::new(1);
    let queue = ScriptedQueue::new(simulation.world()).with(1..=6);
    let context = simulation.world().context("orders");
    let (undone, kept) = (Arc::new(Mutex::new(Vec::new())), Mutex::new(None));
    let stage = |step: &StepContext, number: i32| {
        step.register_compensation_with((undone.clone(), number), async |(undone, number)| {
            undone.lock().unwrap().push(number);
        });
    };
    let link = watershed::transport::Link::new(queue);
    let drain = fan_in(&context, [link.source()], async |number: i32, step: StepContext| {
        stage(&step, number);
        timers::delay(&step, Duration::from_secs(1)).await?;
        match number {
            1 => *kept.lock().unwrap() = Some(step),
            6 => {
                let first: Option<StepContext> = kept.lock().unwrap().take();
                let first = first.ok_or("the first message was handled before")?;
                assert_eq!((first.message_number(), step.message_number()), (Some(1), Some(6)));
                stage(&first, 100);
                return Err("no stock".into());
            }
            _ => {}
        }
        Ok::<_, BoxError>(())
    });
    let report = simulation.run(drain.dead_letters(async |_: Letter<i32>| {})).unwrap().unwrap();
    assert_eq!((report.accepted(), report.rejected()), (5, 1));
    assert_eq!((&*undone.lock().unwrap(), report.late_registrations()), (&vec![6], 1));
}
