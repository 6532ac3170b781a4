//! Lending a context to one handler after another without counting references.
//!
//! A drain calls its handler with an owned context a million times a second, and two atomic counts
//! a message would cost a third of its time. So a lane moves its context into the handler. When
//! the handler's last handle goes away while the lane is polled, which is what nearly always
//! happens, the context is not freed but returned to this thread's slot, from which the next
//! message gets it. Between two turns the lane has it. A handle that is dropped at any other time
//! or place is dropped as usual, and the lane makes a new context.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::atomic::AtomicU64;

use super::{Inner, StepContext};
use crate::compensation::kept;
use crate::panics;
use crate::sync::atomic::{Ordering, fence};
use crate::sync::{Arc, thread_local};

thread_local! {
    /// The number of the context that the lane being polled has lent and waits for, 0 for none.
    static EXPECTED: Cell<u64> = const { Cell::new(0) };
    /// The context of the lane being polled while it is not lent. Empty between turns, so that a
    /// slot without a destructor, which every access would have to ask about, leaks nothing.
    static SLOT: Cell<ManuallyDrop<Option<Arc<Inner>>>> =
        const { Cell::new(ManuallyDrop::new(None)) };
}

/// What this thread was at when a turn began.
pub(crate) struct Outer {
    expected: u64,
    slot: Option<Arc<Inner>>,
    kept: kept::Outer,
}

/// A number for a context that can be lent. Contexts of users have the number 0.
pub(super) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Begins a turn of the lane that has this context, or waits for the one with this number.
#[inline]
pub(crate) fn enter(step: Option<StepContext>, number: u64) -> Outer {
    let inner = step.and_then(|mut step| step.inner.take());
    let expected = EXPECTED.replace(if inner.is_some() { 0 } else { number });
    Outer { expected, slot: put(inner), kept: kept::enter() }
}

/// Ends a turn, and hands the lane the context that was not lent or came back.
#[inline]
pub(crate) fn leave(outer: Outer) -> Option<StepContext> {
    kept::leave(&outer.kept);
    EXPECTED.set(outer.expected);
    put(outer.slot).map(StepContext::from)
}

/// Puts a context into the slot, and takes out what was there.
#[inline]
fn put(inner: Option<Arc<Inner>>) -> Option<Arc<Inner>> {
    ManuallyDrop::into_inner(SLOT.replace(ManuallyDrop::new(inner)))
}

/// Lends the context with this number to a handler that is about to be called, if it is there.
#[inline]
pub(crate) fn lend(number: u64) -> Option<StepContext> {
    let inner = put(None).filter(|inner| inner.loan == number)?;
    expect(number);
    Some(StepContext::from(inner))
}

/// Lends the context with this number in place of any that may come back.
pub(crate) fn lend_another(number: u64) {
    if let Some(inner) = put(None) {
        panics::drop_contained(|| drop(inner));
    }
    expect(number);
}

#[inline]
fn expect(number: u64) {
    // `LocalKey::set` is a call; this is one instruction.
    EXPECTED.with(|expected| expected.set(number));
    kept::begin(number);
}

/// Whether the lane being polled waits for no context.
#[inline]
pub(crate) fn is_back() -> bool {
    EXPECTED.get() == 0
}

/// Returns a context if it is waited for here and this is its last handle.
#[inline]
pub(super) fn give_back(handle: &mut Option<Arc<Inner>>) {
    let Some(inner) = handle else { return };
    if inner.loan != 0 && inner.loan == EXPECTED.get() && Arc::strong_count(inner) == 1 {
        // What other handles did before they went away must be visible to the lane.
        fence(Ordering::Acquire);
        // There is one context of this number, and it was not there.
        EXPECTED.with(|expected| expected.set(0));
        SLOT.with(|slot| slot.set(ManuallyDrop::new(handle.take())));
    }
}
