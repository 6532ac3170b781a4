//! What a live source and its handles share: what the owner wishes, and how the source ended.
//!
//! A wish is changed under the lock and read without it. Whoever takes messages leaves its waker
//! here whenever it looks; as long as that waker is still here and still its own, looking is one
//! load. A change of the wish takes the waker and wakes it, outside the lock.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::SourceEnd;
use crate::lock::Lock;
use crate::origin::SourceId;
use crate::panics::{self, Held};
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::waiters::Waiters;

/// What is to be done with the source. The last one is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Run = 0,
    Pause = 1,
    Remove = 2,
}

/// The bits of [`Control::state`] that hold the wish.
const WISH: u8 = 0b011;
/// Set while [`ControlInner::taker`] is there.
const LISTENING: u8 = 0b100;

impl Wish {
    fn of(state: u8) -> Self {
        match state & WISH {
            0 => Self::Run,
            1 => Self::Pause,
            _ => Self::Remove,
        }
    }
}

/// Where somebody waits for the end of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    Nothing,
    /// A handler, or what undoes its message or puts it aside: its drain waits for it when it is asked to
    /// end.
    Handler,
    /// It would wait for itself: a handler of the source, say.
    OwnHandler,
}

pub(super) struct Control<S> {
    pub(super) id: SourceId,
    /// A [`Wish`] and [`LISTENING`]; changed under the lock.
    state: AtomicU8,
    inner: Lock<ControlInner<S>>,
}

struct ControlInner<S> {
    /// Whoever takes messages, and is to hear of another wish.
    taker: Option<Waker>,
    how: Option<SourceEnd>,
    /// Its drain was asked to end: no handler is kept waiting for it, since it waits for them.
    drain_ends: bool,
    /// What is left of a source that was not drained.
    source: Option<Held<Pin<Box<S>>>>,
    waiters: Waiters,
}

impl<S> Control<S> {
    pub(super) fn new(id: SourceId) -> Self {
        let waiters = Waiters::default();
        let inner =
            ControlInner { taker: None, how: None, drain_ends: false, source: None, waiters };
        Self { id, state: AtomicU8::new(Wish::Run as u8), inner: Lock::new(inner) }
    }

    /// Whether this changes or has changed anything: not of a source that is gone or on its way.
    pub(super) fn wish(&self, wish: Wish) -> bool {
        let taker = {
            let mut inner = self.inner.lock();
            if inner.how.is_some() {
                return false;
            }
            let now = self.wished();
            if now == Wish::Remove || now == wish {
                return now == wish;
            }
            self.state.store(wish as u8, Ordering::Release);
            inner.taker.take()
        };
        panics::wake_each(taker);
        true
    }

    pub(super) fn wished(&self) -> Wish {
        Wish::of(self.state.load(Ordering::Acquire))
    }

    pub(super) fn is_paused(&self) -> bool {
        self.inner.lock().how.is_none() && self.wished() == Wish::Pause
    }

    /// What is wished now; another wish wakes this task. `registered` is the waker that was left
    /// here last.
    #[inline]
    pub(super) fn listen(&self, registered: &mut Option<Waker>, cx: &Context<'_>) -> Wish {
        let state = self.state.load(Ordering::Acquire);
        let is_registered = || registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if state & LISTENING != 0 && is_registered() {
            return Wish::of(state);
        }
        self.register(registered, cx)
    }

    #[cold]
    fn register(&self, registered: &mut Option<Waker>, cx: &Context<'_>) -> Wish {
        // Cloning and dropping a waker is the executor's code: neither happens under the lock.
        let waker = cx.waker().clone();
        let (wish, old) = {
            let mut inner = self.inner.lock();
            let old = inner.taker.replace(waker);
            let wish = self.wished();
            self.state.store(wish as u8 | LISTENING, Ordering::Release);
            (wish, old)
        };
        drop(old);
        *registered = Some(cx.waker().clone());
        wish
    }

    /// The source has ended; what is left of it waits here for its owner.
    pub(super) fn finish(&self, how: SourceEnd, source: Option<Pin<Box<S>>>) {
        let (taker, waiters) = {
            let mut inner = self.inner.lock();
            inner.how = Some(how);
            inner.source = source.map(Held::new);
            (inner.taker.take(), inner.waiters.take())
        };
        panics::drop_each(taker);
        panics::wake_each(waiters.into_values());
    }

    /// The drain was asked to end: who waits in a handler is told so.
    pub(super) fn drain_ends(&self) {
        let waiters = {
            let mut inner = self.inner.lock();
            inner.drain_ends = true;
            inner.waiters.take()
        };
        panics::wake_each(waiters.into_values());
    }

    pub(super) fn has_ended(&self) -> bool {
        self.inner.lock().how.is_some()
    }

    /// How the source ended; until it has, the task is woken at its end. One that runs `within` a
    /// handler of the source would wait for itself.
    pub(super) fn poll_end(
        &self,
        waiter: &mut Option<u64>,
        cx: &Context<'_>,
        within: Within,
    ) -> Poll<SourceEnd> {
        let waker = cx.waker().clone();
        let old = {
            let mut inner = self.inner.lock();
            if let Some(how) = inner.how {
                drop(inner);
                return Poll::Ready(how);
            }
            let waits_for_itself = match within {
                Within::Nothing => false,
                Within::Handler => inner.drain_ends,
                Within::OwnHandler => true,
            };
            if waits_for_itself {
                drop(inner);
                return Poll::Ready(SourceEnd::NotYet);
            }
            inner.waiters.wait(waiter, waker)
        };
        drop(old);
        Poll::Pending
    }

    /// The waiter with this key waits no longer.
    pub(super) fn forget(&self, waiter: u64) {
        let old = self.inner.lock().waiters.remove(waiter);
        panics::drop_each(old);
    }

    /// What is left of the source, once.
    pub(super) fn take_source(&self) -> Option<Pin<Box<S>>> {
        let source = self.inner.lock().source.take();
        source.and_then(Held::take)
    }
}
