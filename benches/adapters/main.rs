//! `cargo bench -p benches --bench adapters`: the adapters beside their nearest peers, in one run, with the
//! same measuring and the same arguments as the bench `peers`.
//!
//! - `merge`, a stream over many channels, beside `select_all`, the merge of `futures-concurrency`
//!   and tokio's `StreamMap`
//! - `select` in a loop over 8 channels, beside a fresh race of receives for every message
//! - `window` by count, beside the chunks of `futures`
//! - `broadcast` of one channel into 8, beside the loop by hand

mod merging;
mod one_to_many;
mod selecting;
#[path = "../support/mod.rs"]
mod support;
mod windowing;

use std::process::ExitCode;

use support::section::Section;

static SECTIONS: [Section; 4] =
    [merging::SECTION, selecting::SECTION, windowing::SECTION, one_to_many::SECTION];

fn main() -> ExitCode {
    support::run(&SECTIONS)
}
