//! Lending a context to one handler after another without counting references.
//!
//! A drain calls its handler with an owned context a million times a second, and two atomic counts
//! a message would cost a third of its time. So a lane moves its context into the handler. When
//! the handler's last handle goes away while the lane is polling it, which is what nearly always
//! happens, the context is not freed but returned, through this thread's slot. A handle that is
//! dropped at any other time or place is dropped as usual, and the lane makes a new context.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::Inner;

thread_local! {
    /// The number of the context that the lane being polled has lent, 0 for none.
    static EXPECTED: Cell<u64> = const { Cell::new(0) };
    static RETURNED: Cell<Option<Arc<Inner>>> = const { Cell::new(None) };
}

/// A number for a context that can be lent. Contexts of users have the number 0.
pub(super) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Says which context is waited for on this thread, and returns which one was.
#[inline]
pub(super) fn expect(number: u64) -> u64 {
    EXPECTED.replace(number)
}

/// Returns a context if it is waited for here and this is its last handle; drops it otherwise.
#[inline]
pub(super) fn give_back(inner: Arc<Inner>) {
    if inner.loan != 0 && inner.loan == EXPECTED.get() && Arc::strong_count(&inner) == 1 {
        // What other handles did before they went away must be visible to the lane.
        fence(Ordering::Acquire);
        RETURNED.set(Some(inner));
    }
}

/// What was returned since the last call, if it is the context with this number.
#[inline]
pub(super) fn take_returned(number: u64) -> Option<Arc<Inner>> {
    RETURNED.take().filter(|inner| inner.loan == number)
}
