//! Drains until idle (rule 2.10), and transports that are used in a way that they do not have.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use watershed::testing::{LogRecord, ScriptedLog, ScriptedQueue, Simulation};
use watershed::transport::{Able, Fetched, Link, Received, Settled, Transport, Verdict, Want};
use watershed::{
    BoxError, CancellationSource, Clock, Error, ErrorCode, OnFailure, StepContext, fan_in,
};

use crate::shop::{MINUTE, SECOND, run};

/// A table that is asked now and then, and says at once what is there; what came three times is put
/// aside.
#[derive(Default)]
struct Table {
    rows: Mutex<VecDeque<(u32, u32)>>,
    aside: Mutex<Vec<u32>>,
}

impl Transport for Table {
    type Message = u32;
    type Receipt = (u32, u32);

    fn able(&self) -> Able {
        Able::each().counts().redrives()
    }

    async fn fetch(&self, want: Want) -> Fetched<u32, (u32, u32)> {
        let mut rows = self.rows.lock().unwrap();
        let most = want.at_most.min(rows.len());
        Ok(Some(rows.drain(..most).map(|row| Received::new(row.0, row)).collect()))
    }

    async fn settle(&self, batch: Vec<((u32, u32), Verdict)>) -> Vec<Settled> {
        for ((number, deliveries), verdict) in &batch {
            match verdict {
                Verdict::Release { .. } if *deliveries == 3 => {
                    self.aside.lock().unwrap().push(*number);
                }
                Verdict::Release { .. } => {
                    self.rows.lock().unwrap().push_back((*number, deliveries + 1));
                }
                _ => {}
            }
        }
        batch.iter().map(|_| Settled::Confirmed).collect()
    }
}

/// What goes back at once is there again: the table is not empty before it was put aside.
#[test]
fn what_goes_back_is_taken_again_before_the_drain_is_idle() {
    for (seed, sources) in (0..40).zip([1, 2, 3].into_iter().cycle()) {
        let simulation = Simulation::new(seed);
        let link = Link::new(Table::default());
        link.transport().rows.lock().unwrap().extend((0..5).map(|number| (number, 1)));
        let failed = Cell::new(0);
        let context = simulation.world().context("until idle");
        let sources: Vec<_> = (0..sources).map(|_| link.source()).collect();
        let drain = fan_in(&context, sources, async |number, _| {
            simulation.world().pause().await;
            if number == 3 {
                failed.set(failed.get() + 1);
                return Err("it always fails");
            }
            Ok(())
        });
        let drain = drain.on_failure(OnFailure::Continue).until_idle().timeout(60 * MINUTE);
        let report = run(&simulation, drain).unwrap();
        assert_eq!((report.accepted(), failed.get()), (4, 3), "{seed} {report:?}");
        assert_eq!(*link.transport().aside.lock().unwrap(), [3], "{seed}");
    }
}

/// What is to come again in ten minutes is not waited for.
#[test]
fn what_goes_back_with_a_delay_is_left() {
    let simulation = Simulation::new(7);
    let world = simulation.world();
    let queue = ScriptedQueue::new(world).endless();
    queue.push(1);
    let link = Link::new(queue.clone());
    let context = world.context("until idle");
    let drain = fan_in(&context, [link.source()], async |_, _| Err::<(), _>("it always fails"));
    let drain = drain
        .on_failure(OnFailure::Continue)
        .retry(watershed::RetryPolicy::exponential(1, 10 * MINUTE))
        .until_idle();
    let report = run(&simulation, drain).unwrap();
    assert_eq!((report.released(), queue.left().len()), (1, 1), "{report:?}");
    assert!(world.clock().now().since(watershed::Tick::ZERO) < MINUTE);
}

/// Partitions are on their way: a member that has none is not idle, and not for ever awake.
#[test]
fn a_member_without_a_partition_waits_for_one() {
    for seed in 0..20 {
        let simulation = Simulation::new(seed);
        let log = ScriptedLog::new(simulation.world().clock().clone()).partition(0, 3);
        let consumer = log.consumer();
        let link = Link::new(consumer.clone());
        let context = simulation.world().context("a member");
        let drain = fan_in(&context, [], async |record: LogRecord, step: StepContext| {
            log.apply(&step, record);
            Ok::<_, BoxError>(())
        });
        let drain = drain.incoming(link.assigned()).until_idle();
        let clock = simulation.world().clock().clone();
        let assigned = async {
            clock.sleep_until(clock.now() + 60 * MINUTE).await;
            consumer.assign(0);
        };
        let both = futures::future::join(drain.into_future(), assigned);
        let (report, ()) = simulation.run(both).unwrap();
        assert_eq!((report.unwrap().handled(), log.is_drained()), (3, true), "{seed}");
    }
}

/// One that has given its partition up waits for the next one: a group that changes is not empty.
#[test]
fn a_partition_that_is_given_up_is_no_idleness() {
    let simulation = Simulation::new(3);
    let clock = simulation.world().clock().clone();
    let log = ScriptedLog::new(clock.clone()).partition(0, 2).partition(1, 2);
    let consumer = log.consumer();
    let link = Link::new(consumer.clone());
    let context = simulation.world().context("a member");
    let drain = fan_in(&context, [], async |record: LogRecord, step: StepContext| {
        log.apply(&step, record);
        clock.sleep_until(clock.now() + SECOND).await;
        Ok::<_, BoxError>(())
    });
    let drain = drain.incoming(link.assigned()).until_idle();
    let moves = async {
        consumer.assign(0);
        clock.sleep_until(clock.now() + SECOND / 2).await;
        consumer.revoke(0, None).await;
        clock.sleep_until(clock.now() + MINUTE).await;
        consumer.assign(0);
        consumer.assign(1);
    };
    let (report, ()) = simulation.run(futures::future::join(drain.into_future(), moves)).unwrap();
    report.unwrap();
    assert!(log.is_drained());
}

fn fails<T: Transport>(link: &Link<T>, assigned: bool) -> Error {
    let simulation = Simulation::new(1);
    let context = simulation.world().context("misused");
    let drain = fan_in(&context, [], async |_, _| Ok::<_, BoxError>(()));
    let failure = if assigned {
        run(&simulation, drain.incoming(link.assigned()).timeout(MINUTE))
    } else {
        let sources = futures::stream::iter([link.source()]);
        run(&simulation, drain.incoming(sources).timeout(MINUTE))
    };
    failure.unwrap_err().into_error()
}

/// Sources that a transport does not have would be silent for ever.
#[test]
fn sources_that_a_transport_does_not_have_are_told() {
    let simulation = Simulation::new(1);
    let log = ScriptedLog::new(simulation.world().clock().clone()).partition(0, 3);
    let error = fails(&Link::new(log.consumer()), false);
    assert_eq!(error.code(), ErrorCode::Validation);
    assert!(error.to_string().contains("incoming(link.assigned())"), "{error}");
    let error = fails(&Link::new(ScriptedQueue::<u32>::new(simulation.world())), true);
    assert_eq!(error.code(), ErrorCode::Validation);
    assert!(error.to_string().contains("link.source()"), "{error}");
}

/// A transport that can be used once.
struct Once {
    rows: Mutex<Vec<u32>>,
    closed: AtomicBool,
    panics: bool,
}

impl Transport for Once {
    type Message = u32;
    type Receipt = u32;

    fn able(&self) -> Able {
        Able::each()
    }

    fn open(&self) -> Result<(), Error> {
        if !self.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        assert!(!self.panics, "it is closed");
        Err(Error::validation("it is closed"))
    }

    async fn fetch(&self, _: Want) -> Fetched<u32, u32> {
        let row = self.rows.lock().unwrap().pop();
        Ok(row.map(|row| vec![Received::new(row, row)]))
    }

    async fn settle(&self, batch: Vec<(u32, Verdict)>) -> Vec<Settled> {
        batch.iter().map(|_| Settled::Confirmed).collect()
    }

    async fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// A transport that cannot be used again says so to the next drain, which ends with it.
#[test]
fn a_transport_that_cannot_be_used_again_says_so() {
    for panics in [false, true] {
        let simulation = Simulation::new(1);
        let rows = Mutex::new(vec![1, 2]);
        let link = Link::new(Once { rows, closed: AtomicBool::new(false), panics });
        let drain = || {
            let context = simulation.world().context("once");
            let stop = CancellationSource::new();
            let handler = async |_, _| Ok::<_, BoxError>(());
            run(&simulation, fan_in(&context, [link.source()], handler).shutdown(stop.token()))
        };
        assert_eq!(drain().unwrap().accepted(), 2);
        let error = drain().unwrap_err().into_error();
        let code = if panics { ErrorCode::Panic } else { ErrorCode::Validation };
        assert_eq!((error.code(), error.to_string().contains("it is closed")), (code, true));
    }
}
