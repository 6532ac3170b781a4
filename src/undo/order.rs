//! The numbers that put every action of the process in one order.

use crate::sync::atomic::Ordering;
use crate::sync::process_counter;

process_counter! {
    /// The number of the next action. 0 is nobody's.
    static NEXT = 1
}

/// The next number: greater than every number that this thread can have seen.
#[inline]
pub(crate) fn draw() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A number that is greater than every number drawn so far, as far as this thread can know, and
/// not greater than any that it or those who hear from it will draw.
#[inline]
pub(super) fn mark() -> u64 {
    NEXT.load(Ordering::Relaxed)
}
