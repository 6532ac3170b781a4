//! The command line.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::executor::Executor;

/// Drains twelve feeds of real earthquakes, from a lease queue, a partitioned log and a socket at
/// once, through one handler; undoes everything when one message fails; and proves from the
/// database that no message was left half done.
#[derive(Clone, Debug, Parser)]
#[command(name = "high_volume_fan_in", after_help = EXIT_CODES)]
pub(crate) struct Options {
    /// Read every .jsonl file of this folder, in place of the earthquakes built into the program
    #[arg(long, value_name = "DIR")]
    pub(crate) input: Option<PathBuf>,

    /// Deliver every line N times, as N different events
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) repeat: NonZeroU32,

    /// What polls the drain
    #[arg(long, value_enum, default_value_t = Executor::Futures)]
    pub(crate) executor: Executor,

    /// How many handlers run at once; within one feed it is always one
    #[arg(long, value_name = "N", default_value = "8", value_parser = at_least_one)]
    pub(crate) concurrency: usize,

    /// A deadline for the whole drain, such as 500ms or "2min 30s" [default: none]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Fail the processing of the N-th event, between the emission of its domain event and the
    /// completion of its lease
    #[arg(long, value_name = "N")]
    pub(crate) fail_at: Option<NonZeroU64>,

    /// What the failure of one message does to the others
    #[arg(long, value_enum, default_value_t = FailureMode::Abort)]
    pub(crate) on_failure: FailureMode,

    /// Keep the database in this file, and go on where an earlier run on it stopped; the log's
    /// partitions are kept beside it [default: a temporary folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) database: Option<PathBuf>,

    /// Shuffle the feeds and what transports them, the same way for the same seed [default: the
    /// order of the alphabet]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// What the failure of one message does to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailureMode {
    /// The drain ends and everything it did is undone
    Abort,
    /// The message alone is undone and left for the next run; the drain goes on
    RollBackMessage,
}

fn at_least_one(number: &str) -> Result<usize, String> {
    match number.parse() {
        Ok(0) => Err("with no handler at all nothing would be done; it is at least 1".to_owned()),
        Ok(handlers) => Ok(handlers),
        Err(_) => Err("it is a number of handlers, such as 8".to_owned()),
    }
}

const EXIT_CODES: &str = "\
Exit code:
  0  the audit holds, and the run ended as asked: it drained everything, or it failed where
     --fail-at told it to, or it left failed messages for later as --on-failure told it to
  1  the audit does not hold
  2  the run failed otherwise (a bad line, the timeout, unusable input); where it had taken
     messages, what it did is undone and the audit holds
  3  Ctrl-C or SIGTERM ended the run before everything was drained, and the audit holds: the first
     one lets what runs finish, and the next run goes on from there; the second one undoes the run";
