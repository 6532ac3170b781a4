//! `cargo bench -p benches --bench settlement`: settling with a transport beside the same drain
//! without one, and beside the same by hand, in one run, with the same measuring and the same
//! arguments as the bench `peers`.
//!
//! - `one_by_one`: a transport that answers at once and takes one verdict a call
//! - `batches`: one that takes 100 verdicts a call and answers after 1 ms
//!
//! The size is how many handlers may run at once, all on one source, in any order.

mod settling;
#[path = "../support/mod.rs"]
mod support;
mod transport;

use std::process::ExitCode;

use support::section::Section;

static SECTIONS: [Section; 2] = [settling::ONE_BY_ONE, settling::BATCHES];

fn main() -> ExitCode {
    support::run(&SECTIONS)
}
