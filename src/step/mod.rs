//! What a step carries.
//!
//! - here: the context itself
//! - `child`: a step inside another step; `lent`: the step of a drain's messages, which is used
//!   again and again; `with_step`: an action that is given a step

mod child;
mod lent;
#[cfg(all(test, not(any(watershed_loom, watershed_shuttle))))]
mod tests;
mod with_step;

pub(crate) use child::ChildStep;
#[allow(unused_imports, reason = "drains use them")]
pub(crate) use lent::{LentStep, Polls, enter, handled};
pub use with_step::with_step;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::cancellation::CancellationToken;
use crate::clock::{Clock, SystemClock};
use crate::lock::Lock;
use crate::origin::{SourceId, SourceName, SourceRef};
use crate::sync::{Arc as Counted, OnceLock};
use crate::undo::{
    Action, ActionOutput, CompensationPolicy, CompensationScope, Reservation, Rollback, WithState,
};

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
    inner: Option<Counted<StepInner>>,
}

/// Who has delivered a message, of whatever type.
pub(crate) type StepDelivery = Arc<dyn Any + Send + Sync>;

struct StepInner {
    setting: Arc<Setting>,
    cancellation: CancellationToken,
    /// That of a drain's message is made when it is first asked for: most handlers stage nothing.
    scope: OnceLock<CompensationScope>,
    /// Where its message came from, in a drain.
    source: Option<SourceRef>,
    /// The number of the message, 0 outside a drain.
    message: AtomicU64,
    attempt: AtomicU32,
    /// Who has delivered its message, where it has a transport, and the number of its receipt there.
    delivery: Lock<Option<StepDelivery>>,
    receipt: AtomicU64,
    /// It belongs to a drain, which lends it to its handlers; see [`lent`].
    lent: bool,
}

/// What all steps of a drain have in common.
#[derive(Clone)]
struct Setting {
    name: Arc<str>,
    clock: Arc<dyn Clock>,
}

/// A context of the user's own, which no drain takes back.
impl Clone for StepInner {
    fn clone(&self) -> Self {
        Self {
            setting: Arc::clone(&self.setting),
            cancellation: self.cancellation.clone(),
            scope: self.scope().clone().into(),
            source: self.source.clone(),
            message: AtomicU64::new(self.message.load(Ordering::Relaxed)),
            attempt: AtomicU32::new(self.attempt.load(Ordering::Relaxed)),
            delivery: Lock::new(self.delivery.lock().clone()),
            receipt: AtomicU64::new(self.receipt.load(Ordering::Relaxed)),
            lent: false,
        }
    }
}

impl StepInner {
    #[inline]
    fn scope(&self) -> &CompensationScope {
        self.scope.get_or_init(CompensationScope::for_message)
    }

    /// Whether its scope is nobody else's.
    #[inline]
    fn has_sole_scope(&self) -> bool {
        self.scope.get().is_none_or(CompensationScope::is_sole)
    }

    /// To be changed, for this context alone.
    fn setting(&mut self) -> &mut Setting {
        Arc::make_mut(&mut self.setting)
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
        let setting = Setting { name: name.into(), clock: Arc::new(SystemClock::new()) };
        let inner = StepInner {
            setting: Arc::new(setting),
            cancellation: CancellationToken::never(),
            scope: CompensationScope::new().into(),
            source: None,
            message: AtomicU64::new(0),
            attempt: AtomicU32::new(0),
            delivery: Lock::default(),
            receipt: AtomicU64::new(0),
            lent: false,
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
        self.edit().setting().clock = clock;
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
    /// context.register_compensation(async || {});
    /// assert_eq!(scope.clear(), 1);
    /// ```
    #[must_use]
    pub fn with_scope(mut self, scope: CompensationScope) -> Self {
        self.edit().scope = scope.into();
        self
    }

    #[inline]
    fn inner(&self) -> &Counted<StepInner> {
        self.inner.as_ref().expect(THERE)
    }

    fn edit(&mut self) -> &mut StepInner {
        // A drain keeps a handle of the step it lends: what is changed is a copy.
        Counted::make_mut(self.inner.as_mut().expect(THERE))
    }

    /// The name of the step. A handler's step has the name of its drain's context.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner().setting.name
    }

    /// The clock that everything in this step goes by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner().setting.clock
    }

    /// The token that tells the step to stop.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.inner().cancellation
    }

    /// The scope that collects the step's compensations.
    #[must_use]
    #[inline]
    pub fn scope(&self) -> &CompensationScope {
        self.inner().scope()
    }

    /// The id of the source that the step's message came from; `None` outside a drain.
    #[must_use]
    pub fn source_id(&self) -> Option<SourceId> {
        self.inner().source.as_ref().map(|source| source.id)
    }

    /// The name of the source that the step's message came from; `None` outside a drain.
    #[must_use]
    pub fn source_name(&self) -> Option<&str> {
        self.inner().source.as_ref().map(|source| SourceName::as_str(&source.name))
    }

    /// The number of the step's message in its source, the first one being 1; `None` outside a
    /// drain.
    #[must_use]
    pub fn message_number(&self) -> Option<u64> {
        let inner = self.inner();
        inner.source.as_ref().map(|_| inner.message.load(Ordering::Relaxed))
    }

    /// Which attempt at the step's message this is, the first one being 1; 0 outside a drain.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner().attempt.load(Ordering::Relaxed)
    }

    /// [`CompensationScope::register_compensation`] on the step's scope.
    ///
    /// The action may run more than once: write it so that a second run does no harm.
    ///
    /// ```
    /// let step = watershed::StepContext::new("orders");
    /// step.register_compensation(async || { /* delete the row */ });
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
    /// step.register_compensation_with("row 17", async |row| drop(row));
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
    /// assert!(!step.try_register_compensation(false, async || {}));
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
    /// assert!(step.reserve(async || {}).disarm());
    /// ```
    #[track_caller]
    pub fn reserve(&self, action: impl Action) -> Reservation {
        self.scope().reserve(action)
    }

    /// [`CompensationScope::roll_back`] on the step's scope, by the step's clock and under its name.
    ///
    /// The step's own token does not stop it: work that was cancelled is undone all the same.
    /// [`Rollback::cancellation`] gives it a token.
    ///
    /// # Errors
    ///
    /// Those of [`CompensationScope::roll_back`].
    ///
    /// # Cancel safety
    ///
    /// That of [`CompensationScope::roll_back`]: what has not succeeded stays staged.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use watershed::{CompensationPolicy, StepContext};
    ///
    /// let context = StepContext::new("orders");
    /// context.register_compensation(async || { /* release the seat */ });
    /// let report = context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
    /// assert_eq!(report.succeeded(), 1);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    pub fn roll_back(&self, policy: &CompensationPolicy) -> Rollback {
        let inner = self.inner();
        let Setting { name, clock } = &*inner.setting;
        inner.scope().roll_back(policy).clock(clock).named(name)
    }

    #[inline]
    fn stage<A: Action>(&self, action: A, registered_at: &'static Location<'static>) {
        self.scope().stage(action, registered_at);
    }
}

/// What a child step does with the context it owns.
impl StepContext {
    /// Whether nobody else has this context or its scope.
    pub(crate) fn is_sole(&self) -> bool {
        let inner = self.inner();
        Counted::strong_count(inner) == 1 && inner.has_sole_scope()
    }
}

/// The clone is the same context.
impl Clone for StepContext {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

/// The step's scope: what takes a scope as well as a step asks for this.
impl AsRef<CompensationScope> for StepContext {
    fn as_ref(&self) -> &CompensationScope {
        self.scope()
    }
}

impl From<Counted<StepInner>> for StepContext {
    #[inline]
    fn from(inner: Counted<StepInner>) -> Self {
        Self { inner: Some(inner) }
    }
}

impl Drop for StepContext {
    #[inline]
    fn drop(&mut self) {
        if self.inner.as_ref().is_some_and(|inner| inner.lent) {
            lent::give_back(&mut self.inner);
        }
    }
}

impl fmt::Debug for StepContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("name", &self.name())
            .field("source", &self.source_name())
            .field("message", &self.message_number())
            .field("attempt", &self.attempt())
            .field("clock", self.clock())
            .field("cancellation", &self.inner().cancellation)
            .field("scope", self.scope())
            .finish()
    }
}
