//! What a sixth outsider has found.

use std::sync::Mutex;
use std::time::Duration;

use watershed::channels::{self, Window};
use watershed::testing::{LogRecord, ScriptedLog, Simulation};
use watershed::transport::Link;
use watershed::{
    BoxError, CancellationSource, Clock, Letter, RetryPolicy, StepContext, Tick, fan_in,
};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Shutdown,
    Removal,
    Revocation,
    Cancellation,
    Timeout,
}

/// The first record waits for another attempt, the one behind it is done and cannot be undone: whatever
/// ends the drain, it ends.
fn ends(end: End, letters: bool) {
    let simulation = Simulation::new(7);
    let world = simulation.world();
    let log = ScriptedLog::new(world.clock().clone()).endless().partition(0, 2);
    let consumer = log.consumer();
    let link = Link::new(consumer.clone());
    let (stop, cancel) = (CancellationSource::new(), CancellationSource::new());
    let (stopped, cancelled) = (stop.token(), cancel.token());
    let context = world.context("orders");
    let (live, incoming) = channels::live();
    let handle = live.add(link.partition(consumer.assign(0))).unwrap();
    let (clock, asked) = (world.clock().clone(), consumer.clone());
    simulation
        .spawn("operator", async move {
            clock.sleep_until(Tick::ZERO + SECOND).await;
            match end {
                End::Shutdown => stop.cancel(),
                End::Removal => drop(handle.request_removal()),
                End::Revocation => drop(asked.revoke(0, None).await),
                End::Cancellation => cancel.cancel(),
                End::Timeout => {}
            }
            drop((live, handle, stop, cancel));
        })
        .forget();
    let timeout = if end == End::Timeout { SECOND } else { 3_600 * SECOND };
    let drain = fan_in(&context, [], async |record: LogRecord, step: StepContext| {
        if record.offset == 0 {
            return Err(BoxError::from("the bank is closed"));
        }
        step.register_compensation(async || Err::<(), _>("cannot be undone"));
        Ok(())
    })
    .incoming(incoming)
    .unordered()
    .concurrency(2)
    .retry(RetryPolicy::fixed(9, 600 * SECOND))
    .shutdown(stopped)
    .cancellation(cancelled)
    .timeout(timeout);
    let ended = if letters {
        simulation.run(drain.dead_letters(async |_: Letter<LogRecord>| {}))
    } else {
        simulation.run(drain)
    };
    let ended = ended.unwrap_or_else(|stuck| panic!("{end:?} never ends: {stuck}"));
    let report = match &ended {
        Ok(report) => report,
        Err(failure) => failure.report(),
    };
    assert!(world.clock().now() < Tick::ZERO + 60 * SECOND, "{end:?}: {:?}", world.clock().now());
    assert_eq!((report.accepted(), log.committed(0)), (0, 0), "{end:?}");
    assert_eq!(report.fetched(), report.released() + report.abandoned() + report.lost());
}

// Rules 3.3, 3.10, 7.4, 7.15, 7.18
#[test]
fn what_cannot_be_undone_behind_one_that_goes_back_holds_up_no_end() {
    for end in [End::Shutdown, End::Removal, End::Revocation, End::Cancellation, End::Timeout] {
        ends(end, true);
        ends(end, false);
    }
}

// Rules 7.17, 7.22
#[test]
fn a_source_that_is_dropped_late_does_not_end_another_one_of_its_partition() {
    for before in [true, false] {
        let simulation = Simulation::new(1);
        let world = simulation.world();
        let log = ScriptedLog::new(world.clock().clone())
            .partition(0, 3)
            .latency(SECOND, Duration::from_millis(1));
        let consumer = log.consumer();
        let link = Link::new(consumer.clone());
        let clock = world.clock().clone();
        let assigned = consumer.assign(0);
        let (live, incoming) = channels::live();
        let first = live.add(link.partition(assigned)).unwrap();
        simulation
            .spawn("operator", async move {
                clock.sleep_until(Tick::ZERO + SECOND / 2).await;
                let mut old = first.remove().await;
                assert!(old.is_some());
                clock.sleep_until(Tick::ZERO + 5 * SECOND).await;
                let again = link.partition(assigned);
                if before {
                    old = None;
                }
                let second = live.add(again).unwrap();
                drop((live, old));
                second.ended().await;
            })
            .forget();
        let context = world.context("orders");
        let drain = fan_in(&context, [], async |_: LogRecord, _| Ok::<_, BoxError>(()));
        let report = simulation.run(drain.incoming(incoming)).unwrap().unwrap();
        assert_eq!((report.accepted(), log.committed(0)), (3, 3), "dropped before: {before}");
    }
}

// Rules 2.1, 7.22
#[test]
fn windows_of_windows_end_with_their_log() {
    let simulation = Simulation::new(1);
    let world = simulation.world();
    let log = ScriptedLog::new(world.clock().clone()).partition(0, 5).prefetches(16);
    let consumer = log.consumer();
    let link = Link::new(consumer.clone());
    let context = world.context("orders");
    let windows = Window::new(&context, link.partition(consumer.assign(0))).count(2);
    let windows = Window::new(&context, windows).count(8);
    let sizes = Mutex::new(Vec::new());
    let drain = fan_in(&context, [windows], async |window: Vec<Vec<LogRecord>>, _| {
        sizes.lock().unwrap().push(window.iter().map(Vec::len).sum::<usize>());
        Ok::<_, BoxError>(())
    });
    let report = simulation.run(drain).unwrap().unwrap();
    assert_eq!((report.accepted(), log.committed(0)), (5, 5));
    assert_eq!(sizes.into_inner().unwrap().iter().sum::<usize>(), 5);
}

// Rules 2.10, 7.21
#[test]
fn a_source_that_somebody_has_kept_does_not_keep_the_next_drain_from_being_idle() {
    let simulation = Simulation::new(1);
    let world = simulation.world();
    let log = ScriptedLog::new(world.clock().clone()).endless().partition(0, 3).partition(1, 3);
    let consumer = log.consumer();
    let link = Link::new(consumer.clone());
    let (first, second) = (consumer.assign(0), consumer.assign(1));
    let kept = link.partition(first);
    let (live, incoming) = channels::live();
    let own = live.add(link.partition(first)).unwrap();
    let _other = live.add(link.partition(second)).unwrap();
    let clock = world.clock().clone();
    simulation
        .spawn("operator", async move {
            clock.sleep_until(Tick::ZERO + SECOND).await;
            drop(own.remove().await);
            drop(live);
        })
        .forget();
    let context = world.context("orders");
    let drain = fan_in(&context, [], async |_: LogRecord, step: StepContext| {
        watershed::timers::delay(&step, SECOND).await
    });
    let report = simulation.run(drain.incoming(incoming).until_idle()).unwrap().unwrap();
    assert!(report.accepted() >= 4, "{report:?}");
    assert_eq!(log.committed(1), 3);
    drop(kept);
}
