//! Earthquakes from twelve feeds, over three transports, through one handler.
//!
//! Messages come from a lease queue in `SQLite`, a partitioned log on disk and a loopback socket at
//! once. Handling one persists an idempotency token, emits a domain event into an outbox, and
//! completes the lease (or commits the offset, or acknowledges the line); each of these effects
//! has a compensation. When a message fails, the drain ends and everything it did is undone in
//! reverse. At the end an audit reads the database back and shows that every message is done
//! completely or has left no trace.
//!
//! ```text
//! cargo run --release -p high_volume_fan_in -- --help
//! ```
//!
//! Read `worker` first: it has the handler and the drain. Then `effect` (what is done and undone),
//! `store` (`SQLite` without blocking the executor), and `lease_queue`, `partition_log` and `tcp`.

mod audit;
mod cli;
mod effect;
mod event;
mod executor;
mod input;
mod lease_queue;
mod lines;
mod partition_log;
mod report;
mod run;
mod schema;
mod signals;
mod source;
mod store;
mod tcp;
#[cfg(test)]
mod tests;
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
    let signals = signals::Signals::listen()?;
    let summary = run::run(options, &ProgressBar::new(0), &signals)?;
    print!("{}", report::report(options, &summary)?);
    Ok(ExitCode::from(summary.exit_code()))
}
