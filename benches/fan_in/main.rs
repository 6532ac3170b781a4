//! `cargo bench --bench fan_in`: what draining many ready channels through one handler costs.
//!
//! One million messages lie in 1, 8, 64, 1,024 and 16,384 channels. In the same run and on the same
//! channels they are taken by `try_recv` alone, by the usual ways to merge streams, and by
//! `fan_in`; then with two compensations a message, against the same written by hand; then a
//! million staged compensations are rolled back both ways. Everything runs on one thread, under
//! `futures::executor::block_on`.
//!
//! What is timed goes from a list of filled channels to everything taken and dropped: the merging
//! stream is made, and taken down, inside. The contenders take turns within a round, so that a
//! machine which slows down slows all of them; a ratio is taken within its round, and the table
//! shows the median over the rounds.
//!
//! Arguments, after a `--`:
//!
//! - `--quick`: few messages, one round, no verdict. So it is too when cargo runs this as a test.
//! - `--only fan_in --sources 64`: one contender, one size; each may be given more than once.
//! - `--channels unbounded`, `--messages 200000`, `--rounds 3`.
//!
//! To count the instructions of one contender, without filling the channels:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*measure::timed' \
//!     target/release/deps/fan_in-… --only fan_in --sources 64 --messages 100000
//! ```

mod channels;
mod compensated;
mod measure;
mod report;
mod rollback;
mod settings;
mod targets;
mod uncompensated;

use std::process::ExitCode;

use settings::Settings;
use targets::Tally;

fn main() -> ExitCode {
    let settings = Settings::from_arguments();
    println!("{settings}\n");

    let sections = [uncompensated::SECTION, compensated::SECTION, rollback::SECTION];
    let measured = sections.map(|section| {
        let measured = section.measure(&settings);
        report::print(section.title, &measured);
        (section, measured)
    });

    if measured.iter().all(|(_, measured)| measured.is_empty()) {
        let contenders = measured.iter().flat_map(|(section, _)| section.contenders);
        let names: Vec<_> = contenders.map(|contender| contender.name).collect();
        eprintln!("There is no such contender. There are: {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    if settings.is_quick() {
        println!("Too short a run to be held against targets.");
        return ExitCode::SUCCESS;
    }

    // A miss is reported and no more: a busy machine must not fail a build.
    let mut tally = Tally::default();
    for (section, measured) in &measured {
        tally.print(section.title, section.targets, measured);
    }
    tally.print_total();
    ExitCode::SUCCESS
}
