//! Verdicts on their way: pipelined, in batches, and one call of a receipt at a time; and who may use
//! a transport.

use std::sync::Mutex;
use std::time::Duration;

use watershed::channels;
use watershed::testing::{
    FetchAnswer, QueueCall, RenewalAnswer as Renews, ScriptedQueue, SettleAnswer as Says,
    Simulation, for_every_poll,
};
use watershed::transport::{Able, Link, mixed};
use watershed::{
    BoxError, CancellationSource, Clock, Commit, CompensationPolicy, ErrorCode, Letter, OnFailure,
    Progress, RetryPolicy, Source, StepContext, Tick, fan_in, timers,
};

use crate::shop::{MINUTE, SECOND, Shop, able, assert_sum, fine, run, stage};

/// Rule 7.7: the next message does not wait for the accept of the last, and the next batch gathers
/// while a call is in flight.
#[test]
fn settling_is_pipelined_and_gathers_while_a_call_is_out() {
    let (simulation, shop, context) = stage(12);
    let shop = shop.with_able(able().prefetches(20).batches_of(5)).slow(SECOND);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    let report = run(&simulation, drain).unwrap();
    assert_eq!(report.accepted(), 12);
    let sizes: Vec<_> = shop.verdicts().iter().map(Vec::len).collect();
    assert!(sizes.iter().all(|size| *size <= 5) && sizes.len() <= 5, "{sizes:?}");
    assert!(shop.queue.most_settling() > 5, "full batches are sent at once: {sizes:?}");
    shop.check_all(12);
}

/// Rule 7.7: at most so many verdicts are with a transport at a time.
#[test]
fn no_more_verdicts_than_allowed_are_with_a_transport() {
    for most in [1, 2, 3, 7] {
        for latency in [Duration::ZERO, SECOND] {
            let (simulation, shop, context) = stage(20);
            let shop = shop.with_able(able().prefetches(20)).slow(latency);
            let link = shop.link().max_unsettled(most);
            let drain = fan_in(&context, [link.source()], async |number: u32, step| {
                shop.work(&step);
                timers::delay(&step, Duration::from_millis(100)).await?;
                if number % 7 == 3 { Err("declined".into()) } else { Ok::<_, BoxError>(()) }
            });
            let drain = drain.concurrency(8).unordered();
            let report = run(
                &simulation,
                drain.dead_letters(async |letter: Letter<u32>| shop.letter(&letter)),
            );
            let report = report.unwrap();
            assert_sum(&report);
            assert_eq!(report.accepted() + report.rejected(), 20);
            assert!(shop.queue.most_settling() <= most, "{} of {most}", shop.queue.most_settling());
            shop.check_all(20);
        }
    }
}

/// Rule 7.7: no answer within its time is unknown, and the drain goes on.
#[test]
fn a_call_without_an_answer_is_unknown_in_time() {
    let (simulation, shop, context) = stage(2);
    let shop = shop.with_able(able().batches_of(1));
    shop.queue.settles([Says::Never]);
    let (link, stop) = (shop.link().settle_within(5 * SECOND), CancellationSource::new());
    let drain = fan_in(&context, [link.source()], async |number: u32, step| {
        shop.work(&step);
        if number == 1 {
            stop.cancel();
        }
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
    assert_sum(&report);
    assert_eq!((report.accepted(), report.unknown()), (1, 1));
    assert_eq!(simulation.world().clock().now().since(Tick::ZERO), 5 * SECOND);
    assert_eq!(shop.live(), [0, 1]);
}

/// Rule 7.8: one call of a receipt is in flight at a time.
#[test]
fn a_receipt_has_one_call_in_flight() {
    // What is out at a time, by receipt: the calls of the queue are seen from outside by their latency.
    for seconds in [1, 4, 9] {
        let (simulation, shop, context) = stage(6);
        let latency = SECOND * seconds;
        let shop = shop.slow(latency).with_able(able().batches_of(3).prefetches(6));
        let link = shop.link();
        let drain = fan_in(&context, [link.source()], async |number, step| {
            shop.work(&step);
            timers::delay(&step, SECOND * (5 + 2 * number)).await?;
            Ok::<_, BoxError>(())
        });
        let report = run(&simulation, drain.concurrency(6).unordered()).unwrap();
        assert_sum(&report);
        assert_eq!(report.accepted(), 6);
        let mut out = std::collections::BTreeMap::new();
        for call in shop.queue.calls() {
            let (at, receipts) = match call {
                QueueCall::Renew { at, batch } => (at, batch),
                QueueCall::Settle { at, batch } => {
                    (at, batch.into_iter().map(|(it, _)| it).collect())
                }
                _ => continue,
            };
            for receipt in receipts {
                let until = out.insert(receipt, at + latency);
                assert!(
                    until.is_none_or(|until| at >= until),
                    "{receipt:?} at {at:?}, out until {until:?}"
                );
            }
        }
    }
}

/// Rule 7.8: what a dropped drain has not handed over is staged like a message in flight.
#[test]
fn a_drain_that_is_dropped_at_any_poll_keeps_its_account() {
    for order in 0..3 {
        for latency in [Duration::ZERO, SECOND] {
            for_every_poll(|point| {
                let (simulation, shop, context) = stage(4);
                let shop = shop.slow(latency).with_able(able().batches_of(2));
                shop.queue.settles([Says::Usual, Says::Refused, Says::Usual, Says::Unknown]);
                let link = shop.link();
                let world = simulation.world();
                let drain = fan_in(&context, [link.source()], async |number, step: StepContext| {
                    shop.work(&step);
                    let world_too = world.clone();
                    step.register_compensation(move || world_too.clone().pause());
                    world.pause().await;
                    if number == 2 && step.attempt() == 1 { Err("once") } else { Ok(()) }
                });
                let drain = drain.retry(RetryPolicy::fixed(2, SECOND));
                let ended = match order {
                    0 => run(&simulation, point.cut(drain)),
                    1 => run(&simulation, point.cut(drain.concurrency(3).unordered())),
                    _ => run(
                        &simulation,
                        point.cut(drain.concurrency(3).ordered_by(|it: &u32| it % 2)),
                    ),
                };
                if let Some(Ok(report)) = &ended {
                    assert_sum(report);
                }
                let calls = shop.queue.calls().len();
                if ended.is_none() {
                    simulation.world().clock().advance(MINUTE);
                    assert_eq!(shop.queue.calls().len(), calls, "a dropped drain sends nothing");
                    simulation.world().clock().set(Tick::from_nanos(
                        simulation.world().clock().now().as_nanos() - 60_000_000_000,
                    ));
                }
                // A release that is refused stays staged.
                let _ =
                    run(&simulation, context.roll_back(&CompensationPolicy::sequential_reverse()));
                run(&simulation, context.roll_back(&CompensationPolicy::sequential_reverse()))
                    .unwrap();
                assert!(!context.scope().has_actions());
                shop.check_all(4);
                // What was in flight, and what was undone, can be fetched at once by the next drain.
                let drain = fan_in(&context, [link.source()], async |_, step| {
                    Ok::<_, BoxError>(drop(shop.work(&step)))
                });
                let report = run(&simulation, drain).unwrap();
                assert_sum(&report);
                assert!(shop.queue.left().is_empty());
                shop.check_all(4);
            });
        }
    }
}

/// Rules 3.5 and 7.4: cancelled at any poll, everything is settled within the grace.
#[test]
fn a_drain_that_is_cancelled_at_any_poll_settles_what_it_has() {
    for order in 0..3 {
        for_every_poll(|point| {
            let (simulation, shop, context) = stage(4);
            let shop = shop.slow(SECOND).with_able(able().batches_of(2));
            let (link, stop) = (shop.link(), CancellationSource::new());
            let world = simulation.world();
            let drain = fan_in(&context, [link.source()], async |number, step: StepContext| {
                shop.work(&step);
                timers::delay(&step, SECOND).await?;
                if number == 2 && step.attempt() == 1 {
                    Err("once".into())
                } else {
                    Ok::<_, BoxError>(())
                }
            });
            let drain =
                drain.retry(RetryPolicy::fixed(2, SECOND)).grace(MINUTE).cancellation(stop.token());
            let ended = match order {
                0 => run(&simulation, point.cancel(&stop, drain)),
                1 => run(&simulation, point.cancel(&stop, drain.concurrency(3).unordered())),
                _ => run(
                    &simulation,
                    point.cancel(&stop, drain.concurrency(3).ordered_by(|it: &u32| it % 2)),
                ),
            };
            let report = match &ended {
                Ok(report) => report.clone(),
                Err(failure) => failure.report().clone(),
            };
            assert_sum(&report);
            assert_eq!((report.abandoned(), report.unknown()), (0, 0), "{report:?}");
            assert_eq!(shop.queue.out(), Vec::<u64>::new(), "{report:?}");
            assert_eq!(
                shop.queue.closed(),
                usize::from(report.fetched() > 0 || shop.queue.closed() > 0)
            );
            assert!(!context.scope().has_actions());
            shop.check_all(4);
        });
    }
}

/// Rules 3.9 and 7.21: told to shut down at any poll, everything is settled.
#[test]
fn a_drain_that_is_shut_down_at_any_poll_settles_what_it_has() {
    for order in 0..3 {
        for_every_poll(|point| {
            let (simulation, shop, context) = stage(4);
            let shop = shop.slow(SECOND).with_able(able().batches_of(2)).endless();
            let (link, stop, cancel) =
                (shop.link(), CancellationSource::new(), CancellationSource::new());
            let drain = fan_in(&context, [link.source()], async |number, step: StepContext| {
                shop.work(&step);
                timers::delay(&step, SECOND).await?;
                if number == 3 {
                    stop.cancel();
                }
                if number == 2 && step.attempt() == 1 {
                    Err("once".into())
                } else {
                    Ok::<_, BoxError>(())
                }
            });
            let drain = drain.retry(RetryPolicy::fixed(2, SECOND)).shutdown(stop.token());
            let ended = match order {
                0 => run(&simulation, point.cancel(&stop, drain)),
                1 => run(&simulation, point.cancel(&stop, drain.concurrency(3).unordered())),
                _ => run(
                    &simulation,
                    point.cancel(&stop, drain.concurrency(3).ordered_by(|it: &u32| it % 2)),
                ),
            };
            let failed = ended.is_err();
            let report = match &ended {
                Ok(report) => report.clone(),
                Err(failure) => failure.report().clone(),
            };
            assert_sum(&report);
            assert_eq!(
                (report.abandoned(), report.unknown()),
                (0, 0),
                "{:?} {order} {} {:?}",
                ended,
                point.polls(),
                shop.queue.calls()
            );
            assert_eq!(report.fetched(), report.accepted() + report.released());
            assert_eq!(shop.queue.out(), Vec::<u64>::new(), "{failed} {report:?}");
            assert_eq!(shop.queue.closed(), 1);
            assert!(!context.scope().has_actions());
            shop.check_all(4);
            let _ = cancel;
        });
    }
}

/// Rule 7.9
#[test]
fn a_drain_that_settles_commits_each_message() {
    for commit in [Commit::Pipeline, Commit::Never] {
        for plain_too in [false, true] {
            let (simulation, shop, context) = stage(1);
            let link = shop.link();
            let mut sources = vec![link.source().erased()];
            if plain_too {
                sources = mixed((futures::stream::iter([7]), link.source())).into();
            }
            let drain = fan_in(&context, sources, async |_, _| -> Result<(), BoxError> {
                panic!("called")
            });
            let failure = run(&simulation, drain.commit(commit)).unwrap_err();
            assert_eq!(failure.error().code(), ErrorCode::Validation);
            assert!(shop.queue.calls().is_empty());
        }
    }
    for commit in [None, Some(Commit::Message)] {
        let (simulation, shop, context) = stage(2);
        let link = shop.link();
        let drain = fan_in(&context, [link.source()], async |_, step| {
            shop.work(&step);
            if step.message_number() == Some(2) { Err("declined") } else { Ok(()) }
        });
        let drain = match commit {
            Some(commit) => drain.commit(commit),
            None => drain,
        };
        let failure = run(&simulation, drain).unwrap_err();
        assert_eq!((failure.report().accepted(), failure.report().released()), (1, 1));
        assert_eq!(shop.live(), [0], "committed by itself");
        assert!(!context.scope().has_actions());
    }
}

/// Rule 7.9: a nested drain likewise: what it settles is final, whatever becomes of the outer message.
#[test]
fn a_nested_drain_that_settles_commits_each_message() {
    let (simulation, shop, context) = stage(2);
    let link = shop.link();
    let outer = fan_in(&context, [futures::stream::iter([1])], async |_, step| {
        let inner = fan_in(&step, [link.source()], async |_, step| {
            Ok::<_, BoxError>(drop(shop.work(&step)))
        });
        let report = inner.await?;
        assert_eq!(report.accepted(), 2);
        Err::<(), BoxError>("the outer one fails".into())
    });
    assert!(run(&simulation, outer).is_err());
    run(&simulation, context.roll_back(&CompensationPolicy::sequential_reverse())).unwrap();
    assert_eq!(shop.live(), [0, 1]);
    shop.check_all(2);
}

/// Rules 7.9 and 7.21: inner and outer both settle.
#[test]
fn drains_that_settle_can_be_nested() {
    let (simulation, outer, context) = stage(2);
    let inner = Shop::with(simulation.world(), 4);
    let (outer_link, inner_link) = (outer.link(), inner.link());
    let drain = fan_in(&context, [outer_link.source()], async |number, step| {
        outer.work(&step);
        let stop = CancellationSource::new();
        let mut left = 2;
        let nested = fan_in(&step, [inner_link.source()], |_, step: StepContext| {
            left -= 1;
            if left == 0 {
                stop.cancel();
            }
            inner.work(&step);
            async { Ok::<_, BoxError>(()) }
        });
        nested.shutdown(stop.token()).await?;
        if number == 1 { Err("declined".into()) } else { Ok::<_, BoxError>(()) }
    });
    let failure = run(&simulation, drain).unwrap_err();
    assert_sum(failure.report());
    assert_eq!((failure.report().accepted(), failure.report().released()), (1, 1));
    assert_eq!(inner.live(), [0, 1, 2, 3]);
    outer.check_all(2);
    inner.check_all(4);
}

/// Rule 7.9: one that comes later to a drain with another commit is a fault.
#[test]
fn a_settling_source_that_comes_to_another_commit_is_refused() {
    let (simulation, shop, context) = stage(1);
    let link = shop.link();
    let (live, incoming) = channels::live();
    let plain = futures::stream::pending::<u32>();
    let _first = live.add(mixed((plain, link.source())).into_iter().next().unwrap());
    let world = simulation.world().clone();
    let (later, other) = (link.source().erased(), live.clone());
    let _adds = simulation.spawn("adds", async move {
        world.clock().sleep_until(world.clock().now() + SECOND).await;
        drop(other.add(later));
    });
    let drain = fan_in(&context, Vec::new(), async |_, _| Ok::<_, BoxError>(()));
    let failure = run(&simulation, drain.incoming(incoming)).unwrap_err();
    assert_eq!(failure.error().code(), ErrorCode::Validation);
    assert!(shop.queue.calls().is_empty());
}

/// Rule 7.9: `add` gives it back with the error, the first one by its handle, and the drain goes on.
#[test]
fn a_settling_source_that_its_owner_holds_is_given_back() {
    for explicit in [false, true] {
        let (simulation, shop, context) = stage(1);
        let link = shop.link();
        let (live, incoming) = channels::live();
        let plain =
            || mixed((futures::stream::iter([7_u32]), link.source())).into_iter().next().unwrap();
        if !explicit {
            let _first = live.add(plain());
        }
        let world = simulation.world().clone();
        let (first, second, last) = (link.source().erased(), link.source().erased(), plain());
        let adds = simulation.spawn("adds", async move {
            world.clock().sleep_until(world.clock().now() + SECOND).await;
            let handle = live.add(first).expect("it is not known yet");
            assert_eq!(handle.ended().await, channels::SourceEnd::Refused);
            let back = handle.remove().await.expect("it is given back");
            let (back_at_once, error) = live.add(second).expect_err("it is known now");
            assert_eq!(error.code(), ErrorCode::Validation);
            drop((back, back_at_once));
            let plain = live.add(last).expect("a plain one is welcome");
            assert_eq!(plain.ended().await, channels::SourceEnd::Drained);
        });
        let drain = fan_in(&context, Vec::new(), async |_, _| Ok::<_, BoxError>(()));
        let drain = drain.incoming(incoming);
        let drain = if explicit { drain.commit(Commit::Pipeline) } else { drain };
        let report = run(&simulation, drain).unwrap();
        assert_eq!(report.handled(), if explicit { 1 } else { 2 });
        assert!(shop.queue.calls().is_empty());
        drop(adds);
    }
}

/// Rule 7.9: with the commit of each message it may come later.
#[test]
fn a_settling_source_may_come_later() {
    let (simulation, shop, context) = stage(3);
    let link = shop.link();
    let (live, incoming) = channels::live();
    let world = simulation.world().clone();
    let later = link.source();
    let _adds = simulation.spawn("adds", async move {
        world.clock().sleep_until(world.clock().now() + SECOND).await;
        drop(live.add(later));
    });
    let drain =
        fan_in(&context, Vec::new(), async |_, step| Ok::<_, BoxError>(drop(shop.work(&step))));
    let report = run(&simulation, drain.incoming(incoming).commit(Commit::Message)).unwrap();
    assert_sum(&report);
    assert_eq!(report.accepted(), 3);
    assert_eq!(shop.queue.closed(), 1);
    shop.check_all(3);
}

/// Rule 7.10
#[test]
fn one_drain_at_a_time_uses_a_transport() {
    let (simulation, shop, context) = stage(2);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        shop.work(&step);
        let second = fan_in(&context, [link.source()], async |_, _| -> Result<(), BoxError> {
            panic!("called")
        });
        let failure = second.await.unwrap_err();
        assert_eq!(failure.error().code(), ErrorCode::Validation);
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain).unwrap();
    assert_sum(&report);
    assert_eq!(report.accepted(), 2);
    // One after another can.
    shop.queue.push(2);
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    assert_eq!(run(&simulation, drain).unwrap().accepted(), 1);
    shop.check_all(3);
}

/// Rules 7.6 and 7.19: plain sources and several transports in one drain.
#[test]
fn plain_and_settling_sources_are_mixed() {
    let (simulation, first, context) = stage(3);
    let second = Shop::with(simulation.world(), 2);
    let (a, b) = (first.link(), second.link());
    let plain = futures::stream::iter([10_u32, 11]);
    let drain = fan_in(&context, mixed((plain, a.source(), b.source())), async |_, step| {
        match step.source_name() {
            _ if step.deliveries().is_empty() => {
                step.register_compensation(|| async {});
            }
            _ if first.queue.left().len() + second.queue.left().len() > 5 => {}
            _ => {}
        }
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain).unwrap();
    assert_sum(&report);
    assert_eq!((report.handled(), report.fetched(), report.accepted()), (7, 5, 5));
    assert_eq!((first.queue.closed(), second.queue.closed()), (1, 1));
    assert!(!context.scope().has_actions());
}

/// Rules 7.12 and 7.23: trouble that passes is counted, and progress says when there was an answer.
#[test]
fn trouble_is_counted_and_progress_says_when_the_transport_answered_last() {
    let (simulation, shop, context) = stage(1);
    shop.queue.fetches([FetchAnswer::Passes, FetchAnswer::Passes, FetchAnswer::Passes]);
    shop.queue.settles([Says::Refused, Says::Refused]);
    shop.queue.renews([Renews::Failed]);
    let progress = Progress::new();
    let seen = Mutex::new(Vec::new());
    let drain = fan_in(&context, [shop.link().source()], async |_, step: StepContext| {
        seen.lock().unwrap().push((progress.report().troubles(), progress.report().last_answer()));
        timers::delay(&step, 15 * SECOND).await?;
        seen.lock().unwrap().push((progress.report().troubles(), progress.report().last_answer()));
        fine()
    });
    let report = run(&simulation, drain.progress(&progress)).unwrap();
    // 100, 200 and 400 milliseconds behind one another.
    let fetched = Tick::ZERO + Duration::from_millis(700);
    // The renewal at a third of the lease has failed; the one behind it, at 13.2 seconds, went well.
    let asked = fetched + 15 * SECOND;
    let (before, after) = ((3, Some(fetched)), (4, Some(asked)));
    assert_eq!(*seen.lock().unwrap(), [before, after]);
    assert_eq!((report.accepted(), report.troubles()), (1, 6));
    // Refused at once and after 100 milliseconds, applied after 200 more.
    let settled = fetched + 15 * SECOND + Duration::from_millis(300);
    assert!(report.last_answer() >= Some(settled));
}

/// The one of several transports that is silent for longest.
#[test]
fn a_transport_that_has_never_answered_has_no_last_answer() {
    let (simulation, shop, context) = stage(1);
    let silent = Shop::with(simulation.world(), 1);
    silent.queue.fetches([FetchAnswer::Never]);
    let (progress, seen) = (Progress::new(), Mutex::new(Vec::new()));
    let sources = [shop.link().source(), silent.link().source()];
    let drain = fan_in(&context, sources, async |_, _| {
        seen.lock().unwrap().push(progress.report().last_answer().is_some());
        fine()
    });
    let report = run(&simulation, drain.progress(&progress)).unwrap();
    assert_eq!(report.accepted(), 2);
    assert_eq!(*seen.lock().unwrap(), [false, true]);
}
