//! A log, its consumers and their drains, in a simulation.

use std::cell::Cell;
use std::future::{Future, IntoFuture, poll_fn};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};
use watershed::testing::{LogConsumer, LogRecord, ScriptedLog, Simulation, World};
use watershed::transport::{Link, TransportSource};
use watershed::{
    BoxError, CancellationSource, Clock, CompensationPolicy, Failure, FanInReport, Letter,
    OnFailure, RetryPolicy, StepContext, fan_in,
};

pub type Ended = Result<FanInReport, Failure<FanInReport>>;
pub type Handler =
    Box<dyn FnMut(LogRecord, StepContext) -> BoxFuture<'static, Result<(), BoxError>>>;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub const fn record(partition: u32, offset: u64) -> LogRecord {
    LogRecord { partition, offset }
}

/// In which order a drain handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Serial,
    Unordered,
    /// Every third offset has the same key.
    ByKey,
}

pub const ORDERS: [Order; 3] = [Order::Serial, Order::Unordered, Order::ByKey];

pub struct Scene {
    pub simulation: Simulation,
    pub world: World,
    pub log: ScriptedLog,
}

impl Scene {
    /// Partitions with so many records, numbered from 0.
    pub fn new(seed: u64, partitions: &[u64]) -> Self {
        Self::with(seed, partitions, |log| log)
    }

    pub fn with(
        seed: u64,
        partitions: &[u64],
        options: impl FnOnce(ScriptedLog) -> ScriptedLog,
    ) -> Self {
        let simulation = Simulation::new(seed).with_most_polls(1_000_000);
        let world = simulation.world().clone();
        let log = ScriptedLog::new(world.clock().clone());
        let log = (0..).zip(partitions).fold(log, |log, (at, count)| log.partition(at, *count));
        Self { simulation, world, log: options(log) }
    }

    pub fn run<F: IntoFuture>(&self, future: F) -> F::Output {
        self.simulation.run(future).unwrap()
    }

    /// A consumer with these partitions, as a link and its sources.
    pub fn member(&self, partitions: &[u32]) -> Member {
        let consumer = self.log.consumer();
        let link = Link::new(consumer.clone());
        let sources = partitions
            .iter()
            .map(|partition| link.partition(consumer.assign(*partition)))
            .collect();
        Member { consumer, link, sources }
    }

    /// Works on each record, with pauses before and behind.
    pub fn works(&self) -> Handler {
        self.works_unless(|_, _| false)
    }

    /// The same, and fails in the end where that is said of a record and its attempt.
    pub fn works_unless(
        &self,
        fails: impl Fn(LogRecord, u32) -> bool + Send + Sync + 'static,
    ) -> Handler {
        let (log, world) = (self.log.clone(), self.world.clone());
        let fails = std::sync::Arc::new(fails);
        Box::new(move |record, step| {
            let (log, world, fails) = (log.clone(), world.clone(), fails.clone());
            async move {
                world.pause().await;
                log.apply(&step, record);
                // What undoes it takes its time.
                step.register_compensation_with(world.clone(), |world| async move {
                    world.pause().await;
                });
                world.pause().await;
                if fails(record, step.attempt()) { Err("it fails".into()) } else { Ok(()) }
            }
            .boxed()
        })
    }

    /// Works at once, but for one record that takes so long.
    pub fn works_slowly_on(&self, slow: LogRecord, takes: Duration) -> Handler {
        let (log, clock) = (self.log.clone(), self.world.clock().clone());
        Box::new(move |record, step| {
            let (log, clock) = (log.clone(), clock.clone());
            async move {
                if record == slow {
                    clock.sleep_until(clock.now() + takes).await;
                }
                log.apply(&step, record);
                Ok(())
            }
            .boxed()
        })
    }

    pub async fn sleep(&self, time: Duration) {
        self.world.clock().sleep_until(self.world.clock().now() + time).await;
    }

    /// Undoes what a drain has left on its context.
    pub fn roll_back(&self, context: &StepContext) {
        let rolled = self.run(context.roll_back(&CompensationPolicy::sequential_reverse()));
        rolled.unwrap();
    }

    /// Another drain, on these partitions and without mishaps, handles what is left.
    pub fn finish(&self, partitions: &[u32]) -> FanInReport {
        self.log.calm();
        let member = self.member(partitions);
        let context = self.world.context("the next one");
        let drain = Drain::new(Order::Unordered);
        let stop = drain.shutdown.clone();
        let drain = drain.on(&context, member.sources, self.works());
        let drain = self.simulation.spawn("the next one", drain);
        self.run(self.sleep(ms(60_000)));
        stop.cancel();
        let report = settled(self.run(drain));
        self.log.check().unwrap();
        assert!(self.log.is_drained());
        assert_eq!(self.log.stale(), 0);
        report
    }
}

pub struct Member {
    pub consumer: LogConsumer,
    pub link: Link<LogConsumer>,
    pub sources: Vec<TransportSource<LogConsumer>>,
}

impl Member {
    pub fn linked(self, change: impl FnOnce(Link<LogConsumer>) -> Link<LogConsumer>) -> Self {
        Self { link: change(self.link), ..self }
    }
}

/// The options of a drain.
#[derive(Clone)]
pub struct Drain {
    pub order: Order,
    pub concurrency: usize,
    pub retry: Option<RetryPolicy>,
    /// Where dead letters are noted, and how long that takes.
    pub letters: Option<(ScriptedLog, World)>,
    pub goes_on: bool,
    pub shutdown: CancellationSource,
    pub cancellation: CancellationSource,
    pub finish_within: Option<Duration>,
    pub max_waiting: usize,
    /// Takes in the partitions that are assigned while it runs.
    pub assigned: Option<std::rc::Rc<Link<LogConsumer>>>,
}

impl Drain {
    pub fn new(order: Order) -> Self {
        Self {
            order,
            concurrency: if order == Order::Serial { 2 } else { 4 },
            retry: None,
            letters: None,
            goes_on: false,
            shutdown: CancellationSource::new(),
            cancellation: CancellationSource::new(),
            finish_within: None,
            max_waiting: 1_024,
            assigned: None,
        }
    }

    pub fn retry(self, retry: RetryPolicy) -> Self {
        Self { retry: Some(retry), ..self }
    }

    pub fn letters(self, scene: &Scene) -> Self {
        Self { letters: Some((scene.log.clone(), scene.world.clone())), ..self }
    }

    pub fn concurrency(self, concurrency: usize) -> Self {
        Self { concurrency, ..self }
    }

    pub fn going_on(self) -> Self {
        Self { goes_on: true, ..self }
    }

    pub fn finish_within(self, within: Duration) -> Self {
        Self { finish_within: Some(within), ..self }
    }

    pub fn assigned(self, link: &std::rc::Rc<Link<LogConsumer>>) -> Self {
        Self { assigned: Some(link.clone()), ..self }
    }

    pub fn on(
        &self,
        context: &StepContext,
        sources: Vec<TransportSource<LogConsumer>>,
        handler: Handler,
    ) -> LocalBoxFuture<'static, Ended> {
        let mut drain = fan_in(context, sources, handler)
            .shutdown(self.shutdown.token())
            .cancellation(self.cancellation.token())
            .concurrency(self.concurrency);
        if self.goes_on {
            drain = drain.on_failure(OnFailure::Continue);
        }
        if let Some(within) = self.finish_within {
            drain = drain.finish_within(within);
        }
        if let Some(retry) = &self.retry {
            drain = drain.retry(retry.clone()).max_waiting(self.max_waiting);
        }
        macro_rules! incoming {
            ($drain:expr) => {
                match &self.assigned {
                    Some(link) => $drain.incoming(link.assigned()).into_future().boxed_local(),
                    None => $drain.into_future().boxed_local(),
                }
            };
        }
        macro_rules! lettered {
            ($drain:expr) => {
                match self.letters.clone() {
                    Some((log, world)) => {
                        let drain = $drain.dead_letters(move |letter: Letter<LogRecord>| {
                            let (log, world) = (log.clone(), world.clone());
                            async move {
                                world.pause().await;
                                log.pass(letter.into_message().unwrap());
                            }
                        });
                        incoming!(drain)
                    }
                    None => incoming!($drain),
                }
            };
        }
        match self.order {
            Order::Serial => lettered!(drain),
            Order::Unordered => lettered!(drain.unordered()),
            Order::ByKey => lettered!(drain.ordered_by(|record: &LogRecord| record.offset % 3)),
        }
    }
}

/// The report, in which the sum of rule 7.6 is right.
pub fn checked(ended: &Ended) -> &FanInReport {
    let report = match ended {
        Ok(report) => report,
        Err(failure) => failure.report(),
    };
    let sum = report.accepted()
        + report.released()
        + report.rejected()
        + report.lost()
        + report.unknown()
        + report.abandoned();
    assert_eq!(report.fetched(), sum, "{report:?}");
    report
}

/// The report of a drain that has succeeded.
pub fn settled(ended: Ended) -> FanInReport {
    checked(&ended);
    ended.map_err(|failure| format!("{failure:#}")).unwrap()
}

/// Polls a future, and does something after so many of its polls. Says whether it was done before the
/// end.
pub fn after_polls<'a, F: IntoFuture + 'a>(
    polls: u64,
    future: F,
    act: impl FnOnce() + 'a,
) -> impl Future<Output = (F::Output, bool)> + 'a {
    let mut future = Box::pin(future.into_future());
    let (left, mut act) = (Cell::new(polls), Some(act));
    poll_fn(move |cx| {
        if left.get() == 0 {
            if let Some(act) = act.take() {
                act();
            }
        }
        let polled = future.as_mut().poll(cx);
        left.set(left.get().saturating_sub(1));
        polled.map(|output| (output, act.is_none()))
    })
}

/// Runs a scene for each poll of its drain, until nothing is done before the end any more.
pub fn at_every_poll(mut scene: impl FnMut(u64) -> bool) -> u64 {
    (0..10_000).find(|poll| !scene(*poll)).expect("it ends")
}
