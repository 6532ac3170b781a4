//! Two processes on one lease queue and one partitioned log. Either may be killed at any moment.
//!
//! Half of the orders are rows of a table in `SQLite` that a worker leases; the other half are lines of
//! a log on disk, whose partitions the workers share between them. Handling an order takes two
//! transactions, each with its compensation; the library settles it by what became of that. `prove`
//! kills the workers with SIGKILL at random moments and starts them again, until everything is done,
//! and then audits the database: every order took effect exactly once, or is among the dead letters.
//!
//! ```text
//! cargo run --release -p two_workers -- prove 10
//! ```
//!
//! Read `worker` first. `lease_queue` and `partition_log` are models for adapters of your own.

mod audit;
mod database;
mod lease_queue;
mod partition_log;
mod prove;
#[cfg(test)]
mod tests;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use watershed::BoxError;

const USAGE: &str = "\
two_workers fill FOLDER ORDERS   makes a folder with a database and a log
two_workers work FOLDER          handles orders until there are none
two_workers audit FOLDER         compares the database with what was ordered
two_workers prove ROUNDS [FILE]  kills two workers again and again; goes on where FILE says it was";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), BoxError> {
    match arguments {
        ["fill", folder, orders] => database::fill(&PathBuf::from(folder), orders.parse()?),
        ["work", folder] => worker::work(&PathBuf::from(folder)).map(|report| println!("{report}")),
        ["audit", folder] => audit::audit(&PathBuf::from(folder)).map(|found| println!("{found}")),
        ["prove", rounds] => prove::prove(rounds.parse()?, None),
        ["prove", rounds, file] => prove::prove(rounds.parse()?, Some(&PathBuf::from(file))),
        _ => Err(USAGE.into()),
    }
}
