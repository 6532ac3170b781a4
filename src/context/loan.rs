//! Lending a context to one handler after another without counting references.
//!
//! A drain calls its handler with an owned context a million times a second, and two atomic counts
//! a message would cost a third of its time. So a lane moves its context into the handler. When
//! the handler's last handle goes away while the lane is polling it, which is what nearly always
//! happens, the context is not freed but returned, through this thread's slot. A handle that is
//! dropped at any other time or place is dropped as usual, and the lane makes a new context.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::atomic::AtomicU64;

use super::Inner;
use crate::compensation::kept;
use crate::panics;
use crate::sync::atomic::{Ordering, fence};
use crate::sync::{Arc, thread_local};

thread_local! {
    /// The number of the context that the lane being polled has lent, 0 for none.
    static EXPECTED: Cell<u64> = const { Cell::new(0) };
    /// Empty between two turns, so that nothing is leaked by a slot without a destructor, which
    /// every access would have to ask about.
    static RETURNED: Cell<ManuallyDrop<Option<Arc<Inner>>>> =
        const { Cell::new(ManuallyDrop::new(None)) };
}

/// What was lent on this thread when a turn began.
pub(crate) struct Outer {
    expected: u64,
    kept: kept::Outer,
}

/// A number for a context that can be lent. Contexts of users have the number 0.
pub(super) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Begins a turn of the lane whose context has this number.
#[inline]
pub(crate) fn enter(number: u64) -> Outer {
    Outer { expected: EXPECTED.replace(number), kept: kept::enter() }
}

/// Ends a turn. A context that came back and was not taken is freed here.
#[inline]
pub(crate) fn leave(outer: &Outer) {
    kept::leave(&outer.kept);
    EXPECTED.set(outer.expected);
    if let Some(inner) = put(None) {
        panics::drop_contained(|| drop(inner));
    }
}

/// Puts a context into the slot, and takes out what was there.
#[inline]
fn put(inner: Option<Arc<Inner>>) -> Option<Arc<Inner>> {
    ManuallyDrop::into_inner(RETURNED.replace(ManuallyDrop::new(inner)))
}

/// Lends the context with this number to a handler that is about to be called.
#[inline]
pub(crate) fn lend(number: u64) {
    // `LocalKey::set` is a call; this is one instruction.
    EXPECTED.with(|expected| expected.set(number));
    kept::begin(number);
}

/// Returns a context if it is waited for here and this is its last handle; drops it otherwise.
#[inline]
pub(super) fn give_back(inner: Arc<Inner>) {
    if inner.loan != 0 && inner.loan == EXPECTED.get() && Arc::strong_count(&inner) == 1 {
        // What other handles did before they went away must be visible to the lane.
        fence(Ordering::Acquire);
        drop(put(Some(inner)));
    }
}

/// What was returned since the last call, if it is the context with this number.
#[inline]
pub(super) fn take_returned(number: u64) -> Option<Arc<Inner>> {
    put(None).filter(|inner| inner.loan == number)
}
