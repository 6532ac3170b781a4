//! Many sources, one handler.
//!
//! [`fan_in`] merges *lanes* by `select_all`. A lane owns one source and the handler future of its
//! message in flight: polling it drives that future, and when it is done takes the next message,
//! up to a quantum, before the next lane has its turn. So nothing is taken before its handler can
//! start, order within a source comes by itself, and the cost of the merge is paid once a turn.
//!
//! - `settings`: the options; `report`: what comes out
//! - `permits`: who may run a handler; `urgency`: who goes first
//! - `baton`: what lanes share, handed from one to the next
//! - `message_step`: the context of messages, lent to handlers
//! - `part`: a lane's place in the drain, and how a message begins and ends
//! - `lane`: one source and its message in flight
//! - `drain`: the future over all lanes: deadlines, cancellation, the end

mod baton;
mod drain;
mod lane;
mod message_step;
mod part;
mod permits;
#[cfg(all(test, watershed_loom))]
mod proof;
mod report;
mod settings;
mod urgency;

pub use drain::FanInFuture;
pub use report::{FailedMessage, FanInReport, SourceReport};
pub use settings::{Commit, OnFailure};

use std::fmt;
use std::future::{Future, IntoFuture};
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures::stream::{Empty, Stream};

use self::settings::Settings;
use super::ordered::Ordered;
use super::source::Source;
use crate::cancellation::CancellationToken;
use crate::compensation::CompensationPolicy;
use crate::context::StepContext;
use crate::error::Error;
use crate::outcome::HandlerOutput;

/// Drains every source through one async handler, and stages what the handler registers on the
/// scope of `context`.
///
/// The handler is called once a message, with the message and a [`StepContext`] of its own. A
/// message is taken from its source only when its handler is about to be called. Within one source
/// messages are handled one after another; across sources at most
/// [`concurrency`](FanIn::concurrency) handlers run at once.
///
/// The drain ends when all sources have ended, or with the first handler error, panic or source
/// fault, its timeout, or its cancellation: then the handlers' token is cancelled, the handlers in
/// flight are awaited for up to [`grace`](FanIn::grace), and the error is returned with all
/// further errors attached. The compensations of every message, finished or not, are then on the
/// scope of `context`, and [`run_compensation`](crate::run_compensation) undoes them in reverse.
///
/// # Errors
///
/// - the handler's own error under [`ErrorCode::Handler`](crate::ErrorCode::Handler)
///   ([`Error::downcast_ref`] gives it back), or the [`Error`] it returned
/// - [`ErrorCode::Panic`](crate::ErrorCode::Panic), [`ErrorCode::Source`](crate::ErrorCode::Source)
/// - [`ErrorCode::Timeout`](crate::ErrorCode::Timeout) with its `duration` as metadata
/// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled)
///
/// # Cancel safety
///
/// Dropping the future drops the handlers in flight where they are. Every compensation they have
/// registered is staged on the context's scope, and every message whose handler was not called is
/// still in its source.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{
///     BoxError, CancellationToken, CompensationPolicy, StepContext, fan_in, run_compensation,
/// };
///
/// let (sender, orders) = async_channel::unbounded();
/// for order in ["a", "b", "broken"] {
///     sender.try_send(order)?;
/// }
/// drop(sender);
///
/// let context = StepContext::new("orders");
/// let outcome = fan_in(&context, [orders], |order, step| async move {
///     step.register_compensation(move || async move { println!("undo {order}") });
///     if order == "broken" {
///         return Err("no such order");
///     }
///     Ok(())
/// })
/// .await;
///
/// if outcome.is_err() {
///     let policy = CompensationPolicy::sequential_reverse();
///     let report = run_compensation(&policy, context.scope(), CancellationToken::never()).await?;
///     assert_eq!(report.succeeded(), 3);
/// }
/// # Ok::<_, BoxError>(()) }).unwrap();
/// ```
pub fn fan_in<I, H, F>(context: &StepContext, readers: I, handler: H) -> FanIn<I::Item, H>
where
    I: IntoIterator<Item: Source>,
    H: FnMut(<I::Item as Source>::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
{
    FanIn {
        context: context.clone(),
        sources: readers.into_iter().collect(),
        handler,
        dead_letter: drop,
        incoming: futures::stream::empty(),
        settings: Settings::default(),
    }
}

/// A drain that has not started, made by [`fan_in`]. Awaiting it starts it.
///
/// | option | default |
/// | --- | --- |
/// | [`concurrency`](FanIn::concurrency) | 1 |
/// | [`ordered_by`](FanIn::ordered_by) | none: one message of a source at a time |
/// | [`per_source_concurrency`](FanIn::per_source_concurrency) | that of the whole drain |
/// | [`incoming`](FanIn::incoming) | no further sources |
/// | [`quantum`](FanIn::quantum) | 64 messages |
/// | [`timeout`](FanIn::timeout), [`message_timeout`](FanIn::message_timeout) | never |
/// | [`grace`](FanIn::grace) | 5 seconds |
/// | [`cancellation`](FanIn::cancellation) | that of the context alone |
/// | [`commit`](FanIn::commit) | [`Commit::Pipeline`] |
/// | [`on_failure`](FanIn::on_failure) | [`OnFailure::Abort`] |
/// | [`message_compensation`](FanIn::message_compensation) | sequential, in reverse, one attempt |
///
/// ```
/// # futures::executor::block_on(async {
/// use std::{num::NonZeroUsize, time::Duration};
/// use futures::stream;
/// use watershed::{BoxError, Commit, StepContext, fan_in};
///
/// let context = StepContext::new("orders");
/// let four = NonZeroUsize::new(4).unwrap();
/// let report = fan_in(&context, [stream::iter(0..9)], |_, _| async { Ok::<_, BoxError>(()) })
///     .concurrency(four)
///     .timeout(Duration::from_secs(60))
///     .commit(Commit::Message)
///     .await?;
/// assert_eq!(report.handled(), 9);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a drain does nothing unless it is awaited"]
pub struct FanIn<S, H, D = fn(FailedMessage), N = Empty<S>> {
    context: StepContext,
    sources: Vec<S>,
    handler: H,
    dead_letter: D,
    incoming: N,
    settings: Settings,
}

impl<S, H, D, N> FanIn<S, H, D, N> {
    /// How many handlers may run at once: each on another source, or, with
    /// [`ordered_by`](FanIn::ordered_by), on another key. Default: 1, a total order.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    /// use std::num::NonZeroUsize;
    /// # let context = StepContext::new("drain");
    /// let report = fan_in(&context, [stream::iter(0..3)], |_, _| async { Ok::<_, BoxError>(()) })
    ///     .concurrency(NonZeroUsize::MIN.saturating_add(7))
    ///     .await?;
    /// assert_eq!(report.handled(), 3);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn concurrency(mut self, handlers: NonZeroUsize) -> Self {
        self.settings.concurrency = handlers;
        self
    }

    /// How many messages of one source may be handled before every other ready source has its
    /// turn, at most 256. A turn is shorter when a handler had to wait and another source waits for
    /// a permit. Where [`ordered_by`](FanIn::ordered_by) lets messages of one source run
    /// concurrently, they share its turn, and each has one message at least. Default: 64.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    /// use std::num::NonZeroUsize;
    /// # let context = StepContext::new("drain");
    /// let report = fan_in(&context, [stream::iter(0..3)], |_, _| async { Ok::<_, BoxError>(()) })
    ///     .quantum(NonZeroUsize::MIN)
    ///     .await?;
    /// assert_eq!(report.handled(), 3);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn quantum(mut self, messages: NonZeroUsize) -> Self {
        self.settings.quantum = messages;
        self
    }

    /// One absolute deadline for the whole drain, counted from its first poll by the context's
    /// clock. Zero times out before a message is taken; [`Duration::MAX`] never does.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    /// use std::time::Duration;
    /// # let context = StepContext::new("drain");
    /// let error = fan_in(&context, [stream::repeat(7)], |_, _| async { Ok::<_, BoxError>(()) })
    ///     .timeout(Duration::ZERO)
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.code(), watershed::ErrorCode::Timeout);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// A deadline for each message, counted from the call of its handler by the context's clock.
    /// A handler that is not done by then is dropped, and the message has failed.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    /// use std::time::Duration;
    /// # let context = StepContext::new("drain");
    /// let error = fan_in(&context, [stream::iter(0..3)], |_, _| futures::future::pending::<Result<(), BoxError>>())
    ///     .message_timeout(Duration::from_millis(1))
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.message_number(), Some(1));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn message_timeout(mut self, timeout: Duration) -> Self {
        self.settings.message_timeout = Some(timeout);
        self
    }

    /// How long the handlers in flight are awaited when the drain has to end early; those that are
    /// not done by then are dropped, and the error says how many. Default: 5 seconds.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    /// use std::time::Duration;
    /// # let context = StepContext::new("drain");
    /// let report = fan_in(&context, [stream::iter(0..3)], |_, _| async { Ok::<_, BoxError>(()) })
    ///     .grace(Duration::from_secs(30))
    ///     .await?;
    /// assert_eq!(report.handled(), 3);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// A token that ends the drain, beside that of the context.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    /// # let context = StepContext::new("drain");
    /// let stop = watershed::CancellationSource::new();
    /// stop.cancel();
    /// let error = fan_in(&context, [stream::repeat(7)], |_, _| async { Ok::<_, BoxError>(()) })
    ///     .cancellation(stop.token())
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.code(), watershed::ErrorCode::Canceled);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.settings.cancellation = token;
        self
    }

    /// What success does to the compensations. Default: [`Commit::Pipeline`].
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    /// # let context = StepContext::new("drain");
    /// let report = fan_in(&context, [stream::iter(0..3)], |_, _| async { Ok::<_, BoxError>(()) })
    ///     .commit(watershed::Commit::Message)
    ///     .await?;
    /// assert_eq!(report.handled(), 3);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn commit(mut self, commit: Commit) -> Self {
        self.settings.commit = commit;
        self
    }

    /// What the failure of a message does. Default: [`OnFailure::Abort`].
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{StepContext, fan_in};
    /// # let context = StepContext::new("drain");
    /// let report = fan_in(&context, [stream::iter(["1", "x"])], |text, _| async move {
    ///     text.parse::<u32>().map(drop)
    /// })
    /// .on_failure(watershed::OnFailure::RollBackMessage)
    /// .await?;
    /// assert_eq!((report.handled(), report.rolled_back()), (1, 1));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.settings.on_failure = on_failure;
        self
    }

    /// How a message is rolled back alone under [`OnFailure::RollBackMessage`]. Default:
    /// [`CompensationPolicy::sequential_reverse`] by the context's clock.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    /// # let context = StepContext::new("drain");
    /// let report = fan_in(&context, [stream::iter(0..3)], |_, _| async { Ok::<_, BoxError>(()) })
    ///     .message_compensation(watershed::CompensationPolicy::parallel())
    ///     .await?;
    /// assert_eq!(report.handled(), 3);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn message_compensation(mut self, policy: CompensationPolicy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Who is told of a message that was rolled back alone under [`OnFailure::RollBackMessage`].
    /// Default: nobody; the report counts them. A panic of the callback ends the drain.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{StepContext, fan_in};
    /// # let context = StepContext::new("drain");
    /// let mut failed = 0;
    /// fan_in(&context, [stream::iter(["1", "x"])], |text, _| async move {
    ///     text.parse::<u32>().map(drop)
    /// })
    /// .on_failure(watershed::OnFailure::RollBackMessage)
    /// .dead_letter(|_| failed += 1)
    /// .await?;
    /// assert_eq!(failed, 1);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn dead_letter<C: FnMut(FailedMessage)>(self, callback: C) -> FanIn<S, H, C, N> {
        let Self { context, sources, handler, incoming, settings, .. } = self;
        FanIn { context, sources, handler, dead_letter: callback, incoming, settings }
    }

    /// Takes in further sources while the drain runs, those that `sources` yields: connections that
    /// are accepted, partitions that are assigned, or what [`channels::live`](crate::channels::live)
    /// hands over. The drain goes on until `sources` has ended as well. Default: none.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    /// # let context = StepContext::new("drain");
    /// let connections = stream::iter([stream::iter(0..3), stream::iter(3..5)]);
    /// let report = fan_in(&context, [], |_, _| async { Ok::<_, BoxError>(()) })
    ///     .incoming(connections)
    ///     .await?;
    /// assert_eq!((report.handled(), report.sources().len()), (5, 2));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn incoming<M: Stream<Item = S>>(self, sources: M) -> FanIn<S, H, D, M> {
        let Self { context, sources: first, handler, dead_letter, settings, .. } = self;
        FanIn { context, sources: first, handler, dead_letter, incoming: sources, settings }
    }

    /// How many messages of one source may be handled at once, where
    /// [`ordered_by`](FanIn::ordered_by) tells which of them belong together; other sources are
    /// handled one message after another. At most 16,384. Default: as many as
    /// [`concurrency`](FanIn::concurrency) allows over all sources.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::num::NonZeroUsize;
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    /// # let context = StepContext::new("drain");
    /// let report = fan_in(&context, [stream::iter(0..9)], |_, _| async { Ok::<_, BoxError>(()) })
    ///     .concurrency(NonZeroUsize::new(16).unwrap())
    ///     .per_source_concurrency(NonZeroUsize::new(4).unwrap())
    ///     .ordered_by(|number| number % 3)
    ///     .await?;
    /// assert_eq!(report.handled(), 9);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn per_source_concurrency(mut self, handlers: NonZeroUsize) -> Self {
        self.settings.per_source = Some(handlers);
        self
    }
}

impl<S: Source, H, D> FanIn<S, H, D> {
    /// Handles messages of one source concurrently, as long as `key` tells them apart: those with
    /// the same key are handled one after another, in their order.
    ///
    /// A message whose key is still being handled is taken from its source and waits; nothing more
    /// is taken from that source meanwhile. If the drain ends before its turn comes, it goes to
    /// [`put_back`](FanIn::put_back): at most one message a source. So does a message whose key
    /// panics, which ends the drain. A key is busy until its message is done with, the rollback of
    /// [`OnFailure::RollBackMessage`] included.
    ///
    /// It takes effect with a [`concurrency`](FanIn::concurrency) above 1.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::num::NonZeroUsize;
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    /// # let context = StepContext::new("drain");
    /// let payments = stream::iter([("ann", 1), ("bob", 2), ("ann", 3)]);
    /// let report = fan_in(&context, [payments], |_, _| async { Ok::<_, BoxError>(()) })
    ///     .concurrency(NonZeroUsize::new(2).unwrap())
    ///     .ordered_by(|(account, _)| *account)
    ///     .await?;
    /// assert_eq!(report.handled(), 3);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn ordered_by<K, C>(self, key: C) -> FanIn<Ordered<S, K, C>, H, D>
    where
        K: Eq + Hash,
        C: FnMut(&S::Message) -> K + Clone,
    {
        let Self { context, sources, handler, dead_letter, settings, .. } = self;
        let sources = sources.into_iter().map(|source| Ordered::new(source, key.clone())).collect();
        let incoming = futures::stream::empty();
        FanIn { context, sources, handler, dead_letter, incoming, settings }
    }
}

impl<S, K, C, H, D, N> FanIn<Ordered<S, K, C>, H, D, N>
where
    S: Source,
    K: Eq + Hash,
    C: FnMut(&S::Message) -> K,
{
    /// Who is given a message that was taken and not handled: it waited for its key when the drain
    /// ended, or was dropped, or its key panicked. A panic of the callback is counted and goes no
    /// further. Default: nobody, the message is dropped.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::sync::mpsc;
    /// use std::num::NonZeroUsize;
    /// use futures::stream;
    /// use watershed::{StepContext, fan_in};
    /// # let context = StepContext::new("drain");
    /// let (unhandled, left) = mpsc::channel();
    /// let drain = fan_in(&context, [stream::iter(["a", "a"])], |_, _| async {
    ///     futures::future::pending::<()>().await;
    ///     Err::<(), _>("never")
    /// });
    /// let drain = drain
    ///     .concurrency(NonZeroUsize::new(2).unwrap())
    ///     .ordered_by(|text| *text)
    ///     .put_back(move |text| drop(unhandled.send(text)));
    /// let mut drain = drain.into_future();
    /// assert!(futures::poll!(&mut drain).is_pending());
    /// drop(drain);
    /// assert_eq!(left.recv(), Ok("a"));
    /// # use std::future::IntoFuture;
    /// # });
    /// ```
    pub fn put_back(self, callback: impl FnMut(S::Message) + Clone + Send + 'static) -> Self {
        for source in &self.sources {
            source.set_put_back(Box::new(callback.clone()));
        }
        self
    }
}

impl<S, H, F, D, N> IntoFuture for FanIn<S, H, D, N>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    D: FnMut(FailedMessage),
    N: Stream<Item = S>,
{
    type Output = Result<FanInReport, Error>;
    type IntoFuture = FanInFuture<S, H, F, D, N>;

    fn into_future(self) -> Self::IntoFuture {
        FanInFuture::new(self)
    }
}

impl<S, H, D, N> fmt::Debug for FanIn<S, H, D, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanIn")
            .field("context", &self.context)
            .field("sources", &self.sources.len())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
