//! The numbers that put every action of the process in one order.
//!
//! Numbers are handed out in blocks, so that a scope which registers several actions in a row pays
//! for the shared counter once. A scope may go on with its block only as long as nobody has drawn
//! a later one: then no other action can have been registered since, and the order is exact.

use crate::sync::atomic::Ordering;
use crate::sync::process_counter;

const BLOCK: u64 = 1 << 12;

process_counter! {
    /// The first block is nobody's: a scope that has drawn nothing must not take it for its own.
    static NEXT_BLOCK = 2 * BLOCK
}

/// A scope's place in the order.
#[derive(Debug, Default)]
pub(super) struct Order {
    next: u64,
}

impl Order {
    /// The next number: greater than every number that was drawn before.
    #[inline]
    pub(super) fn draw(&mut self) -> u64 {
        let end_of_block = (self.next | (BLOCK - 1)) + 1;
        let latest = NEXT_BLOCK.load(Ordering::Relaxed) == end_of_block;
        // The last number of a block is never used: it would make the block look like the next.
        if !latest || self.next + 1 == end_of_block {
            self.next = NEXT_BLOCK.fetch_add(BLOCK, Ordering::Relaxed);
        }
        let number = self.next;
        self.next += 1;
        number
    }
}

#[cfg(all(test, not(any(watershed_loom, watershed_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_over_scopes_that_take_turns_and_over_full_blocks() {
        let (mut left, mut right) = (Order::default(), Order::default());
        let mut last = 0;
        for turn in 0..20_000_u64 {
            let scope = if turn % 5 == 0 { &mut right } else { &mut left };
            let number = scope.draw();
            assert!(number > last, "turn {turn}: {number} after {last}");
            last = number;
        }
        for _ in 0..2 * BLOCK {
            let number = left.draw();
            assert!(number > last);
            last = number;
        }
    }
}
