//! `cargo bench --bench fan_in`: what draining many ready channels through one handler costs, alone
//! and with two compensations a message, and what rolling back costs.
//!
//! Three workloads of the bench `peers`, for a look after each change; see there for what is timed
//! and for the arguments.

#[allow(dead_code, reason = "the bench of all workloads uses the rest")]
#[path = "../peers/compensations.rs"]
mod compensations;
#[path = "../peers/draining.rs"]
mod draining;
#[path = "../peers/ready.rs"]
mod ready;
#[allow(dead_code, reason = "the bench of all workloads uses the rest")]
#[path = "../peers/rollback.rs"]
mod rollback;
#[path = "../support/mod.rs"]
mod support;
#[path = "../peers/undo.rs"]
mod undo;

use std::process::ExitCode;

use support::section::Section;

static SECTIONS: [Section; 3] = [ready::SECTION, compensations::OF_TWO, rollback::ALONE];

fn main() -> ExitCode {
    support::run(&SECTIONS)
}
