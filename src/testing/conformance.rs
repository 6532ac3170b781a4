//! What every transport has to do, tried on a real one.

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::future::{Either, select};
use futures::stream::{self, BoxStream, StreamExt};

use crate::cancellation::CancellationSource;
use crate::drain::{FanInReport, Letter, OnFailure, fan_in};
use crate::error::{BoxError, Error};
use crate::lock::Lock;
use crate::step::StepContext;
use crate::transport::{Link, Transport, TransportSource};
use crate::undo::CompensationPolicy;

/// A broker to try a [`Transport`] on, see [`conformance`]. Its queue or topic is the suite's alone.
pub trait Broker {
    /// The adapter that is tried.
    type Transport: Transport<Message: Clone>;

    /// Whether its sources are the partitions that are
    /// [assigned](crate::transport::Link::assigned). Default: they are not.
    const ASSIGNED: bool = false;

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
        let drain = if B::ASSIGNED { drain } else { drain.until_idle() };
        let report = self.until_quiet(drain.into_future(), &quiet, &began).await?;
        account(&report)?;
        Ok(report)
    }

    #[allow(clippy::type_complexity, reason = "the sources that there are, and those that come")]
    fn sources(
        link: &Link<B::Transport>,
    ) -> (Vec<TransportSource<B::Transport>>, BoxStream<'_, TransportSource<B::Transport>>) {
        if B::ASSIGNED {
            (Vec::new(), link.assigned().boxed())
        } else {
            (vec![link.source()], stream::empty().boxed())
        }
    }

    /// Awaits a drain, and shuts it down when no handler has begun for a while: partitions come when
    /// the broker says so, and until then nothing looks idle but the drain.
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

    async fn once(&mut self) -> Checked {
        let numbers = self.put().await?;
        let mut seen = self.all_of(numbers.clone()).await?;
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }

    async fn again(&mut self) -> Checked {
        let numbers = self.put().await?;
        let (seen, failed) = (Seen::default(), Lock::new(BTreeSet::new()));
        for _ in 0..4 {
            self.drain(1, |number, _| {
                // Not all in a row: a source whose handlers fail again and again is slowed down.
                let first = number % 2 == 0 && failed.lock().insert(number);
                if !first {
                    seen.lock().push(number);
                }
                async move { if first { Err("the first time".into()) } else { Ok(()) } }
            })
            .await?;
            if seen.lock().len() >= numbers.len() {
                break;
            }
        }
        let mut seen = std::mem::take(&mut *seen.lock());
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }

    async fn dead(&mut self) -> Checked {
        let numbers = self.put().await?;
        let link = self.broker.connect().await?;
        let (sources, incoming) = Self::sources(&link);
        let letters = Seen::default();
        let (quiet, began) = (CancellationSource::new(), AtomicU64::new(0));
        let drain = fan_in(self.context, sources, async |message, _| {
            began.fetch_add(1, Ordering::Relaxed);
            if self.broker.number(&message) % 2 == 0 { Err("never") } else { Ok(()) }
        })
        .incoming(incoming)
        .dead_letters(async |letter: Letter<<B::Transport as Transport>::Message>| {
            letters.lock().extend(letter.message().map(|message| self.broker.number(message)));
        })
        .shutdown(quiet.token())
        .timeout(self.patience());
        let drain = if B::ASSIGNED { drain } else { drain.until_idle() };
        let report = self.until_quiet(drain.into_future(), &quiet, &began).await?;
        account(&report)?;
        let mut letters = std::mem::take(&mut *letters.lock());
        letters.sort_unstable();
        let even: Vec<_> = numbers.filter(|number| number % 2 == 0).collect();
        if letters != even {
            return Err(format!("{letters:?} instead of {even:?}").into());
        }
        self.nothing_is_left().await
    }

    /// Drains until a handler has begun, and drops everything there; what was staged is on `context`.
    async fn drop_in_the_middle(&self, context: &StepContext) -> Checked {
        let link = self.broker.connect().await?;
        let (sources, incoming) = Self::sources(&link);
        let begun = CancellationSource::new();
        let (token, mine) = (begun.token(), context.clone());
        let mut drain = fan_in(&mine, sources, |_, _| {
            begun.cancel();
            std::future::pending::<Result<(), BoxError>>()
        })
        .incoming(incoming)
        .timeout(self.patience())
        .into_future();
        let mut begun = pin!(token.cancelled());
        std::future::poll_fn(|cx| {
            let ended = Pin::new(&mut drain).poll(cx).map(|result| {
                Err(BoxError::from(format!("the drain ended: {:?}", result.map(|it| it.taken()))))
            });
            if ended.is_ready() { ended } else { begun.as_mut().poll(cx).map(|()| Ok(())) }
        })
        .await?;
        drop(drain);
        Ok(())
    }

    async fn dropped(&mut self) -> Checked {
        let numbers = self.put().await?;
        let context = self.context.clone();
        self.drop_in_the_middle(&context).await?;
        // Nobody undoes it: it comes again by itself.
        context.scope().clear();
        self.wait_until_it_comes_again().await;
        let mut seen = self.all_of(numbers.clone()).await?;
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }

    async fn late(&mut self) -> Checked {
        let numbers = self.put().await?;
        let context = self.context.clone();
        self.drop_in_the_middle(&context).await?;
        self.wait_until_it_comes_again().await;
        // The release of the drain that was dropped comes when somebody else has accepted; where
        // partitions are assigned, they are with the first one until it is gone.
        let seen = if B::ASSIGNED { Ok(Vec::new()) } else { self.all_of(numbers.clone()).await };
        context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
        let mut seen = seen?;
        if B::ASSIGNED {
            seen = self.all_of(numbers.clone()).await?;
        }
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }

    async fn shut_down(&mut self) -> Checked {
        let numbers = self.put().await?;
        let link = self.broker.connect().await?;
        let (sources, incoming) = Self::sources(&link);
        let (stop, handled) = (CancellationSource::new(), Seen::default());
        let report = fan_in(self.context, sources, |message, _| {
            stop.cancel();
            handled.lock().push(self.broker.number(&message));
            async { Ok::<_, BoxError>(()) }
        })
        .incoming(incoming)
        .shutdown(stop.token())
        .timeout(self.patience())
        .await?;
        account(&report)?;
        let mut seen = std::mem::take(&mut *handled.lock());
        let rest: Vec<_> = numbers.clone().filter(|number| !seen.contains(number)).collect();
        seen.extend(self.all_of(rest).await?);
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }

    async fn crowd(&mut self) -> Checked {
        let (first, second, third) = (self.put().await?, self.put().await?, self.put().await?);
        let numbers = first.start..third.end;
        debug_assert_eq!(second.start, first.end);
        let seen = Seen::default();
        self.drain(16, |number, _| {
            seen.lock().push(number);
            yield_once()
        })
        .await?;
        let mut seen = std::mem::take(&mut *seen.lock());
        seen.sort_unstable();
        same(&seen, numbers)?;
        self.nothing_is_left().await
    }
}

/// A handler that waits once.
async fn yield_once() -> Result<(), BoxError> {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    Ok(())
}

fn same(seen: &[u32], numbers: Range<u32>) -> Checked {
    if seen.iter().copied().eq(numbers.clone()) {
        return Ok(());
    }
    Err(format!("{seen:?} instead of {numbers:?}").into())
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
