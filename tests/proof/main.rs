//! The proof: every fault at every point, every schedule that a seed can make, and the largest
//! sizes. Each test prints what it went through.
//!
//! `cargo test --release --all-features --test proof -- --nocapture` takes about a
//! minute; with `WATERSHED_PROOF=long` in the environment every count is larger. A debug build, or
//! `WATERSHED_PROOF=short`, runs the same tests with small counts.

mod cancellation;
mod effort;
mod fairness;
mod faults;
mod mixture;
mod model;
mod scale;
mod scenario;
mod subsets;
mod wakes;
