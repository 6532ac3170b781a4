//! A set of numbers that every thread may add to, and that grows without a lock.
//!
//! One bit a number. The words are in blocks, each twice as long as the one before, which are made
//! when first needed and never moved. A summary has a bit for every 63rd word, so that looking for
//! what was added does not look at every word; its highest bit is the caller's own.

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Words of the first block: 256 numbers.
const FIRST: usize = 4;
/// Enough for 2^32 numbers.
const BLOCKS: usize = 25;
const GROUPS: usize = 63;

/// The caller's own bit of the summary.
const FLAG: u64 = 1 << GROUPS;

#[derive(Debug, Default)]
pub(super) struct Words {
    summary: AtomicU64,
    blocks: [OnceLock<Box<[AtomicU64]>>; BLOCKS],
}

/// The block of a word, and its place there.
fn locate(word: usize) -> (usize, usize) {
    let block = ((word + FIRST) / FIRST).ilog2() as usize;
    (block, word - ((FIRST << block) - FIRST))
}

impl Words {
    fn word(&self, word: usize) -> &AtomicU64 {
        let (block, offset) = locate(word);
        let make = || (0..FIRST << block).map(|_| AtomicU64::new(0)).collect();
        &self.blocks[block].get_or_init(make)[offset]
    }

    /// Adds a number. Returns whether there was nothing before, the caller's own bit included.
    pub(super) fn add(&self, number: u32) -> bool {
        let word = number as usize / 64;
        self.word(word).fetch_or(1 << (number % 64), Ordering::AcqRel) == 0
            && self.summary.fetch_or(1 << (word % GROUPS), Ordering::AcqRel) == 0
    }

    /// Sets the caller's own bit.
    pub(super) fn set_flag(&self) {
        self.summary.fetch_or(FLAG, Ordering::AcqRel);
    }

    /// Takes the caller's own bit back, unless there are numbers: then it stays.
    pub(super) fn clear_flag(&self) -> bool {
        if self.summary.fetch_and(!FLAG, Ordering::AcqRel) == FLAG {
            return true;
        }
        self.set_flag();
        false
    }

    /// Takes out every number below `end`, while the caller's own bit is set.
    #[inline]
    pub(super) fn drain(&self, end: usize, each: impl FnMut(u32)) {
        if self.summary.load(Ordering::Acquire) != FLAG {
            self.drain_some(end, each);
        }
    }

    fn drain_some(&self, end: usize, mut each: impl FnMut(u32)) {
        let mut groups = self.summary.swap(FLAG, Ordering::AcqRel) & !FLAG;
        while groups != 0 {
            let group = groups.trailing_zeros() as usize;
            groups &= groups - 1;
            for word in (group..end.div_ceil(64)).step_by(GROUPS) {
                let bits = self.word(word);
                if bits.load(Ordering::Relaxed) == 0 {
                    continue;
                }
                let mut bits = bits.swap(0, Ordering::AcqRel);
                while bits != 0 {
                    each(u32::try_from(word * 64).unwrap_or(u32::MAX) + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
        }
    }
}

#[cfg(all(test, not(any(watershed_loom, watershed_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_word_of_its_own() {
        let mut before = (0, FIRST - 1);
        for word in FIRST..10_000 {
            let (block, offset) = locate(word);
            let next = if before.1 + 1 == FIRST << before.0 {
                (before.0 + 1, 0)
            } else {
                (before.0, before.1 + 1)
            };
            assert_eq!((block, offset), next, "word {word}");
            before = next;
        }
        assert!(locate(u32::MAX as usize / 64).0 < BLOCKS);
    }

    #[test]
    fn what_was_added_comes_out_once() {
        let words = Words::default();
        words.set_flag();
        let numbers = [0, 1, 63, 64, 255, 256, 5_000, 300_000];
        for number in numbers {
            assert!(!words.add(number), "the flag is set");
            words.add(number);
        }
        assert!(!words.clear_flag());
        let mut seen = Vec::new();
        words.drain(300_001, |number| seen.push(number));
        seen.sort_unstable();
        assert_eq!(seen, numbers);
        words.drain(300_001, |number| panic!("{number} came twice"));
        assert!(words.clear_flag());
        assert!(words.add(7));
    }
}
