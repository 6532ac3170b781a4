//! Leases: renewed from the fetch on, and what becomes of a message whose lease is lost.

use std::time::Duration;

use watershed::testing::{
    FetchAnswer, QueueCall, RenewalAnswer as Renews, ScriptedQueue, SettleAnswer as Says,
    Simulation,
};
use watershed::transport::{Able, Link, mixed};
use watershed::{
    BoxError, CancellationSource, Clock, CompensationPolicy, ErrorCode, Letter, OnFailure,
    Progress, RetryPolicy, Source, StepContext, Tick, channels, fan_in, timers,
};

use crate::shop::{MINUTE, SECOND, Shop, able, assert_sum, run, stage};

/// The renewals of one message: when each came.
fn renewals(shop: &Shop, number: u64) -> Vec<Tick> {
    let of = |call| match call {
        QueueCall::Renew { at, batch } if batch.iter().any(|it| it.number == number) => Some(at),
        _ => None,
    };
    shop.queue.calls().into_iter().filter_map(of).collect()
}

fn seconds(at: &[Tick]) -> Vec<u64> {
    at.iter().map(|at| at.since(Tick::ZERO).as_secs()).collect()
}

/// Rules 7.11 and 7.12: by a third of the term, counted from the request, while a handler runs long.
#[test]
fn a_lease_is_renewed_by_a_third_of_its_term_from_the_request_on() {
    let (simulation, shop, context) = stage(1);
    let shop = shop.slow(3 * SECOND);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        shop.work(&step);
        timers::delay(&step, MINUTE).await?;
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain).unwrap();
    assert_eq!(report.accepted(), 1);
    // Requested at 0; each renewal counts from its own request.
    assert_eq!(seconds(&renewals(&shop, 0)), [10, 20, 30, 40, 50, 60]);
    shop.check_all(1);
}

/// Rule 7.11: through queueing, waiting for a key, retrying and rollback.
#[test]
fn a_lease_is_renewed_whatever_its_message_waits_for() {
    for what in ["a permit", "a key", "a retry", "an undo", "a letter", "later"] {
        let (simulation, shop, context) = stage(2);
        let (link, clock) = (shop.link(), simulation.world().clock().clone());
        let slow = move || {
            let clock = clock.clone();
            async move { clock.sleep_until(clock.now() + 3 * MINUTE).await }
        };
        let mut calls = 0;
        let drain = fan_in(&context, [link.source()], |number: u32, step: StepContext| {
            calls += 1;
            let (first, slow) = (calls == 1, slow.clone());
            shop.work(&step);
            if what == "an undo" && first {
                let slow = slow.clone();
                step.register_compensation(slow);
            }
            async move {
                match what {
                    "a permit" | "a key" if number == 0 => slow().await,
                    "later" if first => return Ok(watershed::Answer::Later(3 * MINUTE)),
                    "a retry" | "an undo" | "a letter" if number == 0 && first => {
                        return Err("declined");
                    }
                    _ => {}
                }
                Ok(watershed::Answer::Done)
            }
        });
        let drain = match what {
            "a letter" => drain.retry(RetryPolicy::none()),
            _ => drain
                .retry(RetryPolicy::fixed(2, if what == "a retry" { 3 * MINUTE } else { SECOND })),
        };
        let report = match what {
            "a key" => run(&simulation, drain.concurrency(2).ordered_by(|_: &u32| 0)),
            "a letter" => run(
                &simulation,
                drain.dead_letter_timeout(10 * MINUTE).dead_letters(|letter: Letter<u32>| {
                    let (stored, shop) = (slow(), shop.clone());
                    async move {
                        stored.await;
                        shop.letter(&letter);
                    }
                }),
            ),
            _ => run(&simulation, drain),
        };
        let report = report.unwrap_or_else(|failure| panic!("{what}: {failure}"));
        assert_sum(&report);
        assert_eq!((report.fetched(), report.lost()), (2, 0), "{what}");
        assert!(renewals(&shop, 0).len() >= 17, "{what}: {:?}", seconds(&renewals(&shop, 0)));
        shop.check_all(2);
    }
}

/// Rule 7.11: one that fails is tried again until the lease runs out.
#[test]
fn a_renewal_that_fails_is_tried_again_until_the_lease_runs_out() {
    for answer in [Renews::Failed, Renews::Missing, Renews::Never] {
        for times in [2, 40] {
            let (simulation, shop, context) = stage(1);
            shop.queue.renews(vec![answer; times]);
            let link = shop.link().settle_within(5 * SECOND);
            let (mut calls, stop) = (0, CancellationSource::new());
            let drain = fan_in(&context, [link.source()], |_, step: StepContext| {
                calls += 1;
                let (first, stop) = (calls == 1, stop.clone());
                shop.work(&step);
                async move {
                    if first {
                        timers::delay(&step, MINUTE).await?;
                    }
                    stop.cancel();
                    Ok::<_, BoxError>(())
                }
            });
            let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
            assert_sum(&report);
            // `Missing` renews, though nobody knows.
            let lost = u64::from(times == 40);
            assert_eq!((report.lost(), report.accepted()), (lost, 1), "{answer:?} {times}");
            assert_eq!(shop.book().undone.len() as u64, lost);
            assert!(renewals(&shop, 0).len() > 2);
            shop.check_all(1);
        }
    }
}

/// Rules 7.5 and 7.11: lost while its handler runs: cancelled, undone, and no verdict.
#[test]
fn a_message_that_is_lost_is_cancelled_and_undone_without_a_verdict() {
    for answer in [Renews::Lost, Renews::AtMaximum] {
        for order in 0..3 {
            let (simulation, shop, context) = stage(1);
            shop.queue.renews([answer]);
            let link = shop.link();
            let (mut calls, stop) = (0, CancellationSource::new());
            let heard = std::cell::Cell::new(0);
            let drain = fan_in(&context, [link.source()], |_, step: StepContext| {
                calls += 1;
                let (first, stop, heard, token) =
                    (calls == 1, stop.clone(), &heard, step.cancellation().clone());
                shop.work(&step);
                async move {
                    if first {
                        struct Heard<'a>(&'a std::cell::Cell<u32>, watershed::CancellationToken);
                        impl Drop for Heard<'_> {
                            fn drop(&mut self) {
                                self.0.set(self.0.get() + u32::from(self.1.is_cancelled()));
                            }
                        }
                        let _heard = Heard(heard, token);
                        std::future::pending::<()>().await;
                    }
                    stop.cancel();
                    Ok::<_, BoxError>(())
                }
            });
            let drain = drain.shutdown(stop.token());
            let report = match order {
                0 => run(&simulation, drain),
                1 => run(&simulation, drain.unordered()),
                _ => run(&simulation, drain.ordered_by(|_: &u32| 1)),
            };
            let report = report.unwrap();
            assert_sum(&report);
            // Fetched before the first one was undone, it was given back for a while.
            let again = report.released();
            assert_eq!((report.lost(), report.accepted(), report.fetched()), (1, 1, 2 + again));
            assert!(again <= 1, "{answer:?} {report:?}");
            assert_eq!((shop.book().undone.len(), heard.get()), (1, 1));
            let of_first = |call: &QueueCall| match call {
                QueueCall::Settle { batch, .. } => batch.iter().any(|(it, _)| it.token == 1),
                _ => false,
            };
            assert!(!shop.queue.calls().iter().any(of_first), "it has no verdict");
            shop.check_all(1);
        }
    }
}

/// Rules 3.7 and 7.5: what told the lost message to stop is for no other, of a source without a transport
/// least of all.
#[test]
fn a_message_behind_one_that_is_lost_is_not_cancelled() {
    for staged in [false, true] {
        let (simulation, shop, context) = stage(1);
        shop.queue.renews([Renews::Lost]);
        let clock = simulation.world().clock().clone();
        let plain = Box::pin(futures::stream::once(async move {
            clock.sleep_until(clock.now() + SECOND).await;
            7
        }));
        let seen = std::cell::RefCell::new(Vec::new());
        let drain = fan_in(&context, mixed((shop.link().source(), plain)), async |it, step| {
            let is_cancelled = step.cancellation().is_cancelled();
            seen.borrow_mut().push((it, is_cancelled));
            if seen.borrow().len() == 1 {
                std::future::pending::<()>().await;
            }
            if staged {
                step.register_compensation(|| async {});
            }
            Ok::<_, BoxError>(())
        });
        let report = run(&simulation, drain).unwrap();
        assert_eq!((report.lost(), report.accepted(), report.handled()), (1, 1, 2));
        let seen = seen.into_inner();
        assert_eq!(seen[..2], [(0, false), (7, false)], "{seen:?}");
        assert!(seen.iter().all(|(_, is_cancelled)| !is_cancelled), "{seen:?}");
    }
}

/// Rules 7.5 and 7.11: lost while it waits, it does not reach a handler again.
#[test]
fn a_message_that_is_lost_while_it_waits_is_not_begun() {
    for what in ["a permit", "a key", "a retry", "the buffer"] {
        let (simulation, shop, context) = stage(2);
        let shop = shop.endless();
        // The second message is lost at its first renewal.
        let number = if what == "a retry" { 0 } else { 1 };
        let (link, stop) = (shop.link(), CancellationSource::new());
        let queue = shop.queue.clone();
        let clock = simulation.world().clock().clone();
        let _loses = simulation.spawn("loses", async move {
            clock.sleep_until(clock.now() + 5 * SECOND).await;
            queue.redeliver(number);
        });
        let drain = fan_in(&context, [link.source()], async |it: u32, step: StepContext| {
            let receipts = shop.work(&step);
            if what == "a retry" {
                if receipts[0].token == 1 && it == 0 {
                    return Err("declined".into());
                }
            } else if it == 0 {
                timers::delay(&step, MINUTE).await?;
            }
            if it == 1 && what != "a retry" {
                assert!(receipts[0].token > 1, "{what}: {receipts:?}");
                stop.cancel();
            }
            if what == "a retry" && it == 0 {
                stop.cancel();
            }
            Ok::<_, BoxError>(())
        });
        let drain = drain.shutdown(stop.token()).retry(RetryPolicy::fixed(2, MINUTE));
        let report = match what {
            "a key" => run(&simulation, drain.concurrency(2).ordered_by(|_: &u32| 0)),
            _ => run(&simulation, drain),
        };
        let report = report.unwrap();
        assert_sum(&report);
        assert_eq!((report.lost(), report.accepted()), (1, 2), "{what}: {report:?}");
        shop.check_all(2);
    }
}

/// Rule 7.5: once the accept is handed over, its own answer counts.
#[test]
fn an_accept_that_was_handed_over_has_its_own_answer() {
    let (simulation, shop, context) = stage(1);
    let shop = shop.slow(2 * SECOND);
    shop.queue.renews([Renews::Lost]);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        shop.work(&step);
        timers::delay(&step, 9 * SECOND - Duration::from_millis(1500)).await?;
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain).unwrap();
    assert_eq!((report.accepted(), report.lost()), (1, 0));
    shop.check_all(1);
}

/// Rules 7.5 and 7.8: a verdict waits for the answer of a renewal; lost meanwhile, the effects stay.
#[test]
fn an_accept_waits_for_a_renewal_that_is_out() {
    for (answer, lost) in [(Renews::Late(4 * SECOND), 0), (Renews::Lost, 1), (Renews::Never, 0)] {
        let (simulation, shop, context) = stage(1);
        let shop = shop.slow(SECOND);
        shop.queue.renews([answer]);
        let (link, stop) = (shop.link().settle_within(5 * SECOND), CancellationSource::new());
        let drain = fan_in(&context, [link.source()], async |_, step| {
            shop.work(&step);
            stop.cancel();
            // The renewal is sent 10 s after the fetch.
            timers::delay(&step, Duration::from_millis(9_500)).await?;
            Ok::<_, BoxError>(())
        });
        let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
        assert_sum(&report);
        assert_eq!(
            (report.handled(), report.lost(), report.accepted()),
            (1, lost, 1 - lost),
            "{answer:?}"
        );
        assert!(shop.book().undone.is_empty(), "the effects stay");
        let out =
            |call: &QueueCall| matches!(call, QueueCall::Renew { .. } | QueueCall::Settle { .. });
        let calls: Vec<_> = shop.queue.calls().into_iter().filter(out).collect();
        assert!(matches!(calls[0], QueueCall::Renew { .. }));
        if let Some(QueueCall::Settle { at, .. }) = calls.get(1) {
            assert!(at.since(Tick::ZERO) >= 14 * SECOND, "{at:?}");
        }
    }
}

/// Rules 7.5 and 7.11: a refused accept is still ours to lose, and to renew.
#[test]
fn a_lease_is_renewed_while_a_refused_accept_waits() {
    let (simulation, shop, context) = stage(1);
    let shop = shop.leased_for(3 * SECOND);
    shop.queue.settles([Says::Refused; 7]);
    let link = shop.link().settle_within(MINUTE);
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    let report = run(&simulation, drain).unwrap();
    assert_sum(&report);
    assert_eq!((report.fetched(), report.accepted()), (1, 1), "{report:?}");
    assert!(renewals(&shop, 0).len() > 3);
    shop.check_all(1);
}

/// Rule 7.5: a message that comes again while an earlier delivery is here proves that one lost.
#[test]
fn a_message_that_comes_again_is_begun_when_the_earlier_delivery_is_undone() {
    for delays in [true, false] {
        let (simulation, shop, context) = stage(1);
        let shop = shop.with_able(if delays {
            able()
        } else {
            Able::each().fences().renews().counts().prefetches(4)
        });
        let (link, clock, stop) =
            (shop.link(), simulation.world().clock().clone(), CancellationSource::new());
        let (queue, later) = (shop.queue.clone(), clock.clone());
        let _again = simulation.spawn("again", async move {
            later.sleep_until(later.now() + 3 * SECOND).await;
            queue.redeliver(0);
        });
        let drain = fan_in(&context, [link.source()], async |_, step: StepContext| {
            let receipts = shop.work(&step);
            let clock = clock.clone();
            step.register_compensation(move || {
                let clock = clock.clone();
                async move { clock.sleep_until(clock.now() + 20 * SECOND).await }
            });
            if receipts[0].token == 1 {
                std::future::pending::<()>().await;
            }
            let live = shop.live();
            assert_eq!(live, [0], "the earlier one is undone");
            stop.cancel();
            Ok::<_, BoxError>(())
        });
        let report =
            run(&simulation, drain.shutdown(stop.token()).concurrency(4).unordered()).unwrap();
        assert_sum(&report);
        assert_eq!((report.lost(), report.accepted()), (1, 1), "{report:?}");
        assert!(shop.queue.calls().len() < 200, "{} calls", shop.queue.calls().len());
        shop.check_all(1);
    }
}

/// Rule 7.5
#[test]
fn the_undo_key_is_one_of_each_delivery() {
    let (simulation, shop, context) = stage(2);
    let link = shop.link();
    let mut keys = Vec::new();
    let drain = fan_in(&context, [link.source()], |_, step: StepContext| {
        keys.push((step.undo_key().unwrap(), step.deliveries()[0].clone()));
        let fails = keys.len() < 3;
        async move { if fails { Err("declined") } else { Ok(()) } }
    });
    let drain = drain.on_failure(OnFailure::Continue);
    let report = run(&simulation, drain).unwrap();
    assert_eq!(report.fetched(), 4);
    let unique: std::collections::BTreeSet<_> = keys.iter().map(|(key, _)| key).collect();
    assert_eq!(unique.len(), 4);
}

/// Rule 7.11: a fetch waits at most a third of the lease.
#[test]
fn a_fetch_waits_at_most_a_third_of_the_lease() {
    let (simulation, shop, context) = stage(1);
    let shop = shop.leased_for(6 * SECOND).endless();
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        Ok::<_, BoxError>(drop(shop.work(&step)))
    });
    let _ = run(&simulation, drain.timeout(MINUTE));
    let at: Vec<_> = shop
        .queue
        .calls()
        .iter()
        .filter_map(|call| match call {
            QueueCall::Fetch { at, brought } if brought.is_empty() => Some(*at),
            _ => None,
        })
        .collect();
    assert!(at.len() > 20, "{at:?}");
}

/// Rule 7.11: what has run out before it was handed over does not reach a handler.
#[test]
fn a_message_whose_lease_has_run_out_reaches_no_handler() {
    let (simulation, shop, context) = stage(1);
    let shop = shop.leased_for(5 * SECOND);
    shop.queue.fetches([FetchAnswer::Late(6 * SECOND)]);
    let link = shop.link();
    let drain = fan_in(&context, [link.source()], async |_, step| {
        assert!(shop.work(&step)[0].token > 1);
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain).unwrap();
    assert_sum(&report);
    assert_eq!((report.fetched(), report.accepted()), (2, 1));
    shop.check_all(1);
}

/// Rule 7.12: a paused source keeps its leases and settles, and fetches nothing.
#[test]
fn a_paused_source_renews_and_settles_and_fetches_nothing() {
    let (simulation, shop, context) = stage(1);
    let shop = shop.endless();
    let link = shop.link();
    let (live, incoming) = channels::live();
    let handle = live.add(link.source()).unwrap();
    let clock = simulation.world().clock().clone();
    let (queue, other) = (shop.queue.clone(), clock.clone());
    let paused = simulation.spawn("pauses", async move {
        other.sleep_until(other.now() + SECOND).await;
        handle.pause();
        let before = queue.calls().len();
        queue.push(1);
        other.sleep_until(other.now() + 2 * MINUTE).await;
        let calls: Vec<_> = queue.calls().split_off(before);
        let accepted = queue.accepted().len();
        handle.resume();
        other.sleep_until(other.now() + SECOND).await;
        drop(live);
        handle.request_removal();
        (calls, accepted)
    });
    let drain = fan_in(&context, Vec::new(), async |_, step| {
        shop.work(&step);
        timers::delay(&step, MINUTE).await?;
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain.incoming(incoming)).unwrap();
    assert_sum(&report);
    let (calls, accepted) = run(&simulation, paused);
    let renewed = calls.iter().filter(|it| matches!(it, QueueCall::Renew { .. })).count();
    let brought: Vec<_> = calls
        .iter()
        .filter_map(|it| match it {
            QueueCall::Fetch { brought, .. } => Some(brought.clone()),
            _ => None,
        })
        .collect();
    assert!(renewed >= 5 && accepted == 1, "{calls:?}");
    // The one that was out may come back, and what it brings is released at once.
    assert!(brought.len() <= 1, "{brought:?}");
    assert_eq!(report.accepted(), 2);
    shop.check_all(2);
}

/// Rule 7.13
#[test]
fn what_was_delivered_too_often_is_a_letter_without_its_handler() {
    for letters in [true, false] {
        let (simulation, shop, context) = stage(2);
        let link = shop.link().max_deliveries(2);
        let mut calls = [0; 2];
        let drain = fan_in(&context, [link.source()], |number: u32, step: StepContext| {
            calls[number as usize] += 1;
            shop.work(&step);
            async move { if number == 0 { Err("kills") } else { Ok(()) } }
        });
        let drain = drain.on_failure(OnFailure::Continue);
        // Without a retry and a letter, it is released each time.
        let ended = if letters {
            let (simulation, link, context, shop) = (&simulation, &link, &context, &shop);
            for _ in 0..2 {
                let drain = fan_in(context, [link.source()], async |number, step: StepContext| {
                    shop.work(&step);
                    if number == 0 { Err("kills") } else { Ok(()) }
                });
                let _ = run(simulation, drain);
            }
            run(
                simulation,
                drain.dead_letters(async |letter: Letter<u32>| {
                    assert_eq!((letter.attempts(), letter.raw::<u32>()), (0, Some(&0)));
                    assert_eq!(letter.deliveries()[0].deliveries, Some(3));
                    shop.letter(&letter);
                }),
            )
        } else {
            run(&simulation, drain)
        };
        let report = match &ended {
            Ok(report) => report.clone(),
            Err(failure) => failure.report().clone(),
        };
        assert_sum(&report);
        if letters {
            assert_eq!((report.rejected(), calls[0]), (1, 0), "{report:?}");
        } else {
            assert!(ended.is_err());
            assert_eq!((report.abandoned(), calls[0]), (1, 2), "{report:?}");
        }
        shop.check_all(2);
    }
}

/// Rules 7.1 and 7.13: a release of what was not begun takes its delivery back.
#[test]
fn what_was_not_begun_has_its_delivery_taken_back() {
    let (simulation, shop, context) = stage(4);
    let (link, stop) = (shop.link(), CancellationSource::new());
    let drain = fan_in(&context, [link.source()], async |_, step| {
        shop.work(&step);
        timers::delay(&step, SECOND).await?;
        stop.cancel();
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain.shutdown(stop.token())).unwrap();
    assert_sum(&report);
    assert_eq!((report.accepted(), report.released()), (1, 3));
    for number in 1..4 {
        assert_eq!(shop.queue.deliveries(number), 0);
    }
    shop.check_all(4);
}

/// Rule 7.13: at the limit, it is tried alone.
#[test]
fn a_message_at_the_limit_is_tried_alone() {
    let (simulation, shop, context) = stage(5);
    let link = shop.link().max_deliveries(2);
    let running = std::cell::Cell::new(0);
    let alone = std::cell::RefCell::new(Vec::new());
    // Everything is delivered once, and given back.
    let first = fan_in(&context, [link.source()], async |_, step| {
        timers::delay(&step, SECOND).await?;
        Err::<(), BoxError>("declined".into())
    });
    run(&simulation, first.concurrency(5).unordered()).unwrap_err();
    let before: Vec<_> = (0..5).map(|it| shop.queue.deliveries(it)).collect();
    let drain = fan_in(&context, [link.source()], async |number: u32, step: StepContext| {
        running.set(running.get() + 1);
        let deliveries = step.deliveries()[0].deliveries.unwrap();
        shop.work(&step);
        timers::delay(&step, SECOND).await?;
        if deliveries == 2 {
            alone.borrow_mut().push((number, running.get()));
        }
        running.set(running.get() - 1);
        Ok::<_, BoxError>(())
    });
    let report = run(&simulation, drain.concurrency(5).unordered()).unwrap();
    assert_sum(&report);
    assert!(!alone.borrow().is_empty(), "{before:?}");
    assert!(alone.borrow().iter().all(|(_, running)| *running == 1), "{:?}", alone.borrow());
    shop.check_all(5);
}
