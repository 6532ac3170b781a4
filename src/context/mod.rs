//! What a step carries.

mod child;
pub(crate) mod loan;

pub(crate) use child::ChildStep;

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cancellation::CancellationToken;
use crate::clock::{Clock, SystemClock};
use crate::compensation::{Action, ActionOutput, CompensationScope, Reservation, WithState, kept};
use crate::origin::SourceName;
use crate::sync::Arc as Counted;

/// What a step carries: its name, clock, cancellation token and compensation scope.
///
/// A context is made for a pipeline with [`new`](StepContext::new) and the `with_…` methods. A
/// drain hands each message's handler a context of its own: same clock, a token linked to the
/// drain, a child scope. Clones are the same context.
///
/// ```
/// use std::sync::Arc;
/// use watershed::{CancellationSource, ManualClock, StepContext};
///
/// let stop = CancellationSource::new();
/// let context = StepContext::new("settle payments")
///     .with_clock(Arc::new(ManualClock::new()))
///     .with_cancellation(stop.token());
/// assert_eq!(context.name(), "settle payments");
/// assert!(!context.scope().has_actions());
/// ```
pub struct StepContext {
    /// There until the handle is dropped.
    inner: Option<Counted<Inner>>,
}

#[derive(Clone)]
struct Inner {
    name: Arc<str>,
    clock: Arc<dyn Clock>,
    cancellation: CancellationToken,
    scope: CompensationScope,
    /// Where its message came from, in a drain.
    source: Option<SourceName>,
    message: MessageNumber,
    /// What it is expected back by while it is lent to a handler; see [`loan`].
    loan: u64,
}

/// The number of the message that the context belongs to, 0 outside a drain.
#[derive(Default)]
struct MessageNumber(AtomicU64);

impl Clone for MessageNumber {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

const THERE: &str = "a handle has its context until it is dropped";

impl StepContext {
    /// A context with the [`SystemClock`], a token that is never cancelled and an empty scope.
    ///
    /// ```
    /// let context = watershed::StepContext::new("orders");
    /// assert!(!context.cancellation().is_cancelled());
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let inner = Inner {
            name: name.into(),
            clock: Arc::new(SystemClock::new()),
            cancellation: CancellationToken::never(),
            scope: CompensationScope::new(),
            source: None,
            message: MessageNumber::default(),
            loan: 0,
        };
        Self { inner: Some(Counted::new(inner)) }
    }

    /// The same context with another clock.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use watershed::{Clock, ManualClock, StepContext, Tick};
    ///
    /// let context = StepContext::new("orders").with_clock(Arc::new(ManualClock::new()));
    /// assert_eq!(context.clock().now(), Tick::ZERO);
    /// ```
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.edit().clock = clock;
        self
    }

    /// The same context with another cancellation token.
    ///
    /// ```
    /// use watershed::{CancellationSource, StepContext};
    ///
    /// let stop = CancellationSource::new();
    /// let context = StepContext::new("orders").with_cancellation(stop.token());
    /// stop.cancel();
    /// assert!(context.cancellation().is_cancelled());
    /// ```
    #[must_use]
    pub fn with_cancellation(mut self, token: CancellationToken) -> Self {
        self.edit().cancellation = token;
        self
    }

    /// The same context with another scope.
    ///
    /// ```
    /// use watershed::{CompensationScope, StepContext};
    ///
    /// let scope = CompensationScope::new();
    /// let context = StepContext::new("orders").with_scope(scope.clone());
    /// context.register_compensation(|| async {});
    /// assert_eq!(scope.clear(), 1);
    /// ```
    #[must_use]
    pub fn with_scope(mut self, scope: CompensationScope) -> Self {
        self.edit().scope = scope;
        self
    }

    #[inline]
    fn inner(&self) -> &Counted<Inner> {
        self.inner.as_ref().expect(THERE)
    }

    fn edit(&mut self) -> &mut Inner {
        let inner = self.inner();
        kept::expose(inner.loan, &inner.scope);
        let inner = self.inner.as_mut();
        let inner = Counted::make_mut(inner.expect(THERE));
        // A changed context is the user's own: no drain takes it back.
        inner.loan = 0;
        inner
    }

    /// The name of the step. A handler's step has the name of its drain's context.
    ///
    /// ```
    /// assert_eq!(watershed::StepContext::new("orders").name(), "orders");
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner().name
    }

    /// The clock that everything in this step goes by.
    ///
    /// ```
    /// let context = watershed::StepContext::new("orders");
    /// let earlier = context.clock().now();
    /// assert!(context.clock().now() >= earlier);
    /// ```
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner().clock
    }

    /// The token that tells the step to stop.
    ///
    /// ```
    /// assert!(!watershed::StepContext::new("orders").cancellation().is_cancelled());
    /// ```
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.inner().cancellation
    }

    /// The scope that collects the step's compensations.
    ///
    /// ```
    /// assert!(watershed::StepContext::new("orders").scope().is_empty());
    /// ```
    #[must_use]
    #[inline]
    pub fn scope(&self) -> &CompensationScope {
        let inner = self.inner();
        kept::expose(inner.loan, &inner.scope);
        &inner.scope
    }

    /// The name of the source that the step's message came from; `None` outside a drain.
    ///
    /// ```
    /// assert_eq!(watershed::StepContext::new("orders").source_name(), None);
    /// ```
    #[must_use]
    pub fn source_name(&self) -> Option<&str> {
        self.inner().source.as_ref().map(SourceName::as_str)
    }

    /// The number of the step's message in its source, the first one being 1; `None` outside a
    /// drain.
    ///
    /// ```
    /// assert_eq!(watershed::StepContext::new("orders").message_number(), None);
    /// ```
    #[must_use]
    pub fn message_number(&self) -> Option<u64> {
        let inner = self.inner();
        inner.source.as_ref().map(|_| inner.message.0.load(Ordering::Relaxed))
    }

    /// [`CompensationScope::register_compensation`] on the step's scope.
    ///
    /// The action may run more than once: write it so that a second run does no harm.
    ///
    /// ```
    /// let step = watershed::StepContext::new("orders");
    /// step.register_compensation(|| async { /* delete the row */ });
    /// assert_eq!(step.scope().clear(), 1);
    /// ```
    #[track_caller]
    #[inline]
    pub fn register_compensation(&self, action: impl Action) {
        self.stage(action, Location::caller());
    }

    /// [`CompensationScope::register_compensation_with`] on the step's scope.
    ///
    /// ```
    /// let step = watershed::StepContext::new("orders");
    /// step.register_compensation_with("row 17", |row| async move { drop(row) });
    /// assert_eq!(step.scope().clear(), 1);
    /// ```
    #[track_caller]
    pub fn register_compensation_with<S, A, F>(&self, state: S, action: A)
    where
        S: Clone + Send + 'static,
        A: FnMut(S) -> F + Send + 'static,
        F: Future<Output: ActionOutput> + Send + 'static,
    {
        self.stage(WithState { state, action }, Location::caller());
    }

    /// [`CompensationScope::try_register_compensation`] on the step's scope.
    ///
    /// ```
    /// let step = watershed::StepContext::new("orders");
    /// assert!(!step.try_register_compensation(false, || async {}));
    /// ```
    #[track_caller]
    pub fn try_register_compensation(&self, condition: bool, action: impl Action) -> bool {
        if condition {
            self.stage(action, Location::caller());
        }
        condition
    }

    /// [`CompensationScope::reserve`] on the step's scope: stages the action before its effect.
    ///
    /// ```
    /// let step = watershed::StepContext::new("orders");
    /// assert!(step.reserve(|| async {}).disarm());
    /// ```
    #[track_caller]
    pub fn reserve(&self, action: impl Action) -> Reservation {
        self.scope().reserve(action)
    }

    #[inline]
    fn stage<A: Action>(&self, action: A, registered_at: &'static Location<'static>) {
        let inner = self.inner();
        if let Some(action) = kept::keep(inner.loan, action, registered_at) {
            inner.scope.stage(action, registered_at);
        }
    }
}

/// The clone is the same context.
impl Clone for StepContext {
    fn clone(&self) -> Self {
        let inner = self.inner();
        kept::expose(inner.loan, &inner.scope);
        Self { inner: self.inner.clone() }
    }
}

/// What a drain does with the context of a message.
impl StepContext {
    /// A context for the messages of one source, with a scope of its own.
    pub(crate) fn for_messages(&self, source: &SourceName, token: &CancellationToken) -> Self {
        let inner = Inner {
            name: Arc::clone(&self.inner().name),
            clock: Arc::clone(&self.inner().clock),
            cancellation: token.clone(),
            scope: CompensationScope::new(),
            source: Some(source.clone()),
            message: MessageNumber::default(),
            loan: loan::number(),
        };
        Self { inner: Some(Counted::new(inner)) }
    }

    /// Whether nobody else has this context or its scope.
    pub(crate) fn is_sole(&self) -> bool {
        let inner = self.inner();
        Counted::strong_count(inner) == 1 && inner.scope.is_sole()
    }

    /// Gives a context that nobody else has to another source.
    pub(crate) fn set_source(&mut self, source: &SourceName) {
        let inner = self.inner.as_mut().and_then(Counted::get_mut);
        if let Some(inner) = inner {
            inner.source = Some(source.clone());
        }
    }

    #[inline]
    pub(crate) fn set_message_number(&self, number: u64) {
        self.inner().message.0.store(number, Ordering::Relaxed);
    }

    /// The number of this context in [`loan`].
    #[inline]
    pub(crate) fn loan(&self) -> u64 {
        self.inner().loan
    }
}

impl From<Counted<Inner>> for StepContext {
    #[inline]
    fn from(inner: Counted<Inner>) -> Self {
        Self { inner: Some(inner) }
    }
}

impl Drop for StepContext {
    #[inline]
    fn drop(&mut self) {
        loan::give_back(&mut self.inner);
    }
}

impl fmt::Debug for StepContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("name", &self.name())
            .field("source", &self.source_name())
            .field("message", &self.message_number())
            .field("clock", &self.inner().clock)
            .field("cancellation", &self.inner().cancellation)
            .field("scope", &self.inner().scope)
            .finish()
    }
}
