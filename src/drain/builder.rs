//! A drain that has not started.

use std::fmt;
use std::future::{Future, IntoFuture};

use futures::stream::{Empty, Stream};

use super::future::{StartedDrain, Unstarted};
use super::letters::{DeadLetters, NoLetters};
use super::order::{Order, Unkeyed};
use super::progress::Progress;
use super::put_back::{Nowhere, PutBack};
use super::report::FanInReport;
use super::settings::Settings;
use super::start::{DrainParts, Start};
use super::types::{CloneMessage, Types};
use super::undos::{NoLocal, UndoWith};
use crate::error::Failure;
use crate::operation::OperationFuture;
use crate::outcome::HandlerOutput;
use crate::source::Source;
use crate::step::StepContext;

/// Drains every source through one async handler, and stages what the handler registers on the
/// scope of `context`.
///
/// The handler is called once a message, with the message and a [`StepContext`] of its own. A
/// message is taken from its source only when its handler is about to be called. Within one source
/// messages are handled one after another, unless [`ordered_by`](FanIn::ordered_by) or
/// [`unordered`](FanIn::unordered) says otherwise; at most [`concurrency`](FanIn::concurrency)
/// handlers run at once.
///
/// The drain ends when all sources have ended, or with the first handler error, panic or source
/// fault, its timeout, or its cancellation: then the handlers' token is cancelled, the handlers in
/// flight are awaited for up to [`grace`](FanIn::grace), and the error is returned with all
/// further errors attached. The compensations of every message, finished or not, are then on the
/// scope of `context`, and [`StepContext::roll_back`] undoes them in reverse.
///
/// # Errors
///
/// A [`Failure`] with the report of what was done, and
///
/// - the handler's own error under [`ErrorCode::Handler`](crate::ErrorCode::Handler)
///   ([`Error::downcast_ref`](crate::Error::downcast_ref) gives it back), or the
///   [`Error`](crate::Error) it returned
/// - [`ErrorCode::Panic`](crate::ErrorCode::Panic), [`ErrorCode::Source`](crate::ErrorCode::Source)
/// - [`ErrorCode::Timeout`](crate::ErrorCode::Timeout) with its `duration` as metadata
/// - [`ErrorCode::Canceled`](crate::ErrorCode::Canceled)
/// - [`ErrorCode::Validation`](crate::ErrorCode::Validation) for an option that cannot be meant,
///   and [`ErrorCode::Clock`](crate::ErrorCode::Clock) where the clock cannot wait: before anything
///   is taken
///
/// # Cancel safety
///
/// Dropping the future drops the handlers in flight where they are. Every compensation they have
/// registered is staged on the context's scope, every message whose handler was not called is
/// still in its source, and what something held goes to [`put_back`](FanIn::put_back). All of it
/// happens with the drop: a drain that is kept, and not polled, keeps what its messages staged.
///
/// ```
/// # futures::executor::block_on(async {
/// use watershed::{BoxError, CompensationPolicy, StepContext, fan_in};
///
/// let (sender, orders) = async_channel::unbounded();
/// for order in ["a", "b", "broken"] {
///     sender.try_send(order)?;
/// }
/// drop(sender);
///
/// let context = StepContext::new("orders");
/// let outcome = fan_in(&context, [orders], async |order, step| {
///     step.register_compensation(move || async move { println!("undo {order}") });
///     if order == "broken" {
///         return Err("no such order");
///     }
///     Ok(())
/// })
/// .await;
///
/// if outcome.is_err() {
///     let report = context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
///     assert_eq!(report.succeeded(), 3);
/// }
/// # Ok::<_, BoxError>(()) }).unwrap();
/// ```
pub fn fan_in<I, H, F>(context: &StepContext, sources: I, handler: H) -> FanIn<I::Item, H>
where
    I: IntoIterator<Item: Source>,
    H: FnMut(<I::Item as Source>::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
{
    FanIn {
        core: Core {
            context: context.clone(),
            sources: sources.into_iter().collect(),
            handler,
            clone: None,
            settings: Settings::default(),
            progress: None,
        },
        order: Unkeyed,
        letters: NoLetters,
        put_back: Nowhere,
        undos: NoLocal,
        incoming: None,
    }
}

/// A drain that has not started, made by [`fan_in`]. Awaiting it starts it.
///
/// | option | default |
/// | --- | --- |
/// | [`concurrency`](FanIn::concurrency) | 1 handler at once |
/// | [`per_source_concurrency`](FanIn::per_source_concurrency) | that of the whole drain |
/// | [`ordered_by`](FanIn::ordered_by), [`ordered_across_sources_by`](FanIn::ordered_across_sources_by), [`unordered`](FanIn::unordered) | one message of a source after another |
/// | [`quantum`](FanIn::quantum) | 64 messages |
/// | [`incoming`](FanIn::incoming) | no further sources |
/// | [`timeout`](FanIn::timeout), [`message_timeout`](FanIn::message_timeout) | never |
/// | [`cancellation`](FanIn::cancellation) | that of the context alone |
/// | [`grace`](FanIn::grace) | 5 seconds |
/// | [`shutdown`](FanIn::shutdown), [`finish_within`](FanIn::finish_within) | none, no limit |
/// | [`until_idle`](FanIn::until_idle) | until all sources have ended |
/// | [`rate`](FanIn::rate) | no limit |
/// | [`commit`](FanIn::commit) | [`Commit::Pipeline`](crate::Commit::Pipeline) |
/// | [`retry`](FanIn::retry), [`max_waiting`](FanIn::max_waiting) | one attempt; 1,024 messages |
/// | [`on_failure`](FanIn::on_failure) | [`OnFailure::Abort`](crate::OnFailure::Abort) |
/// | [`dead_letters`](FanIn::dead_letters), [`dead_letter_timeout`](FanIn::dead_letter_timeout) | none; 30 seconds |
/// | [`message_compensation`](FanIn::message_compensation) | sequential, in reverse, one attempt |
/// | [`put_back`](FanIn::put_back) | counted and dropped |
/// | [`local_undos`](FanIn::local_undos) | none |
/// | [`progress`](FanIn::progress) | not watched |
///
/// An option that can have no effect on this drain is told in the
/// [warnings](FanInReport::warnings) of its report.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use futures::stream;
/// use watershed::{BoxError, Commit, RetryPolicy, StepContext, fan_in};
///
/// let context = StepContext::new("orders");
/// let report = fan_in(&context, [stream::iter(0..9)], async |_, _| Ok::<_, BoxError>(()))
///     .unordered()
///     .concurrency(4)
///     .timeout(Duration::from_secs(60))
///     .retry(RetryPolicy::exponential(3, Duration::from_millis(50)))
///     .commit(Commit::Message)
///     .await?;
/// assert_eq!(report.handled(), 9);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
#[must_use = "a drain does nothing unless it is awaited"]
pub struct FanIn<
    S: Source,
    H,
    O = Unkeyed<true>,
    D = NoLetters,
    P = Nowhere,
    U = NoLocal,
    N = Empty<S>,
> {
    pub(super) core: Core<S, H>,
    pub(super) order: O,
    pub(super) letters: D,
    pub(super) put_back: P,
    pub(super) undos: U,
    pub(super) incoming: Option<N>,
}

/// What no option changes the type of.
pub(super) struct Core<S: Source, H> {
    pub(super) context: StepContext,
    pub(super) sources: Vec<S>,
    pub(super) handler: H,
    pub(super) clone: Option<CloneMessage<S::Message>>,
    pub(super) settings: Settings,
    pub(super) progress: Option<Progress>,
}

impl<S, H, F, O, D, P, U, N> IntoFuture for FanIn<S, H, O, D, P, U, N>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    O: Order<S::Message>,
    D: DeadLetters<S::Message>,
    P: PutBack<S::Message>,
    U: UndoWith,
    N: Stream<Item = S>,
{
    type Output = Result<FanInReport, Failure<FanInReport>>;
    type IntoFuture = OperationFuture<
        Unstarted<Types<S, H, F, O, D, P, U, N>>,
        StartedDrain<Types<S, H, F, O, D, P, U, N>>,
    >;

    fn into_future(self) -> Self::IntoFuture {
        let Self { core, order, letters, put_back, undos, incoming } = self;
        let Core { context, sources, handler, clone, settings, progress } = core;
        let parts =
            DrainParts { context, settings, clone, handler, letters, put_back, order, undos };
        OperationFuture::new(Unstarted::new(Start { sources, incoming, progress, parts }))
    }
}

impl<S: Source, H, O, D, P, U, N> fmt::Debug for FanIn<S, H, O, D, P, U, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanIn")
            .field("context", &self.core.context)
            .field("sources", &self.core.sources.len())
            .field("settings", &self.core.settings)
            .finish_non_exhaustive()
    }
}
