//! `cargo bench -p benches --bench settlement`: settling with a transport beside the same drain
//! without one, and beside the same by hand, in one run, with the same measuring and the same
//! arguments as the bench `peers`.
//!
//! - `one_by_one`: a transport that answers at once and takes one verdict a call
//! - `batches`: one that takes 100 verdicts a call and answers after 1 ms
//!
//! - `in_turn`: many transports, of which one at a time has a message
//!
//! The size is how many handlers may run at once, all on one source, in any order; of `in_turn`, how
//! many transports there are.

mod in_turn;
mod settling;
#[path = "../support/mod.rs"]
mod support;
mod transport;

use std::process::ExitCode;

use support::section::Section;

static SECTIONS: [Section; 3] = [settling::ONE_BY_ONE, settling::BATCHES, in_turn::IN_TURN];

fn main() -> ExitCode {
    support::run(&SECTIONS)
}
