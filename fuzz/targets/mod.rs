//! What every fuzz target runs: bytes in, and a panic when the contract is broken.
//!
//! `fuzz_targets` hands it to the fuzzer, and `tests/fuzz_corpus.rs` runs it over the corpus.
//! Programs and the model of them are those of `tests/proof/model`.

#![allow(dead_code, unreachable_pub, reason = "every target uses a part of it")]
#![allow(clippy::too_many_lines, reason = "one match over all operations reads best")]

#[path = "../../tests/proof/model/program.rs"]
mod program;
#[path = "../../tests/proof/model/reference/mod.rs"]
mod reference;
#[path = "../../tests/proof/model/run/mod.rs"]
mod run;

mod group;
mod live_sources;
mod scope;
mod select;

pub use group::group;
pub use live_sources::live_sources;
pub use scope::scope;
pub use select::select;

/// A name, which is that of its corpus, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

pub const ALL: [Target; 5] = [
    ("fan_in", fan_in),
    ("group", group),
    ("live_sources", live_sources),
    ("scope", scope),
    ("select", select),
];

/// Random programs, as in the proof.
pub fn fan_in(bytes: &[u8]) {
    if let Err(wrong) = run::check(bytes) {
        panic!("{wrong}");
    }
}
