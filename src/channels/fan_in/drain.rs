//! The future over all lanes.
//!
//! Between two turns it looks for a reason to end: a failure in the baton, its token, its
//! deadline. Once there is one, no further message is taken, the handlers' token is cancelled, and
//! what is in flight is polled on until it is done or the grace has passed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::stream::{Empty, SelectAll, Stream};

use super::super::source::Source;
use super::FanIn;
use super::baton::{Baton, MESSAGES_PER_POLL, Shared};
use super::lane::Lane;
use super::part::{Seat, destructor_panicked};
use super::report::{FailedMessage, FanInReport, SourceReport};
use super::settings::Commit;
use crate::cancellation::{CancellationSource, CancellationToken};
use crate::clock::{Sleep, Tick};
use crate::context::StepContext;
use crate::diagnostics::COUNTERS;
use crate::diagnostics::trace::DrainSpan;
use crate::error::{Error, ErrorCode};
use crate::limits::Limits;
use crate::lock::Lock;
use crate::origin::SourceName;
use crate::outcome::HandlerOutput;
use crate::panics;

/// Sources that one poll takes in before it goes on with those it has.
const SOURCES_PER_POLL: usize = 64;

/// Handles on one source, where a drain may handle more messages of it at once than this.
const HANDLES_PER_SOURCE: usize = 1 << 14;

/// The future of a drain, see [`fan_in`](crate::fan_in). It is `Send` when its sources, its
/// handler and the handler's futures are, and `Unpin` whatever they are.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::future::IntoFuture;
/// use futures::stream;
/// use watershed::{BoxError, StepContext, fan_in};
///
/// let context = StepContext::new("drain");
/// let drain = fan_in(&context, [stream::iter([1])], |_, _| async { Ok::<_, BoxError>(()) });
/// let mut future = drain.into_future();
/// assert_eq!((&mut future).await?.handled(), 1);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a drain does nothing unless it is awaited"]
pub struct FanInFuture<S, H, F, D, N = Empty<S>>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    D: FnMut(FailedMessage),
    N: Stream<Item = S>,
{
    waiting: Option<Box<FanIn<S, H, D, N>>>,
    running: Option<Running<S, H, F, D, N>>,
}

type Lanes<S, H, F, D> = SelectAll<Pin<Box<Lane<S, H, F, D>>>>;

/// A drain between its first poll and its result.
struct Running<S, H, F, D, N>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    D: FnMut(FailedMessage),
    N: Stream<Item = S>,
{
    lanes: Lanes<S, H, F, D>,
    /// Where further sources come from, until it has ended.
    incoming: Option<Pin<Box<N>>>,
    shared: Arc<Shared<H, D>>,
    /// What ends the drain from outside.
    limits: Limits,
    handlers: CancellationSource,
    started: Tick,
    span: DrainSpan,
    /// Why the drain ends early, and how long it still waits.
    cause: Option<Error>,
    grace: Option<Sleep>,
    drained: bool,
}

/// What the turns since the last look have left in the baton.
#[derive(Default)]
struct News {
    failure: Option<Error>,
    /// The budget is: the executor gets its thread back before there is another one.
    spent: bool,
}

impl News {
    fn read<H, D>(baton: &mut Baton<H, D>) -> Self {
        // Those after the cause come with it, at the end.
        let fresh = !baton.stopping && !baton.failures.is_empty();
        let failure = fresh.then(|| baton.failures.remove(0));
        Self { failure, spent: baton.budget == 0 }
    }
}

impl<S, H, F, D, N> FanInFuture<S, H, F, D, N>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    D: FnMut(FailedMessage),
    N: Stream<Item = S>,
{
    pub(super) fn new(drain: FanIn<S, H, D, N>) -> Self {
        Self { waiting: Some(Box::new(drain)), running: None }
    }
}

impl<S, H, F, D, N> Future for FanInFuture<S, H, F, D, N>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    D: FnMut(FailedMessage),
    N: Stream<Item = S>,
{
    type Output = Result<FanInReport, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // What may panic here outside a lane's turn is the clock, or the naming of a source.
        let polled = panics::contain(|| {
            if let Some(drain) = this.waiting.take() {
                this.running = Some(Running::start(*drain));
            }
            let running = this.running.as_mut()?;
            let span = running.span.clone();
            Some(span.in_scope(|| running.poll(cx)))
        });
        let result = match polled {
            Ok(Some(Poll::Pending)) => return Poll::Pending,
            Ok(Some(Poll::Ready(result))) => result,
            Ok(None) => Err(Error::new(ErrorCode::Unspecified, "the drain had ended already")),
            Err(message) => Err(Error::panic("the clock or a source", &message)),
        };
        let running = this.running.take();
        Poll::Ready(match running {
            Some(running) => running.finish(result),
            None => result.map(|()| FanInReport::default()),
        })
    }
}

impl<S, H, F, D, N> Running<S, H, F, D, N>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    D: FnMut(FailedMessage),
    N: Stream<Item = S>,
{
    fn start(drain: FanIn<S, H, D, N>) -> Self {
        static OWNERS: AtomicU64 = AtomicU64::new(1);
        COUNTERS.drains_started.add(1);
        let FanIn { context, sources, handler, dead_letter, incoming, settings } = drain;
        let clock = Arc::clone(context.clock());
        let started = clock.now();
        let handlers = CancellationSource::new();
        let outer = [context.cancellation().clone(), settings.cancellation.clone()];
        let outer = CancellationToken::linked(outer);
        let token = CancellationToken::linked([outer.clone(), handlers.token()]);
        let limits = Limits::new(&clock, outer, settings.timeout);
        let commits = settings.commit == Commit::Pipeline;
        let owner = if commits { OWNERS.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let mut baton = Box::new(Baton::new(handler, dead_letter, settings.concurrency));
        let span = DrainSpan::new(context.name());
        let (bounds, fresh) = (limits.bounds().clone(), AtomicBool::new(true));
        let slot = Lock::new(None);
        let shared = Arc::new(Shared { context, owner, settings, token, bounds, fresh, slot });
        let mut running = Self {
            span,
            limits,
            lanes: SelectAll::new(),
            incoming: Some(Box::pin(incoming)),
            shared,
            handlers,
            started,
            cause: None,
            grace: None,
            drained: false,
        };
        for source in sources {
            running.add_source(&mut baton, source);
        }
        running.shared.put(baton);
        running
    }

    /// Makes the lanes of a source: one, or as many as there can be handles on it.
    fn add_source(&mut self, baton: &mut Baton<H, D>, source: S) {
        let settings = &self.shared.settings;
        let name = SourceName::new(source.name(), baton.reports.len());
        let unit = settings.quantum.get().min(MESSAGES_PER_POLL);
        let weight = usize::try_from(source.weight().get()).unwrap_or(usize::MAX);
        let (turn, priority) = (unit.saturating_mul(weight), source.priority());
        baton.urgency.add_level(priority);
        baton.reports.push(SourceReport { name: name.clone(), handled: 0, rolled_back: 0 });
        let most = settings.per_source.unwrap_or(settings.concurrency).min(settings.concurrency);
        let most = most.get().min(HANDLES_PER_SOURCE);
        let others = std::iter::repeat_with(|| source.another_handle()).take(most - 1);
        let others: Vec<_> = others.map_while(|other| other).collect();
        // The turn is the source's, however many handles there are on it.
        let turn = (turn / (others.len() + 1)).max(1);
        for source in others.into_iter().chain([source]) {
            let seat = Seat { number: baton.permits.add_lane(), turn, priority };
            self.lanes.push(Lane::new(&self.shared, name.clone(), seat, source));
        }
    }

    /// Takes in sources that have come since the last poll.
    fn accept(&mut self, cx: &mut Context<'_>) {
        for _ in 0..SOURCES_PER_POLL {
            let Some(incoming) = &mut self.incoming else { return };
            match incoming.as_mut().poll_next(cx) {
                Poll::Ready(Some(source)) => {
                    let Some(mut baton) = self.shared.take() else { return };
                    self.add_source(&mut baton, source);
                    self.shared.put(baton);
                }
                Poll::Ready(None) => self.incoming = None,
                Poll::Pending => return,
            }
        }
        cx.waker().wake_by_ref();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.cause.is_none() {
            self.accept(cx);
        }
        self.shared.fresh.store(true, Ordering::Relaxed);
        let mut news = News::default();
        let mut waiting = false;
        loop {
            if self.cause.is_none() {
                let waits = waiting || news.spent;
                self.cause = news.failure.take().or_else(|| self.poll_exceeded(waits, cx));
                if self.cause.is_some() {
                    self.begin_to_stop()?;
                }
            }
            if let Some(cause) = &self.cause {
                let grace = self.grace.as_mut();
                if self.shared.borrow(|baton| baton.in_flight == 0)?
                    || grace.is_none_or(|grace| grace.as_mut().poll(cx).is_ready())
                {
                    return Poll::Ready(Err(cause.clone()));
                }
            } else if self.drained {
                return Poll::Ready(Ok(()));
            }
            if waiting {
                return Poll::Pending;
            }
            if news.spent {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match Pin::new(&mut self.lanes).poll_next(cx) {
                Poll::Ready(Some(())) => news = self.shared.borrow(News::read)?,
                Poll::Ready(None) if self.incoming.is_none() => self.drained = true,
                // Where all sources have ended, others may come.
                Poll::Ready(None) | Poll::Pending => waiting = true,
            }
        }
    }

    /// A reason outside of the lanes to end. A drain that is about to give its thread back also
    /// waits for one.
    fn poll_exceeded(&mut self, waits: bool, cx: &mut Context<'_>) -> Option<Error> {
        let exceeded = if waits {
            match self.limits.poll_exceeded(cx) {
                Poll::Ready(exceeded) => Some(exceeded),
                Poll::Pending => None,
            }
        } else {
            self.limits.exceeded()
        };
        exceeded.map(|exceeded| exceeded.into_error("the drain"))
    }

    fn begin_to_stop(&mut self) -> Result<(), Error> {
        let in_flight = self.shared.borrow(|baton| {
            baton.stopping = true;
            baton.in_flight
        })?;
        self.handlers.cancel();
        if in_flight > 0 {
            let clock = self.shared.context.clock();
            self.grace = Some(clock.sleep_until(clock.now() + self.shared.settings.grace));
        }
        Ok(())
    }

    /// Drops what is left, commits or gathers the errors, and counts the result.
    fn finish(mut self, mut result: Result<(), Error>) -> Result<FanInReport, Error> {
        self.lanes.clear();
        let elapsed = panics::contain(|| self.shared.context.clock().now().since(self.started));
        let elapsed = elapsed.unwrap_or_default();
        let mut related = Vec::new();
        let mut report = FanInReport { elapsed, sources: Vec::new() };
        let mut dropped = 0;
        if let Some(mut baton) = self.shared.take() {
            baton.tally.flush();
            related = std::mem::take(&mut baton.failures);
            report.sources = std::mem::take(&mut baton.reports);
            dropped = baton.dropped;
            panics::drop_contained(|| drop(baton));
        }
        if let Err(message) = panics::contain(|| self.incoming = None) {
            related.push(Error::panic("a destructor", &message));
        }
        panics::drop_contained(|| drop(self.limits));
        panics::drop_contained(|| drop(self.grace));
        if result.is_ok() && self.shared.settings.commit == Commit::Pipeline {
            let (cleared, panicked) = self.shared.scope().commit_owned(self.shared.owner);
            COUNTERS.compensations_cleared.add(cleared as u64);
            if let Some(message) = panicked {
                result = Err(destructor_panicked(&message));
            }
        }
        if result.is_ok() && !related.is_empty() {
            result = Err(related.remove(0));
        }
        COUNTERS.drain_time.record(elapsed);
        self.span.end(result.as_ref().copied());
        let Err(mut error) = result else {
            COUNTERS.drains_succeeded.add(1);
            return Ok(report);
        };
        match error.code() {
            ErrorCode::Timeout if error.origin().is_none() => COUNTERS.drains_timed_out.add(1),
            ErrorCode::Canceled if error.origin().is_none() => COUNTERS.drains_cancelled.add(1),
            _ => COUNTERS.drains_failed.add(1),
        }
        related.sort_by_key(|error| {
            error.origin().map(|origin| (origin.source.index(), origin.message))
        });
        error = error.with_metadata("handled", report.handled());
        // A nested drain may have said how many were dropped there.
        error = error.without_metadata("dropped_handlers");
        if dropped > 0 {
            error = error.with_metadata("dropped_handlers", dropped);
        }
        Err(error.with_related(related))
    }
}

/// Whoever still works for a handler hears that the drain is gone.
impl<S, H, F, D, N> Drop for FanInFuture<S, H, F, D, N>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    D: FnMut(FailedMessage),
    N: Stream<Item = S>,
{
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.handlers.cancel();
            running.lanes.clear();
            if let Some(mut baton) = running.shared.take() {
                baton.tally.flush();
                panics::drop_contained(|| drop(baton));
            }
            panics::drop_contained(|| running.incoming = None);
            panics::drop_contained(|| drop(running.limits));
            panics::drop_contained(|| drop(running.grace));
            COUNTERS.drains_dropped.add(1);
        }
    }
}

impl<S, H, F, D, N> fmt::Debug for FanInFuture<S, H, F, D, N>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    D: FnMut(FailedMessage),
    N: Stream<Item = S>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanInFuture")
            .field("started", &self.waiting.is_none())
            .field("lanes", &self.running.as_ref().map(|running| running.lanes.len()))
            .finish()
    }
}
