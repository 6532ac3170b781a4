//! What every transport has to do, tried on a real one.
//!
//! - here: the broker that is tried, and how a drain of it is run and accounted for
//! - `checks`: the checks

mod checks;

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use futures::stream::{self, BoxStream, StreamExt};

use crate::cancellation::CancellationSource;
use crate::drain::{FanInReport, OnFailure, fan_in};
use crate::error::{BoxError, Error};
use crate::lock::Lock;
use crate::step::StepContext;
use crate::transport::{Link, Transport, TransportSource};

/// A broker to try a [`Transport`] on, see [`conformance`]. Its queue or topic is the suite's alone.
pub trait Broker {
    /// The adapter that is tried.
    type Transport: Transport<Message: Clone>;

    /// Connects, as another process would: to the same queue or topic, in the same group.
    ///
    /// # Errors
    ///
    /// Where there is no connection to be had: the suite ends with it.
    fn connect(&self) -> impl Future<Output = Result<Link<Self::Transport>, BoxError>>;

    /// Puts messages with these numbers into the queue or topic, in their order.
    ///
    /// # Errors
    ///
    /// Where that fails: the suite ends with it.
    fn put(&self, numbers: Range<u32>) -> impl Future<Output = Result<(), BoxError>>;

    /// The number of a message that was put.
    fn number(&self, message: &<Self::Transport as Transport>::Message) -> u32;

    /// After which time a message comes again that somebody has taken and not settled.
    fn comes_again_after(&self) -> Duration;
}

/// How many messages each check puts.
const MESSAGES: u32 = 20;

/// Drains a real broker in every way that matters, and says what its adapter gets wrong: handled once,
/// released, rejected, dropped, given back too late, shut down, many at once, and connected again.
/// Returns how many checks there were. Give it a context with the clock that the broker goes by.
///
/// # Errors
///
/// One [related](Error::related) error for each check that failed.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::ops::Range;
/// use std::time::Duration;
/// use watershed::testing::{Broker, ScriptedQueue, Simulation, conformance};
/// use watershed::transport::Link;
/// use watershed::BoxError;
///
/// struct Queue(ScriptedQueue<u32>);
///
/// impl Broker for Queue {
///     type Transport = ScriptedQueue<u32>;
///
///     async fn connect(&self) -> Result<Link<ScriptedQueue<u32>>, BoxError> {
///         Ok(Link::new(self.0.clone()))
///     }
///     async fn put(&self, numbers: Range<u32>) -> Result<(), BoxError> {
///         numbers.for_each(|number| drop(self.0.push(number)));
///         Ok(())
///     }
///     fn number(&self, message: &u32) -> u32 {
///         *message
///     }
///     fn comes_again_after(&self) -> Duration {
///         Duration::from_secs(30)
///     }
/// }
///
/// let simulation = Simulation::new(7);
/// let queue = Queue(ScriptedQueue::new(simulation.world()).endless());
/// let context = simulation.world().context("conformance");
/// assert_eq!(simulation.run(conformance(&context, &queue)).unwrap().unwrap(), 7);
/// # });
/// ```
pub async fn conformance<B: Broker>(context: &StepContext, broker: &B) -> Result<usize, Error> {
    let mut suite = Suite { context, broker, next: 0 };
    let mut failed = Vec::new();
    let checks = [
        ("a message that is handled is accepted, and does not come again", suite.once().await),
        ("a message that failed is released, and comes again", suite.again().await),
        ("a message with a dead letter is rejected, and does not come again", suite.dead().await),
        ("what a dropped drain had comes again", suite.dropped().await),
        ("an old receipt settles nothing", suite.late().await),
        ("a shutdown gives back what was not begun", suite.shut_down().await),
        ("many at once are each handled once", suite.crowd().await),
    ];
    let count = checks.len();
    for (what, result) in checks {
        if let Err(error) = result {
            failed.push(Error::validation(what).with_source(error));
        }
    }
    if failed.is_empty() {
        return Ok(count);
    }
    let text = format!("{} of {count} checks failed", failed.len());
    Err(Error::validation(text).with_related(failed))
}

struct Suite<'a, B> {
    context: &'a StepContext,
    broker: &'a B,
    /// The first number that no check has put.
    next: u32,
}

type Checked = Result<(), BoxError>;

/// What a drain has seen: the numbers that were handled, in their order.
type Seen = Lock<Vec<u32>>;

impl<B: Broker> Suite<'_, B> {
    async fn put(&mut self) -> Result<Range<u32>, BoxError> {
        let numbers = self.next..self.next + MESSAGES;
        self.next = numbers.end;
        self.broker.put(numbers.clone()).await?;
        Ok(numbers)
    }

    /// Handles what there is, on a connection of its own, until there is nothing more.
    async fn drain<F: Future<Output = Result<(), BoxError>>>(
        &self,
        at_once: usize,
        handle: impl Fn(u32, StepContext) -> F,
    ) -> Result<FanInReport, BoxError> {
        let link = self.broker.connect().await?;
        let (sources, incoming) = Self::sources(&link);
        let (quiet, began) = (CancellationSource::new(), AtomicU64::new(0));
        let drain = fan_in(self.context, sources, |message, step| {
            began.fetch_add(1, Ordering::Relaxed);
            handle(self.broker.number(&message), step)
        })
        .incoming(incoming)
        .ordered_by(|message| self.broker.number(message))
        .concurrency(at_once)
        .on_failure(OnFailure::Continue)
        .shutdown(quiet.token())
        .timeout(self.patience());
        let drain = if Self::assigns(&link) { drain } else { drain.until_idle() };
        let report = self.until_quiet(drain.into_future(), &quiet, &began).await?;
        account(&report)?;
        Ok(report)
    }

    /// Whether partitions come when the broker says so.
    fn assigns(link: &Link<B::Transport>) -> bool {
        link.transport().able().assigns
    }

    #[allow(clippy::type_complexity, reason = "the sources that there are, and those that come")]
    fn sources(
        link: &Link<B::Transport>,
    ) -> (Vec<TransportSource<B::Transport>>, BoxStream<'_, TransportSource<B::Transport>>) {
        if Self::assigns(link) {
            (Vec::new(), link.assigned().boxed())
        } else {
            (vec![link.source()], stream::empty().boxed())
        }
    }

    /// Awaits a drain, and shuts it down when no handler has begun for a while: with some of its partitions
    /// here and others on their way, it looks idle.
    async fn until_quiet<R>(
        &self,
        drain: impl Future<Output = R>,
        quiet: &CancellationSource,
        began: &AtomicU64,
    ) -> R {
        let clock = self.context.clock();
        let mut drain = pin!(drain);
        loop {
            let before = began.load(Ordering::Relaxed);
            let look = clock.sleep_until(clock.now() + self.broker.comes_again_after() * 2);
            match select(drain.as_mut(), look).await {
                Either::Left((ended, _)) => return ended,
                Either::Right(_) if began.load(Ordering::Relaxed) == before => {
                    quiet.cancel();
                    return drain.await;
                }
                Either::Right(_) => {}
            }
        }
    }

    fn patience(&self) -> Duration {
        self.broker.comes_again_after() * 8 + Duration::from_secs(60)
    }

    async fn wait_until_it_comes_again(&self) {
        let clock = self.context.clock();
        let until = clock.now() + self.broker.comes_again_after() + Duration::from_millis(10);
        clock.sleep_until(until).await;
    }

    /// Drains until everything of `wanted` was seen here, and says what was seen.
    async fn all_of(
        &self,
        wanted: impl IntoIterator<Item = u32> + Clone,
    ) -> Result<Vec<u32>, BoxError> {
        let seen = Seen::default();
        for _ in 0..4 {
            self.drain(1, |number, _| {
                seen.lock().push(number);
                async { Ok(()) }
            })
            .await?;
            let all: BTreeSet<_> = seen.lock().iter().copied().collect();
            if wanted.clone().into_iter().all(|number| all.contains(&number)) {
                break;
            }
            self.wait_until_it_comes_again().await;
        }
        let seen = std::mem::take(&mut *seen.lock());
        Ok(seen)
    }

    async fn nothing_is_left(&self) -> Checked {
        self.wait_until_it_comes_again().await;
        let left = self.all_of([]).await?;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} came again").into()) }
    }
}

/// Every receipt has one end.
fn account(report: &FanInReport) -> Checked {
    let ends = report.accepted()
        + report.released()
        + report.rejected()
        + report.lost()
        + report.unknown()
        + report.abandoned();
    if ends == report.fetched() {
        return Ok(());
    }
    Err(format!("{} of {} receipts have an end", ends, report.fetched()).into())
}
