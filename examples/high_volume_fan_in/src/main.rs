//! Earthquakes from twelve feeds, over two transports, through one handler.
//!
//! Messages come from lease queues in `SQLite` and from a partitioned log on disk at once. Handling one
//! persists an idempotency token and emits a domain event into an outbox, each with its compensation;
//! then the library accepts the message: the lease is completed, or the offset committed. When a
//! message fails, what it did is undone in reverse, and it is given back or put among the dead letters.
//! At the end an audit reads the database back and shows that every message took effect once, is among
//! the dead letters, or waits and has left no trace.
//!
//! ```text
//! cargo run --release -p high_volume_fan_in -- --help
//! ```
//!
//! Read `worker` first: it has the handler. Then `drain`, `effect` (what is done and undone), and
//! `transports`: models for adapters of your own. Several processes can work on one database, and any
//! may be killed: `prove` does so, again and again.

mod audit;
mod cli;
mod database;
mod drain;
mod effect;
mod event;
mod executor;
mod faults;
mod input;
mod prove;
mod report;
mod run;
mod schema;
mod signals;
mod sources;
#[cfg(test)]
mod tests;
mod transports;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use indicatif::ProgressBar;
use watershed::BoxError;

fn main() -> ExitCode {
    let options = cli::Options::parse();
    match print_run(&options) {
        Ok(code) => code,
        Err(error) => {
            let mut cause = error.source();
            eprint!("error: {error}");
            while let Some(next) = cause {
                eprint!(": {next}");
                cause = next.source();
            }
            eprintln!();
            ExitCode::from(2)
        }
    }
}

fn print_run(options: &cli::Options) -> Result<ExitCode, BoxError> {
    if let Some(cli::Command::Prove { rounds, progress }) = &options.command {
        return prove::prove(*rounds, progress.as_deref()).map(|()| ExitCode::SUCCESS);
    }
    let signals = signals::Signals::listen()?;
    let summary = run::run(options, &ProgressBar::new(0), &signals)?;
    print!("{}", report::report(options, &summary)?);
    Ok(ExitCode::from(summary.exit_code()))
}
