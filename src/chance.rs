//! Pseudo-random numbers that a seed fixes.

use std::sync::atomic::{AtomicU64, Ordering};

/// A sequence of pseudo-random numbers (`SplitMix64`), of which every draw takes the next.
#[derive(Debug)]
pub(crate) struct Chance(AtomicU64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn draw(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut bits = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number below `end`; 0 for an `end` of 0.
    pub(crate) fn below(&self, end: u64) -> u64 {
        // The upper half of the product of two 64-bit numbers is below either.
        let product = u128::from(end) * u128::from(self.draw());
        u64::try_from(product >> 64).unwrap_or(u64::MAX)
    }
}
