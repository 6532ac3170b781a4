//! The options of a drain.

use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

use futures::stream::Stream;

use super::builder::FanIn;
use super::letters::{Letter, StoredBy};
use super::order::{ByKey, OrderedAcross, OrderedBy, Unkeyed};
use super::progress::Progress;
use super::put_back::BackTo;
use super::settings::{Commit, OnFailure};
use crate::cancellation::CancellationToken;
use crate::origin::SourceId;
use crate::retry::RetryPolicy;
use crate::source::Source;
use crate::undo::{ActionOutput, CompensationPolicy, LocalUndos};

impl<S: Source, H, O, D, P, U, N> FanIn<S, H, O, D, P, U, N> {
    /// How many handlers may run at once, over all sources. Each runs on another source, unless
    /// [`unordered`](FanIn::unordered) or [`ordered_by`](FanIn::ordered_by) lets messages of one
    /// source run at once. A limit is no size: what is not used costs nothing. Default: 1, a total
    /// order. 0 is an error.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.core.settings.concurrency = handlers;
        self
    }

    /// How many handlers may run at once on messages of one source, where it is
    /// [`unordered`](FanIn::unordered) or [`ordered_by`](FanIn::ordered_by) a key. Default: as many
    /// as in the whole drain. 0 is an error.
    pub fn per_source_concurrency(mut self, handlers: usize) -> Self {
        self.core.settings.per_source = Some(handlers);
        self
    }

    /// How many messages of one source may be handled before every other ready source has its
    /// turn, from 1 to 256; as many times more as its [weight](Source::weighted). Where handlers
    /// wait for a permit, a turn is as many messages as the weight, but for sources that are more
    /// [urgent](Source::prioritized) than others that are ready. Default: 64.
    pub fn quantum(mut self, messages: usize) -> Self {
        self.core.settings.quantum = messages;
        self
    }

    /// Messages of one source are handled in any order, as many at once as permitted.
    pub fn unordered(self) -> FanIn<S, H, Unkeyed<false>, D, P, U, N> {
        let Self { core, letters, put_back, undos, incoming, .. } = self;
        FanIn { core, order: Unkeyed, letters, put_back, undos, incoming }
    }

    /// Messages of one source that have a key in common are handled one after another, in their
    /// order; messages with other keys run at once, as many as permitted. The same key in two
    /// sources is two keys.
    ///
    /// A source whose next message has a busy key holds that message, and nothing more is taken
    /// from it until the key is free. Whatever holds a message when the drain ends gives it to
    /// [`put_back`](FanIn::put_back). A key function that panics fails its message.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    ///
    /// let context = StepContext::new("payments");
    /// let payments = stream::iter([("ann", 1), ("bob", 2), ("ann", 3)]);
    /// let report = fan_in(&context, [payments], async |_, _| Ok::<_, BoxError>(()))
    ///     .concurrency(8)
    ///     .ordered_by(|(account, _)| *account)
    ///     .await?;
    /// assert_eq!(report.handled(), 3);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn ordered_by<K, C>(self, key: C) -> FanIn<S, H, OrderedBy<C, K>, D, P, U, N>
    where
        K: Eq + Hash + Clone,
        C: FnMut(&S::Message) -> K,
    {
        let Self { core, letters, put_back, undos, incoming, .. } = self;
        FanIn { core, order: ByKey::new(key), letters, put_back, undos, incoming }
    }

    /// As [`ordered_by`](FanIn::ordered_by), with keys that count over all sources: of two messages
    /// with the same key, the one that was taken first is handled first, wherever they came from. One that
    /// is held keeps its place while its source is paused or waits for its rate: those behind it wait.
    pub fn ordered_across_sources_by<K, C>(
        self,
        key: C,
    ) -> FanIn<S, H, OrderedAcross<C, K>, D, P, U, N>
    where
        K: Eq + Hash + Clone,
        C: FnMut(&S::Message) -> K,
    {
        let Self { core, letters, put_back, undos, incoming, .. } = self;
        FanIn { core, order: ByKey::new(key), letters, put_back, undos, incoming }
    }

    /// Further sources, taken in while the drain runs; it ends when this stream and all sources
    /// have. A drain that ends early, or shuts down, drops it. See
    /// [`channels::live`](crate::channels::live) for one with handles.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, fan_in};
    ///
    /// let context = StepContext::new("connections");
    /// let connections = stream::iter((0..3).map(|_| stream::iter([1, 2])));
    /// let report = fan_in(&context, [], async |_, _| Ok::<_, BoxError>(()))
    ///     .incoming(connections)
    ///     .await?;
    /// assert_eq!(report.handled(), 6);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn incoming<M: Stream<Item = S>>(self, sources: M) -> FanIn<S, H, O, D, P, U, M> {
        let Self { core, order, letters, put_back, undos, .. } = self;
        FanIn { core, order, letters, put_back, undos, incoming: Some(sources) }
    }

    /// One absolute deadline for the whole drain, counted from its first poll by the context's
    /// clock. Zero times out before a message is taken; [`Duration::MAX`] never does. When all messages are
    /// handled it is over: what transports have not answered then is waited for by
    /// [`settle_within`](crate::transport::Link::settle_within).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.core.settings.timeout = Some(timeout);
        self
    }

    /// A deadline for each attempt at a message, counted from the call of its handler by the
    /// context's clock. A handler that is not done by then is dropped, its token cancelled, and
    /// the attempt has failed. Where leases cannot be renewed it is required, and a message that has less
    /// of its lease left goes back (see [`transport`](crate::transport)).
    pub fn message_timeout(mut self, timeout: Duration) -> Self {
        self.core.settings.message_timeout = Some(timeout);
        self
    }

    /// How long handlers, rollbacks of single messages and dead letters in flight are awaited once
    /// the drain must end; then they are dropped. Default: 5 seconds.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.core.settings.grace = grace;
        self
    }

    /// A token that cancels the drain, beside the context's own. Default: none.
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.core.settings.cancellation = token;
        self
    }

    /// A token that asks the drain to finish: no further message is taken, what runs is finished,
    /// and the drain succeeds with what it did. What is still in the sources stays there. Default:
    /// none.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, CancellationSource, StepContext, fan_in};
    ///
    /// let (context, sigterm) = (StepContext::new("orders"), CancellationSource::new());
    /// let report = fan_in(&context, [stream::repeat(7)], async |_, _| {
    ///     sigterm.cancel();
    ///     Ok::<_, BoxError>(())
    /// })
    /// .shutdown(sigterm.token())
    /// .await?;
    /// assert_eq!(report.handled(), 1);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn shutdown(mut self, token: CancellationToken) -> Self {
        self.core.settings.shutdown = Some(token);
        self
    }

    /// How long a [`shutdown`](FanIn::shutdown) may take. What still runs then is cancelled, has
    /// the [grace](FanIn::grace), and the drain fails with
    /// [`ErrorCode::Timeout`](crate::ErrorCode::Timeout). Default: no limit.
    pub fn finish_within(mut self, within: Duration) -> Self {
        self.core.settings.finish_within = Some(within);
        self
    }

    /// The drain succeeds when, in one poll, every source is pending, no handler runs and no
    /// message waits for its next attempt: for queues that are filled by the handlers themselves, or
    /// that are to be read until they are empty. A [transport](crate::transport) is empty when everything
    /// is settled and a fetch for each of its sources, sent behind the last message that went back, has
    /// brought nothing: what goes back at once is taken again, and one that always fails needs a place
    /// ([`dead_letters`](Self::dead_letters), [`max_deliveries`](crate::transport::Link::max_deliveries))
    /// for the drain to end. What goes back with a delay is left. One that
    /// [assigns](crate::transport::Able::assigns) partitions is not empty before this process has one.
    /// Open windows are given out first, and as long as a source is paused the drain is not idle.
    /// Default: it ends with its sources.
    pub fn until_idle(mut self) -> Self {
        self.core.settings.until_idle = true;
        self
    }

    /// In no span of `per` do more than `attempts` begin, retries included. Room that is not used
    /// is not saved. See [`Source::rate`] for one source. Default: no limit. 0 attempts, or a span
    /// of zero, are errors.
    pub fn rate(mut self, attempts: usize, per: Duration) -> Self {
        self.core.settings.rate = Some((attempts, per));
        self
    }

    /// What success does to the compensations that messages staged. Default:
    /// [`Commit::Pipeline`]; [`Commit::Message`], and nothing else, where messages are settled with a
    /// [transport](crate::transport).
    pub fn commit(mut self, commit: Commit) -> Self {
        self.core.settings.commit = Some(commit);
        self
    }

    /// What a message does to the drain that has failed and has no attempts left. Default:
    /// [`OnFailure::Abort`], and [`OnFailure::Continue`] where there are
    /// [`dead_letters`](FanIn::dead_letters).
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.core.settings.on_failure = Some(on_failure);
        self
    }

    /// How a single message is undone, between two attempts and when it is given up. Default:
    /// sequential, in reverse, one attempt an action.
    pub fn message_compensation(mut self, policy: CompensationPolicy) -> Self {
        self.core.settings.policy = Some(policy);
        self
    }

    /// How many messages may wait for their next attempt at once. Beyond that a failed message
    /// keeps its permit until one of them is due. Default: 1,024. 0 is an error.
    pub fn max_waiting(mut self, messages: usize) -> Self {
        self.core.settings.max_waiting = Some(messages);
        self
    }

    /// How long it may take to store a dead letter; then the drain ends. Default: 30 seconds.
    pub fn dead_letter_timeout(mut self, timeout: Duration) -> Self {
        self.core.settings.letter_timeout = Some(timeout);
        self
    }

    /// Called once for each message that something held when the drain ended, with its source: a
    /// message that waited for its next attempt or for its key, or was in an open window: those of
    /// a window one by one, each as a window of its own. (The name of the source is in its
    /// [row](crate::FanInReport::sources) of the report.) Without it they are counted as
    /// [unfinished](crate::FanInReport::unfinished) and dropped, and so is, with or without it, a
    /// message whose handler was dropped.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use futures::stream;
    /// use watershed::{CancellationSource, RetryPolicy, StepContext, fan_in};
    ///
    /// let (context, sigterm) = (StepContext::new("orders"), CancellationSource::new());
    /// let mut back = Vec::new();
    /// let report = fan_in(&context, [stream::iter(["a", "b"])], async |_, _| {
    ///     sigterm.cancel();
    ///     Err::<(), _>("the bank is closed")
    /// })
    /// .retry(RetryPolicy::fixed(3, Duration::from_secs(60)))
    /// .shutdown(sigterm.token())
    /// .put_back(|_, order| back.push(order))
    /// .await;
    /// # let _ = report;
    /// # });
    /// ```
    pub fn put_back<F>(self, function: F) -> FanIn<S, H, O, D, BackTo<F>, U, N>
    where
        F: FnMut(SourceId, S::Message),
    {
        let Self { core, order, letters, undos, incoming, .. } = self;
        FanIn { core, order, letters, put_back: BackTo(function), undos, incoming }
    }

    /// State that is not `Send` and that actions of this drain undo, see [`LocalUndos`]. The drain
    /// is not `Send` then.
    pub fn local_undos(self, undos: &LocalUndos) -> FanIn<S, H, O, D, P, LocalUndos, N> {
        let Self { core, order, letters, put_back, incoming, .. } = self;
        FanIn { core, order, letters, put_back, undos: undos.clone(), incoming }
    }

    /// Lets `progress` show what the drain has done so far. Default: nobody watches.
    pub fn progress(mut self, progress: &Progress) -> Self {
        self.core.progress = Some(progress.clone());
        self
    }

    /// A failed message is tried again as `policy` says, its compensations run between two
    /// attempts; only the last failure counts. While it waits it holds no permit, but its source,
    /// or its key, waits with it. Also what keeps messages for a handler that answers
    /// [`Answer::Later`](crate::Answer::Later). Messages are cloned for it: put large ones into an
    /// [`Arc`](std::sync::Arc). Default: one attempt.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use futures::stream;
    /// use watershed::{RetryPolicy, StepContext, fan_in};
    ///
    /// let context = StepContext::new("orders");
    /// let orders = stream::iter([Arc::new("a large order")]);
    /// let report = fan_in(&context, [orders], async |_: Arc<&str>, step| {
    ///     if step.attempt() < 3 { Err("the bank is busy") } else { Ok(()) }
    /// })
    /// .retry(RetryPolicy::fixed(3, Duration::from_millis(1)))
    /// .await?;
    /// assert_eq!((report.handled(), report.attempts()), (1, 3));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn retry(mut self, policy: RetryPolicy) -> Self
    where
        S::Message: Clone,
    {
        self.core.settings.retry = Some(policy);
        self.core.clone = Some(Clone::clone);
        self
    }

    /// Where messages go that have failed and have no attempts left, once they are undone; the
    /// drain goes on. A letter that cannot be stored, or not within
    /// [`dead_letter_timeout`](FanIn::dead_letter_timeout), ends the drain with both errors.
    /// Messages are cloned for it.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{Letter, StepContext, fan_in};
    ///
    /// let (dead, letters) = async_channel::unbounded();
    /// let context = StepContext::new("orders");
    /// let report = fan_in(&context, [stream::iter(["1", "x"])], async |text, _| {
    ///     text.parse::<u32>().map(drop)
    /// })
    /// .dead_letters(async |letter: Letter<&'static str>| {
    ///     dead.send((letter.into_message(), "no number")).await
    /// })
    /// .await?;
    /// assert_eq!((report.handled(), report.failed()), (1, 1));
    /// assert_eq!(letters.try_recv().unwrap(), (Some("x"), "no number"));
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn dead_letters<F, L>(mut self, store: F) -> FanIn<S, H, O, StoredBy<F, L>, P, U, N>
    where
        S::Message: Clone,
        F: FnMut(Letter<S::Message>) -> L,
        L: Future<Output: ActionOutput>,
    {
        self.core.settings.has_letters = true;
        self.core.clone = Some(Clone::clone);
        let Self { core, order, put_back, undos, incoming, .. } = self;
        FanIn { core, order, letters: StoredBy(store, PhantomData), put_back, undos, incoming }
    }
}
