//! `cargo bench -p benches --bench memory`: how many bytes the library and its peers take.
//!
//! - `idle_sources`: a source without messages; `idle_keyed`: the same, ordered by key at a high limit
//! - `in_flight`, `in_flight_of_one`: a message whose handler waits
//! - `staged_actions`: a staged compensation
//! - `unsettled`: a message that was handled and has no outcome
//! - `steady`: what a long drain has gained at its end
//!
//! The arguments are those of the bench `peers`. It is a bench of its own because its allocator
//! counts, which would cost every contender there as much time as it allocates.

mod counting;
mod in_flight;
mod sources;
mod staged;
mod steady;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "nothing is undone here")]
#[path = "../peers/undo.rs"]
mod undo;
mod unsettled;

use std::process::ExitCode;

use support::section::Section;

static SECTIONS: [Section; 7] = [
    sources::IDLE,
    sources::KEYED,
    in_flight::OF_MANY,
    in_flight::OF_ONE,
    staged::SECTION,
    unsettled::SECTION,
    steady::SECTION,
];

fn main() -> ExitCode {
    support::run(&SECTIONS)
}
