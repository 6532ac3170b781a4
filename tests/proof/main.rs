//! The proof: every fault at every point, every schedule that a seed can make, and the largest
//! sizes. Each test prints what it went through.
//!
//! `cargo test --release --all-features --test proof -- --nocapture` takes about a
//! minute; with `WATERSHED_PROOF=long` in the environment every count is larger. A debug build, or
//! `WATERSHED_PROOF=short`, runs the same tests with small counts.

#[path = "../support/mod.rs"]
#[allow(clippy::pedantic, unused_macros, reason = "the proof needs a part of it")]
mod support;

#[path = "../support/crossing/mod.rs"]
#[allow(
    clippy::pedantic,
    clippy::enum_variant_names,
    clippy::type_complexity,
    reason = "as in the tests of the contract"
)]
mod crossing;

#[allow(clippy::cast_possible_wrap, reason = "the numbers are small")]
mod bytes;
mod cancellation;
mod effort;
mod fairness;
mod faults;
mod guarded;
mod mixture;
mod model;
mod scale;
mod scenario;
mod steered;
mod subsets;
mod wakes;
