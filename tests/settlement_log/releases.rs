//! Rule 7.15: a release in prefix order.

use std::sync::{Arc, Mutex};

use futures::FutureExt;
use watershed::testing::LogRecord;
use watershed::{CancellationSource, OnFailure, fan_in};

use crate::scene::*;

// Rule 7.15: those behind it that are done and not committed are undone in reverse and count as
// released
#[test]
fn what_is_done_behind_a_release_is_undone_in_reverse() {
    let scene = Scene::with(7, &[5], |log| log.prefetches(10));
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let undone = Arc::new(Mutex::new(Vec::new()));
    let (log, noted, clock) = (scene.log.clone(), undone.clone(), scene.world.clock().clone());
    let drain = fan_in(&context, member.sources, move |it: LogRecord, step| {
        let (log, noted, clock) = (log.clone(), noted.clone(), clock.clone());
        async move {
            use watershed::Clock;
            step.register_compensation_with(noted, move |noted| async move {
                noted.lock().unwrap().push(it.offset);
            });
            log.apply(&step, it);
            if it.offset == 1 && log.handled(it) == 1 {
                clock.sleep_until(clock.now() + ms(100)).await;
                return Err("not now");
            }
            Ok(())
        }
        .boxed()
    });
    let drain = drain.unordered().concurrency(10).on_failure(OnFailure::Continue);
    let report = settled(scene.run(drain));
    assert_eq!((report.accepted(), report.released(), report.fetched()), (5, 4, 9));
    assert_eq!(*undone.lock().unwrap(), [1, 4, 3, 2]);
    assert_eq!(scene.log.seeks(0), [1]);
    assert_eq!(scene.log.handled(record(0, 0)), 1);
    scene.log.check().unwrap();
}

// Rule 7.15: the seek is sent when nothing of the partition runs
#[test]
fn the_seek_waits_for_what_runs() {
    let scene = Scene::with(7, &[6], |log| log.prefetches(10));
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let (log, clock) = (scene.log.clone(), scene.world.clock().clone());
    let ends = Arc::new(Mutex::new(Vec::new()));
    let noted = ends.clone();
    let drain = fan_in(&context, member.sources, move |it: LogRecord, step| {
        let (log, clock, noted) = (log.clone(), clock.clone(), noted.clone());
        async move {
            use watershed::Clock;
            log.apply(&step, it);
            clock.sleep_until(clock.now() + ms(10)).await;
            if it.offset == 3 {
                clock.sleep_until(clock.now() + ms(1_000)).await;
                noted.lock().unwrap().push((it.offset, log.seeks(0).len()));
            }
            if it.offset == 1 && log.handled(it) == 1 { Err("not now") } else { Ok(()) }
        }
        .boxed()
    });
    let drain = drain.unordered().concurrency(10).on_failure(OnFailure::Continue);
    settled(scene.run(drain));
    assert_eq!(ends.lock().unwrap()[0], (3, 0));
    scene.log.check().unwrap();
}

// Rule 7.15: … and no fetch is in flight, and nothing is fetched until it is confirmed
#[test]
fn a_fetch_that_is_on_its_way_across_a_seek_eats_nothing() {
    for order in ORDERS {
        for (fetch, settle) in [(0, 50), (50, 0), (200, 1), (1, 200), (30, 30)] {
            for prefetch in [1, 2, 7] {
                let scene = Scene::with(prefetch as u64, &[12, 3], |log| {
                    log.latency(ms(fetch), ms(settle)).prefetches(prefetch)
                });
                let member = scene.member(&[0, 1]);
                let context = scene.world.context("orders");
                let log = scene.log.clone();
                let handler = scene.works_unless(move |record, _| {
                    record.offset % 3 == 1 && log.handled(record) == 1
                });
                let drain = Drain::new(order).going_on().on(&context, member.sources, handler);
                let report = settled(scene.run(drain));
                assert_eq!(report.accepted(), 15);
                assert!(scene.log.is_drained());
                scene.log.check().unwrap();
            }
        }
    }
}

// Rule 7.15: … the same happens to what no commit can reach at a shutdown
#[test]
fn at_a_shutdown_what_no_commit_can_reach_is_undone() {
    let scene = Scene::with(7, &[6], |log| log.prefetches(10));
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let log = scene.log.clone();
    let handler: Handler = Box::new(move |it, step| {
        let log = log.clone();
        async move {
            log.apply(&step, it);
            if it.offset == 2 {
                // It hears that it is cancelled.
                watershed::timers::delay(&step, ms(3_600_000)).await?;
            }
            Ok(())
        }
        .boxed()
    });
    let drain = Drain::new(Order::Unordered).concurrency(6).finish_within(ms(1_000));
    let shutdown = drain.shutdown.clone();
    let running = scene.simulation.spawn("drain", drain.on(&context, member.sources, handler));
    scene.run(scene.sleep(ms(5_000)));
    assert_eq!(scene.log.committed(0), 2);
    shutdown.cancel();
    let ended = scene.run(running);
    let report = checked(&ended);
    assert_eq!((report.accepted(), report.released()), (2, 4), "{report:?}");
    assert_eq!(context.scope().len(), 0);
    scene.log.check().unwrap();
    assert_eq!(scene.finish(&[0]).accepted(), 4);
}

// Rules 7.4, 7.15: where the undo of one fails it stays staged, its partition stops, and the drain ends
#[test]
fn a_record_that_cannot_be_undone_stops_its_partition_and_the_drain_ends() {
    for order in ORDERS {
        for goes_on in [false, true] {
            let scene = Scene::with(7, &[9, 9], |log| log.prefetches(10));
            let member = scene.member(&[0, 1]);
            let context = scene.world.context("orders");
            let log = scene.log.clone();
            let mut inner = scene.works_unless(|it, _| it == record(0, 3));
            let handler: Handler = Box::new(move |it, step| {
                if it == record(0, 3) {
                    step.register_compensation(|| async { Err("it cannot be undone") });
                }
                let _ = &log;
                inner(it, step)
            });
            let mut drain = Drain::new(order);
            drain.goes_on = goes_on;
            let ended = scene.run(drain.on(&context, member.sources, handler));
            let report = checked(&ended);
            assert!(report.abandoned() >= 1, "{report:?}");
            assert!(ended.is_err());
            assert_eq!(scene.log.committed(0), 3);
            assert_eq!(context.scope().len(), 1);
            scene.log.check().unwrap();
        }
    }
}

// Rule 7.15, at the drain's end without a failure of its own: nothing hangs
#[test]
fn what_is_done_behind_one_that_is_abandoned_is_given_back_at_the_end() {
    let scene = Scene::with(7, &[9], |log| log.prefetches(10).endless());
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let (log, stop) = (scene.log.clone(), CancellationSource::new());
    let drain = fan_in(&context, member.sources, move |it: LogRecord, step| {
        let log = log.clone();
        async move {
            log.apply(&step, it);
            if it.offset == 3 {
                step.register_compensation(|| async { Err("it cannot be undone") });
                return Err("it fails");
            }
            Ok(())
        }
        .boxed()
    });
    let log = scene.log.clone();
    let drain = drain.unordered().concurrency(4).shutdown(stop.token());
    let drain = drain.dead_letters(move |letter: watershed::Letter<LogRecord>| {
        log.pass(letter.into_message().unwrap());
        async {}
    });
    let running = scene.simulation.spawn("drain", std::future::IntoFuture::into_future(drain));
    scene.run(scene.sleep(ms(5_000)));
    stop.cancel();
    let report = settled(scene.run(running));
    // It is dead-lettered and rejected, and the action stays staged (7.4).
    assert_eq!((report.accepted(), report.rejected()), (8, 1), "{report:?}");
    assert_eq!(context.scope().len(), 1);
    assert_eq!(scene.log.committed(0), 9);
    scene.log.check().unwrap();
}

// Rules 7.4, 7.15: one that was done behind a release, and cannot be undone, ends the drain
#[test]
fn a_record_that_was_done_and_cannot_be_undone_ends_the_drain() {
    let scene = Scene::with(7, &[6], |log| log.prefetches(10));
    let member = scene.member(&[0]);
    let context = scene.world.context("orders");
    let (log, clock) = (scene.log.clone(), scene.world.clock().clone());
    let drain = fan_in(&context, member.sources, move |it: LogRecord, step| {
        let (log, clock) = (log.clone(), clock.clone());
        async move {
            use watershed::Clock;
            log.apply(&step, it);
            if it.offset == 3 {
                step.register_compensation(|| async { Err("it cannot be undone") });
            }
            if it.offset == 1 {
                clock.sleep_until(clock.now() + ms(100)).await;
                return Err("not now");
            }
            Ok(())
        }
        .boxed()
    });
    let drain = drain.unordered().concurrency(10).on_failure(OnFailure::Continue);
    let ended = scene.run(drain);
    let report = checked(&ended);
    // The release of the one before would bring it back with its effect in place: it is not sent.
    assert_eq!((report.accepted(), report.abandoned()), (1, 2), "{report:?}");
    assert!(ended.is_err());
    assert_eq!((context.scope().len(), scene.log.committed(0)), (1, 1));
    assert!(scene.world.clock().now_secs() < 6, "it does not wait for its grace");
}

trait Seconds {
    fn now_secs(&self) -> u64;
}

impl<C: watershed::Clock> Seconds for C {
    fn now_secs(&self) -> u64 {
        self.now().as_nanos() / 1_000_000_000
    }
}
