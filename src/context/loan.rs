//! Lending a context to one handler after another without counting references.
//!
//! A drain calls its handler with an owned context a million times a second, and two atomic counts
//! a message would cost a third of its time. So a lane moves its context into the handler. When
//! the handler's last handle goes away while the lane is polling it, which is what nearly always
//! happens, the context is not freed but returned, through this thread's slot. A handle that is
//! dropped at any other time or place is dropped as usual, and the lane makes a new context.
//!
//! As long as nobody else can see the scope of a lent context, what the handler registers is kept
//! on this thread and needs no lock: from the call of the handler until its first poll ends, or
//! until it clones its context or asks for the scope. Then it moves into the scope. A handler that
//! polls another drain in between has what it kept set aside.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::Inner;
use crate::compensation::{Action, Columns, Order};

thread_local! {
    /// The number of the context that the lane being polled has lent, 0 for none.
    static EXPECTED: Cell<u64> = const { Cell::new(0) };
    static RETURNED: Cell<Option<Arc<Inner>>> = const { Cell::new(None) };
    static KEEPING: Cell<Keeping> = const { Cell::new(Keeping::Off) };
    static KEPT: Cell<Option<Box<Kept>>> = const { Cell::new(None) };
    /// What was kept by handlers which are polling another drain just now.
    static SUSPENDED: RefCell<Vec<(u64, Box<Kept>)>> = const { RefCell::new(Vec::new()) };
}

/// Whether the actions of the lent context are kept on this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    Off,
    Nothing,
    Actions,
}

/// The actions of the message that a handler on this thread is working at.
#[derive(Default)]
struct Kept {
    order: Order,
    actions: Columns,
}

/// What was lent on this thread when a turn began.
pub(crate) struct Outer {
    expected: u64,
    keeping: bool,
}

/// A number for a context that can be lent. Contexts of users have the number 0.
pub(super) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Begins a turn of the lane whose context has this number.
#[inline]
pub(crate) fn enter(number: u64) -> Outer {
    let keeping = KEEPING.replace(Keeping::Off) != Keeping::Off;
    let expected = EXPECTED.replace(number);
    if keeping {
        suspend(expected);
    }
    Outer { expected, keeping }
}

/// Ends a turn.
#[inline]
pub(crate) fn leave(outer: &Outer) {
    EXPECTED.set(outer.expected);
    KEEPING.set(Keeping::Off);
    if outer.keeping {
        resume(outer.expected);
    }
}

#[cold]
fn suspend(number: u64) {
    let kept = KEPT.take().unwrap_or_default();
    SUSPENDED.with_borrow_mut(|suspended| suspended.push((number, kept)));
}

/// Goes on keeping actions, unless somebody has looked at the scope meanwhile.
#[cold]
fn resume(number: u64) {
    if let Some(kept) = take_suspended(number) {
        KEEPING.set(Keeping::Actions);
        KEPT.set(Some(kept));
    }
}

fn take_suspended(number: u64) -> Option<Box<Kept>> {
    SUSPENDED.with_borrow_mut(|suspended| {
        let index = suspended.iter().rposition(|(expected, _)| *expected == number)?;
        Some(suspended.remove(index).1)
    })
}

/// Lends the context with this number to a handler that is about to be called.
#[inline]
pub(crate) fn lend(number: u64) {
    EXPECTED.set(number);
    // A thread that is ending has no place to keep anything.
    if KEPT.try_with(|_| ()).is_ok() {
        KEEPING.set(Keeping::Nothing);
    }
}

/// Keeps an action here if it is one of the lent context, or hands it out again.
#[inline]
pub(super) fn keep<A: Action>(
    inner: &Inner,
    action: A,
    registered_at: &'static Location<'static>,
) -> Option<A> {
    if KEEPING.get() == Keeping::Off || inner.loan != EXPECTED.get() {
        return Some(action);
    }
    let mut kept = KEPT.take().unwrap_or_default();
    let number = kept.order.draw();
    kept.actions.push(0, number, registered_at, action);
    KEPT.set(Some(kept));
    KEEPING.set(Keeping::Actions);
    None
}

/// Moves what is kept of this context into its scope, because somebody may look at it from now on.
#[inline]
pub(super) fn expose(inner: &Inner) {
    if inner.loan != 0 {
        expose_lent(inner);
    }
}

fn expose_lent(inner: &Inner) {
    if inner.loan != EXPECTED.get() {
        if let Some(mut kept) = take_suspended(inner.loan) {
            inner.scope.receive(&mut kept.actions, None);
        }
    } else if KEEPING.get() != Keeping::Off {
        take_kept(|actions| inner.scope.receive(actions, None));
    }
}

/// Whether actions of the lent context are kept here.
#[inline]
pub(crate) fn has_kept() -> bool {
    KEEPING.get() == Keeping::Actions
}

/// Stops keeping actions, and hands out those that were kept, if any: `into` must empty them.
#[inline]
pub(crate) fn take_kept(into: impl FnOnce(&mut Columns)) {
    if KEEPING.replace(Keeping::Off) != Keeping::Actions {
        return;
    }
    // The columns are kept for the next message; user code in `into` finds the slot empty.
    if let Some(mut kept) = KEPT.take() {
        into(&mut kept.actions);
        KEPT.set(Some(kept));
    }
}

/// Returns a context if it is waited for here and this is its last handle; drops it otherwise.
#[inline]
pub(super) fn give_back(inner: Arc<Inner>) {
    if inner.loan != 0 && inner.loan == EXPECTED.get() && Arc::strong_count(&inner) == 1 {
        // What other handles did before they went away must be visible to the lane.
        fence(Ordering::Acquire);
        // A thread that is ending has no slot any more, and nobody waits there.
        let _ = RETURNED.try_with(|slot| slot.set(Some(inner)));
    }
}

/// What was returned since the last call, if it is the context with this number.
#[inline]
pub(super) fn take_returned(number: u64) -> Option<Arc<Inner>> {
    let returned = RETURNED.try_with(Cell::take).ok().flatten();
    returned.filter(|inner| inner.loan == number)
}
