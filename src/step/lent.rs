//! The step of a drain's messages, lent to one handler after another without counting references.
//!
//! A handler takes its step by value. To clone one for each message and to drop it again costs two
//! atomic operations on one count, which is a fifth of the time of a message whose handler is ready
//! at once (1.13 to 1.28 times, measured). So the handle is moved into the handler, and when the
//! handler drops it while the drain is polling it, which is what nearly always happens, the handle
//! is not dropped but put into this thread's cell, from which the drain takes it for the next
//! message. A handle that goes away at any other time or place is dropped as usual, and the drain
//! makes another one. Nothing that was staged is ever in the cell.
//!
//! The scope of the step goes from message to message with it. What a message has staged is not
//! moved when it ends: a mark says that everything so far belongs to messages that have ended, and
//! once a turn the drain [flushes](LentStep::flush) it.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::{StepContext, StepDelivery, StepInner};
use crate::cancellation::CancellationToken;
use crate::lock::Lock;
use crate::origin::{SourceId, SourceRef};
use crate::sync::atomic::{Ordering, fence};
use crate::sync::{Arc as Counted, OnceLock, thread_local};
use crate::undo::{CompensationScope, DrainScope, MessageScope};

/// A handle of the step of the handler that is polled, once the handler has dropped it. It is
/// emptied when the poll ends, so that it needs no destructor, which every access would have to ask
/// about.
type Returned = ManuallyDrop<Option<Counted<StepInner>>>;

thread_local! {
    /// The handler that is being polled on this thread.
    static POLLED: PolledStep = const {
        PolledStep {
            step: Cell::new(0),
            source: Cell::new(None),
            outer: Cell::new(ManuallyDrop::new(None)),
            returned: Cell::new(ManuallyDrop::new(None)),
        }
    };
}

struct PolledStep {
    /// The address of its step while that is lent and not back.
    step: Cell<usize>,
    /// The source of its message, also while that is undone or given up.
    source: Cell<Option<SourceId>>,
    /// Those of the handlers that poll it: its drain is in one of theirs.
    outer: Cell<ManuallyDrop<Option<Box<OuterSource>>>>,
    returned: Cell<Returned>,
}

/// The source of a handler that polls another drain, and those of the handlers that poll it.
struct OuterSource {
    source: SourceId,
    outer: Option<Box<OuterSource>>,
}

/// What was polled on this thread before a drain inside it. Dropping it restores that, also where
/// the drain panics.
#[must_use = "what was polled before is restored when this is dropped"]
pub(crate) struct OuterPoll {
    step: usize,
    source: Option<SourceId>,
    returned: Option<Counted<StepInner>>,
}

/// Begins the turn of a drain on this thread: a handler may poll another one.
#[inline]
pub(crate) fn enter() -> OuterPoll {
    let outer = POLLED.try_with(|polled| {
        let source = polled.source.replace(None);
        if let Some(source) = source {
            let outer = ManuallyDrop::into_inner(polled.outer.take());
            polled.outer.set(ManuallyDrop::new(Some(Box::new(OuterSource { source, outer }))));
        }
        let returned = ManuallyDrop::into_inner(polled.returned.take());
        OuterPoll { step: polled.step.replace(0), source, returned }
    });
    // Made only where it is needed: what it is dropped with is put back.
    outer.unwrap_or_else(|_| OuterPoll { step: 0, source: None, returned: None })
}

impl Drop for OuterPoll {
    #[inline]
    fn drop(&mut self) {
        let (step, source, returned) = (self.step, self.source, self.returned.take());
        let left = POLLED.try_with(|polled| {
            polled.step.set(step);
            polled.source.set(source);
            if source.is_some() {
                let outer = ManuallyDrop::into_inner(polled.outer.take());
                polled.outer.set(ManuallyDrop::new(outer.and_then(|it| it.outer)));
            }
            ManuallyDrop::into_inner(polled.returned.replace(ManuallyDrop::new(returned)))
        });
        // Only a handler that panicked leaves anything.
        drop(left);
    }
}

/// The sources of whose messages one is being handled by what is polled on this thread: that of the handler,
/// and those of the handlers within which its drain is polled.
pub(crate) fn handled() -> Vec<SourceId> {
    let handled = POLLED.try_with(|polled| {
        let outer = polled.outer.take();
        let outers = std::iter::successors(outer.as_deref(), |it| it.outer.as_deref());
        let handled = polled.source.get().into_iter().chain(outers.map(|it| it.source)).collect();
        polled.outer.set(outer);
        handled
    });
    handled.unwrap_or_default()
}

/// A message of a source is being undone, or given up, on this thread.
#[must_use = "it is over when this is dropped"]
pub(crate) struct Polls;

impl Polls {
    pub(crate) fn of(source: SourceId) -> Self {
        let _ = POLLED.try_with(|polled| polled.source.set(Some(source)));
        Self
    }
}

impl Drop for Polls {
    fn drop(&mut self) {
        let _ = POLLED.try_with(|polled| polled.source.set(None));
    }
}

/// Puts a handle that is dropped into the cell, if it is waited for.
#[inline]
pub(super) fn give_back(handle: &mut Option<Counted<StepInner>>) {
    let Some(address) = handle.as_ref().map(address) else { return };
    let _ = POLLED.try_with(|polled| {
        if polled.step.get() == address {
            polled.step.set(0);
            polled.returned.set(ManuallyDrop::new(handle.take()));
        }
    });
}

fn address(step: &Counted<StepInner>) -> usize {
    Counted::as_ptr(step).addr()
}

/// The step of a slot.
pub(crate) struct LentStep {
    own: Counted<StepInner>,
    /// The handle that is lent next.
    spare: Option<Counted<StepInner>>,
    scope: MessageScope,
    /// A message has begun whose end was not told so far.
    begun: bool,
    /// The number of who has delivered its last message, where that can deliver another one.
    deliverer: Option<u32>,
}

/// What a settlement asks of a step.
impl StepContext {
    /// Who has delivered the step's message, and the number of its receipt there.
    pub(crate) fn delivery(&self) -> Option<(StepDelivery, u64)> {
        let inner = self.inner();
        let delivery = inner.delivery.lock().clone()?;
        Some((delivery, inner.receipt.load(Ordering::Relaxed)))
    }
}

impl LentStep {
    pub(crate) fn new(
        context: &StepContext,
        token: &CancellationToken,
        drain: &DrainScope,
    ) -> Self {
        let context = context.inner();
        let own = Counted::new(StepInner {
            setting: Arc::clone(&context.setting),
            cancellation: token.clone(),
            scope: OnceLock::default(),
            source: None,
            message: AtomicU64::new(0),
            attempt: AtomicU32::new(0),
            delivery: Lock::default(),
            receipt: AtomicU64::new(0),
            lent: true,
        });
        Self { own, spare: None, scope: MessageScope::new(drain), begun: false, deliverer: None }
    }

    /// Lends the step for one attempt at a message. A message before it whose end was not told has
    /// ended, and what it staged is the drain's.
    #[inline]
    pub(crate) fn begin(&mut self, source: &SourceRef, number: u64, attempt: u32) -> StepContext {
        if self.begun && self.is_touched() {
            self.keep_later();
        }
        if self.own.source.as_ref().is_none_or(|known| known.id != source.id) {
            self.change(|inner| inner.source = Some(source.clone()));
        }
        self.own.message.store(number, Ordering::Relaxed);
        self.own.attempt.store(attempt, Ordering::Relaxed);
        self.begun = true;
        StepContext::from(match self.spare.take() {
            Some(spare) => spare,
            None => Counted::clone(&self.own),
        })
    }

    /// Says who has delivered the next message, and which one of theirs it is.
    #[inline]
    pub(crate) fn set_receipt(
        &mut self,
        deliverer: u32,
        receipt: u64,
        make: impl FnOnce() -> StepDelivery,
    ) {
        if self.deliverer != Some(deliverer) {
            self.set_delivery(Some(make()));
            self.deliverer = Some(deliverer);
        }
        self.own.receipt.store(receipt, Ordering::Relaxed);
    }

    /// Says who has delivered the next message, and no other.
    #[cold]
    pub(crate) fn set_delivery(&mut self, delivery: Option<StepDelivery>) {
        self.deliverer = None;
        let old = std::mem::replace(&mut *self.own.delivery.lock(), delivery);
        drop(old);
    }

    /// Gives the step another token. Between messages only.
    pub(crate) fn set_token(&mut self, token: CancellationToken) {
        self.change(|inner| inner.cancellation = token);
    }

    /// Changes the step that nobody has just now.
    #[cold]
    fn change(&mut self, change: impl FnOnce(&mut StepInner)) {
        self.spare = None;
        if Counted::get_mut(&mut self.own).is_none() {
            // Somebody has it all the same: that one keeps what it has.
            let mut own = StepInner::clone(&self.own);
            (own.lent, own.scope) = (true, OnceLock::default());
            self.end(false);
            self.own = Counted::new(own);
            self.scope.reopen();
        }
        if let Some(inner) = Counted::get_mut(&mut self.own) {
            change(inner);
        }
    }

    /// Says that the handler is polled from now on: before it is called, and before each poll.
    #[inline]
    pub(crate) fn arm(&self) {
        let _ = POLLED.try_with(|polled| {
            polled.step.set(address(&self.own));
            polled.source.set(self.own.source.as_ref().map(|source| source.id));
        });
    }

    /// Says that the handler is not polled any more, and takes the handle that came back.
    #[inline]
    pub(crate) fn disarm(&mut self) {
        let returned = POLLED.try_with(|polled| {
            polled.step.set(0);
            polled.source.set(None);
            ManuallyDrop::into_inner(polled.returned.take())
        });
        if let Ok(Some(returned)) = returned {
            self.spare = Some(returned);
        }
    }

    /// The source of its message.
    pub(crate) fn source(&self) -> Option<SourceId> {
        self.own.source.as_ref().map(|source| source.id)
    }

    /// Whether nobody else holds the step or its scope. Whoever did is seen to have finished.
    #[inline]
    pub(crate) fn is_home(&self) -> bool {
        let handles = 1 + usize::from(self.spare.is_some());
        let home = Counted::strong_count(&self.own) == handles;
        fence(Ordering::Acquire);
        home && self.own.has_sole_scope()
    }

    /// Whether anything was staged since the last flush.
    #[inline]
    pub(crate) fn is_touched(&self) -> bool {
        self.own.scope.get().is_some_and(CompensationScope::is_touched)
    }

    #[inline]
    pub(crate) fn scope(&self) -> &CompensationScope {
        self.own.scope()
    }

    /// The message has ended, its step is home, and what it staged is done with: it is dropped by
    /// [`flush`](LentStep::flush), or by whoever looks at the scope before. Costs one store.
    #[inline]
    pub(crate) fn commit_later(&mut self) {
        self.end_later(true);
    }

    #[inline]
    fn end_later(&mut self, committed: bool) {
        self.begun = false;
        if let Some(scope) = self.own.scope.get() {
            self.scope.end_later(scope, committed);
        }
    }

    /// The message has ended, its step is home, and what it staged is the drain's: it is moved there
    /// by [`flush`](LentStep::flush), or by whoever looks at the scope before. Costs one store.
    #[inline]
    pub(crate) fn keep_later(&mut self) {
        self.end_later(false);
    }

    /// At the end of a turn, and where a handler waits: drops, or moves to the drain's scope, what
    /// belongs to messages that have ended.
    #[inline]
    pub(crate) fn flush(&mut self) {
        if self.is_touched() {
            self.scope.flush(self.own.scope(), self.begun);
        }
    }

    /// The message has ended, and what it staged goes to the drain's scope now.
    pub(crate) fn hand_over(&mut self) {
        self.begun = false;
        if let Some(scope) = self.own.scope.get() {
            self.scope.hand_over(scope);
        }
    }

    /// The message has ended, and what it staged goes to the scope of the drain's context, where
    /// the end of the drain does not touch it.
    pub(crate) fn hand_over_to_context(&mut self) {
        self.begun = false;
        if let Some(scope) = self.own.scope.get() {
            self.scope.hand_over_to_context(scope);
        }
    }

    /// The message has ended, and somebody has kept its step or its scope: what is registered with
    /// it from now on is the drain's while that runs, and then the context's. If the message is
    /// `committed`, what it has staged is dropped, and what a drain nested in it does with success
    /// is final; if not, it is the drain's.
    pub(crate) fn let_go(mut self, committed: bool) {
        self.end(committed);
    }

    fn end(&mut self, committed: bool) {
        self.begun = false;
        // Whatever comes later finds its way from there.
        self.scope.let_go(self.own.scope(), committed);
    }
}

/// What is staged goes to the drain's scope, also what comes later.
impl Drop for LentStep {
    fn drop(&mut self) {
        self.spare = None;
        if !self.scope.is_over() && (self.is_touched() || !self.is_home()) {
            self.end(false);
        }
    }
}
