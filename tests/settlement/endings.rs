//! How transports end, and how a drain ends with them.

use std::time::Duration;

use watershed::channels::{self, SourceEnd, Window};
use watershed::testing::{FetchAnswer as Gets, QueueCall, SettleAnswer as Says, Simulation};
use watershed::transport::{Able, Event, Link, Notices, mixed};
use watershed::{
    BoxError, CancellationSource, Clock, CompensationPolicy, Error, ErrorCode, Letter, OnFailure,
    Progress, RetryPolicy, Source, StepContext, Tick, fan_in, timers,
};

use crate::shop::{MINUTE, SECOND, Shop, able, assert_sum, run, stage};

fn now(simulation: &Simulation) -> Duration {
    simulation.world().clock().now().since(Tick::ZERO)
}

/// Rules 7.6 and 7.21: told to shut down: what runs is finished and settled, what was fetched is
/// released, and then the transport is closed.
#[test]
fn a_shutdown_finishes_what_runs_and_releases_what_was_fetched() {
    let (simulation, shop, context) = stage(9);
    let shop = shop.slow(SECOND);
    let (link, stop) = (shop.link(), CancellationSource::new());
    let drain = fan_in(&context, [link.source()], async |_, step| {
        shop.work(&step);
        stop.cancel();
        timers::delay(&step, 10 * SECOND).await?;
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain.shutdown(stop.token()).concurrency(2).unordered()).unwrap();
    assert_sum(&report);
    assert_eq!(report.fetched(), report.accepted() + report.released());
    assert_eq!(shop.queue.out(), Vec::<u64>::new());
    let calls = shop.queue.calls();
    assert!(matches!(calls.last(), Some(QueueCall::Close { .. })), "{calls:?}");
    assert_eq!(shop.queue.closed(), 1);
    shop.check_all(9);
}

/// Rules 3.9 and 7.21: what `finish_within` does not suffice for is undone and released.
#[test]
fn what_a_shutdown_has_no_time_for_is_undone_and_released() {
    for heeds in [true, false] {
        let (simulation, shop, context) = stage(3);
        let shop = shop.slow(SECOND);
        let (link, stop) = (shop.link(), CancellationSource::new());
        let drain = fan_in(&context, [link.source()], async |_, step| {
            shop.work(&step);
            stop.cancel();
            if heeds {
                timers::delay(&step, MINUTE).await?;
            } else {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(())
        });
        let drain = drain.shutdown(stop.token()).finish_within(5 * SECOND).grace(10 * SECOND);
        let failure = run(&simulation, drain).unwrap_err();
        assert_eq!(failure.error().code(), ErrorCode::Timeout);
        let report = failure.report();
        assert_sum(report);
        assert_eq!(report.abandoned(), u64::from(!heeds), "{report:?}");
        assert_eq!(report.released(), report.fetched() - u64::from(!heeds), "{report:?}");
        assert_eq!(context.scope().has_actions(), !heeds);
        shop.check_all(3);
    }
}

/// Rule 7.21: what the budgets do not suffice for is abandoned or unknown, counted, and the drain ends.
#[test]
fn a_transport_that_never_answers_does_not_hold_up_the_end() {
    for ending in 0..3 {
        let (simulation, shop, context) = stage(4);
        let shop = shop.with_able(able().batches_of(1));
        shop.queue.settles([Says::Never; 9]);
        let (link, stop) = (shop.link().settle_within(MINUTE), CancellationSource::new());
        let drain = fan_in(&context, [link.source()], async |_, step| {
            shop.work(&step);
            timers::delay(&step, SECOND).await?;
            stop.cancel();
            timers::delay(&step, MINUTE).await?;
            Ok::<_, BoxError>(())
        });
        let drain = drain.grace(3 * SECOND);
        let report = match ending {
            0 => run(&simulation, drain.cancellation(stop.token())).unwrap_err().report().clone(),
            1 => run(&simulation, drain.timeout(SECOND)).unwrap_err().report().clone(),
            _ => run(&simulation, drain.shutdown(stop.token()).finish_within(2 * SECOND))
                .unwrap_err()
                .report()
                .clone(),
        };
        assert_sum(&report);
        assert!(report.unknown() + report.abandoned() == report.fetched(), "{report:?}");
        assert!(now(&simulation) <= 10 * SECOND, "{:?}", now(&simulation));
    }
}

/// Rule 7.21: a fetch that is out at the end is awaited, and what it brings is released at once.
#[test]
fn what_a_fetch_brings_after_the_end_is_released() {
    for ending in 0..4 {
        let (simulation, shop, context) = stage(4);
        // Nothing at first, so that the second fetch is out when the drain ends.
        shop.queue.fetches([Gets::Late(4 * SECOND)]);
        let link = shop.link();
        let stop = CancellationSource::new();
        let (token, clock) = (stop.clone(), simulation.world().clock().clone());
        let _ends = simulation.spawn("ends", async move {
            clock.sleep_until(clock.now() + SECOND).await;
            token.cancel();
        });
        let drain = fan_in(&context, [link.source()], async |_, _| -> Result<(), BoxError> {
            panic!("called")
        });
        let drain = drain.grace(20 * SECOND);
        let report = match ending {
            0 => run(&simulation, drain.cancellation(stop.token())).unwrap_err().report().clone(),
            1 => run(&simulation, drain.timeout(SECOND)).unwrap_err().report().clone(),
            2 => run(&simulation, drain.shutdown(stop.token())).unwrap(),
            _ => run(&simulation, drain.shutdown(stop.token()).finish_within(20 * SECOND)).unwrap(),
        };
        assert_sum(&report);
        assert_eq!((report.fetched(), report.released()), (4, 4), "{ending}");
        assert_eq!(shop.queue.out(), Vec::<u64>::new());
        assert_eq!(shop.queue.closed(), 1);
        assert_eq!(shop.queue.deliveries(0), 0);
    }
}

/// Rule 7.21: the wait of a fetch is never longer than the shortest budget.
#[test]
fn a_fetch_waits_no_longer_than_the_shortest_budget() {
    let (simulation, shop, context) = stage(0);
    let shop = shop.endless();
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_: u32, _| Ok::<_, BoxError>(()));
    let drain = drain.grace(2 * SECOND).timeout(MINUTE);
    let _ = run(&simulation, drain);
    let at: Vec<_> = shop
        .queue
        .calls()
        .iter()
        .filter_map(|call| match call {
            QueueCall::Fetch { at, .. } => Some(at.since(Tick::ZERO)),
            _ => None,
        })
        .collect();
    assert!(at.windows(2).all(|it| it[1] - it[0] <= 3 * SECOND + SECOND), "{at:?}");
    assert!(at.len() > 10);
}

/// Rule 7.21: a source that was lent is flushed, and its transport is left open.
#[test]
fn a_source_that_was_lent_is_left_open() {
    let (simulation, shop, context) = stage(6);
    let shop = shop.slow(SECOND);
    let link = shop.link();
    let _other = link.source();
    let stop = CancellationSource::new();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        shop.work(&step);
        stop.cancel();
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
    assert_sum(&report);
    assert_eq!((shop.queue.closed(), shop.queue.out().len()), (0, 0));
    // The next drain goes on.
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    let report = run(&simulation, drain).unwrap();
    assert_sum(&report);
    assert!(shop.queue.left().is_empty());
    shop.check_all(6);
}

/// Rules 2.7 and 7.21: a source that is removed is settled like a drain.
#[test]
fn a_source_that_is_removed_is_settled() {
    for waits in [false, true] {
        for windows in [false, true] {
            let (simulation, shop, context) = stage(9);
            let shop = shop.slow(SECOND).endless();
            let link = shop.link();
            let (live, incoming) = channels::live();
            let source = if windows {
                Window::new(&context, link.source()).count(3).every(MINUTE).erased()
            } else {
                link.source().picked(|it| Some(vec![it])).erased()
            };
            let handle = live.add(source).unwrap();
            let clock = simulation.world().clock().clone();
            let removed = simulation.spawn("removes", async move {
                clock.sleep_until(clock.now() + 3 * SECOND).await;
                assert!(handle.request_removal());
                drop(live);
                if waits {
                    let _ = handle.ended().await;
                }
            });
            let drain = fan_in(&context, Vec::new(), async |_: Vec<u32>, step: StepContext| {
                shop.work(&step);
                if step.message_number() == Some(1) {
                    return Err("once".into());
                }
                timers::delay(&step, 10 * SECOND).await?;
                Ok::<_, BoxError>(())
            });
            let drain = drain
                .incoming(incoming)
                .retry(RetryPolicy::fixed(2, MINUTE))
                .concurrency(2)
                .unordered();
            let report = run(&simulation, drain).unwrap();
            run(&simulation, removed);
            assert_sum(&report);
            assert_eq!(report.fetched(), report.accepted() + report.released(), "{report:?}");
            assert!(report.accepted() > 0 || windows, "{report:?}");
            assert_eq!(shop.queue.out(), Vec::<u64>::new());
            assert!(
                now(&simulation) < MINUTE,
                "the retry is not waited for: {:?}",
                now(&simulation)
            );
            shop.check_all(9);
        }
    }
}

/// Rule 7.21: what a paused source had on its way is released at once.
#[test]
fn what_a_fetch_brings_to_a_paused_source_is_released() {
    let (simulation, shop, context) = stage(3);
    let shop = shop.endless();
    shop.queue.fetches([Gets::Late(5 * SECOND)]);
    let link = shop.link();
    let (live, incoming) = channels::live();
    let handle = live.add(link.source()).unwrap();
    let (clock, queue) = (simulation.world().clock().clone(), shop.queue.clone());
    let seen = simulation.spawn("pauses", async move {
        clock.sleep_until(clock.now() + SECOND).await;
        handle.pause();
        clock.sleep_until(clock.now() + 2 * MINUTE).await;
        let out = queue.out();
        handle.resume();
        clock.sleep_until(clock.now() + MINUTE).await;
        handle.request_removal();
        drop(live);
        out
    });
    let drain = fan_in(&context, Vec::new(), async |_: u32, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    let report = run(&simulation, drain.incoming(incoming)).unwrap();
    assert_sum(&report);
    assert!(run(&simulation, seen).is_empty(), "nothing is held by a paused source");
    assert_eq!((report.accepted(), report.released()), (3, 3));
    shop.check_all(3);
}

/// Rule 7.22
#[test]
fn a_queue_that_was_read_until_empty_is_no_fault_and_one_that_is_gone_is() {
    let (simulation, shop, context) = stage(2);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    assert_eq!(run(&simulation, drain).unwrap().accepted(), 2);

    let (simulation, shop, context) = stage(2);
    shop.queue.fetches([Gets::Usual, Gets::Lasts]);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    let failure = run(&simulation, drain).unwrap_err();
    assert_eq!(failure.error().code(), ErrorCode::Source);
    assert_sum(failure.report());
    assert_eq!(
        failure.report().fetched(),
        failure.report().accepted() + failure.report().released()
    );
    shop.check_all(2);
}

/// Rule 7.23: trouble that passes is tried again with a back-off; beyond `unreachable_for` it is a fault.
#[test]
fn trouble_that_passes_is_tried_again_with_a_back_off() {
    let (simulation, shop, context) = stage(2);
    shop.queue.fetches([Gets::Passes; 6]);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    let report = run(&simulation, drain).unwrap();
    assert_sum(&report);
    assert_eq!(report.accepted(), 2);
    let at: Vec<_> = shop
        .queue
        .calls()
        .iter()
        .filter_map(|call| match call {
            QueueCall::Fetch { at, .. } => Some(*at),
            _ => None,
        })
        .take(7)
        .collect();
    let gaps: Vec<_> = at.windows(2).map(|it| it[1].since(it[0])).collect();
    assert!(gaps.windows(2).all(|it| it[1] > it[0]), "{gaps:?}");

    let (simulation, shop, context) = stage(2);
    shop.queue.fetches([Gets::Passes; 60]);
    let link = shop.link().unreachable_for(MINUTE);
    let drain = fan_in(&context, [link.source()], async |_: u32, _| Ok::<_, BoxError>(()));
    let failure = run(&simulation, drain).unwrap_err();
    assert_eq!(failure.error().code(), ErrorCode::Source);
    assert!(now(&simulation) >= MINUTE && now(&simulation) <= 2 * MINUTE);
}

/// Rule 7.12: a fetch without an answer is given up and sent again.
#[test]
fn a_fetch_without_an_answer_is_sent_again() {
    let (simulation, shop, context) = stage(2);
    shop.queue.fetches([Gets::Never, Gets::Never]);
    let link = shop.link().settle_within(5 * SECOND);
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    let report = run(&simulation, drain).unwrap();
    assert_sum(&report);
    assert_eq!(report.accepted(), 2);
    shop.check_all(2);
}

/// Rule 7.12: a source asks by itself at its interval, whatever wakes it.
#[test]
fn a_source_asks_by_itself() {
    let (simulation, shop, context) = stage(0);
    let shop = shop.endless().with_able(able().asks_every(3 * SECOND));
    shop.queue.fetches([Gets::Nothing; 5]);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_: u32, _| Ok::<_, BoxError>(()));
    let _ = run(&simulation, drain.timeout(14 * SECOND));
    let at: Vec<_> = shop
        .queue
        .calls()
        .iter()
        .filter_map(|call| match call {
            QueueCall::Fetch { at, .. } => Some(at.since(Tick::ZERO).as_secs()),
            _ => None,
        })
        .collect();
    assert_eq!(at, [0, 3, 6, 9, 12]);
}

/// Rules 2.10 and 7.21: a drain until its queue is idle handles what is there.
#[test]
fn a_drain_until_idle_handles_what_its_queue_has() {
    for latency in [Duration::ZERO, SECOND] {
        let (simulation, shop, context) = stage(5);
        let shop = shop.endless().slow(latency);
        let link = shop.link();
        let drain = fan_in(&context, [link.source()], async |number, step| {
            shop.work(&step);
            if number == 0 {
                // A queue that feeds itself.
                shop.queue.push(9);
            }
            Ok::<_, BoxError>(())
        });
        let report = run(&simulation, drain.until_idle()).unwrap();
        assert_sum(&report);
        assert_eq!(report.accepted(), 6, "{latency:?} {report:?}");
        shop.check_all(6);
    }
}

/// Rule 7.19: what is left out is accepted, through every wrapper.
#[test]
fn wrappers_keep_the_receipt() {
    let (simulation, shop, context) = stage(6);
    shop.book().skipped = [1, 3, 5].into();
    let link = shop.link();
    let source = link
        .source()
        .picked(|it| (it % 2 == 0).then_some(it))
        .decoded(|it| Ok::<_, BoxError>(it.to_string()));
    let source = source.named("orders").weighted(2).prioritized(3).rate(100, SECOND).erased();
    let plain = futures::stream::iter(["7".to_owned()]).erased();
    let (live, incoming) = channels::live();
    let mut all = mixed((plain, source)).into_iter();
    let _first = live.add(all.next().unwrap());
    let _second = live.add(all.next().unwrap());
    drop(live);
    let mut seen = Vec::new();
    let drain = fan_in(&context, Vec::new(), |order: String, step: StepContext| {
        shop.work(&step);
        seen.push(order);
        async { Ok::<_, BoxError>(()) }
    });
    let report = run(&simulation, drain.incoming(incoming)).unwrap();
    assert_sum(&report);
    assert_eq!((report.handled(), report.accepted()), (7, 6));
    seen.sort_unstable();
    assert_eq!(seen, ["0", "2", "4", "7"]);
    shop.check_all(6);
}

/// Rules 3.7 and 7.19: a function of the user's that panics fails its message, which is not lost.
#[test]
fn a_function_of_a_wrapper_that_panics_fails_its_message() {
    for picks in [false, true] {
        for letters in [false, true] {
            let (simulation, shop, context) = stage(3);
            let link = shop.link();
            let bad =
                |it: u32| -> Option<u32> { if it == 1 { panic!("thrown") } else { Some(it) } };
            let source = if picks {
                link.source().picked(bad).erased()
            } else {
                link.source().decoded(move |it| bad(it).ok_or("none")).erased()
            };
            let drain = fan_in(&context, [source], async |_, step| {
                Ok::<_, BoxError>(drop(shop.work(&step)))
            });
            let (ok, report) = if letters {
                match run(
                    &simulation,
                    drain.dead_letters(async |letter: Letter<u32>| shop.letter(&letter)),
                ) {
                    Ok(report) => (true, report),
                    Err(failure) => (false, failure.report().clone()),
                }
            } else {
                (false, run(&simulation, drain).unwrap_err().report().clone())
            };
            assert_sum(&report);
            // Nothing is left of what a function of `picked` has panicked with: no letter can have it.
            assert_eq!(ok, letters && !picks, "{report:?}");
            if letters && picks {
                assert_eq!(
                    (report.released() >= 1, report.abandoned(), report.rejected()),
                    (true, 0, 0)
                );
            } else if letters {
                assert_eq!((report.accepted(), report.rejected()), (2, 1), "{report:?}");
            } else {
                assert_eq!(
                    report.fetched(),
                    report.accepted() + report.released() + report.abandoned()
                );
            }
            shop.check_all(3);
        }
    }
}
