//! The command line.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::executor::Executor;

/// Drains twelve feeds of real earthquakes, from lease queues and a partitioned log, through one
/// handler; undoes what a message did that fails; and proves from the database that every message took
/// effect once. Several of it can work on one --database at once, and any may be killed.
#[derive(Clone, Debug, Parser)]
#[command(name = "high_volume_fan_in", after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
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

    /// Fail the message that emits the N-th domain event, behind that emission, each time it is tried
    #[arg(long, value_name = "N")]
    pub(crate) fail_at: Option<NonZeroU64>,

    /// Fail one effect of N by chance
    #[arg(long, value_name = "N")]
    pub(crate) fail_one_in: Option<NonZeroU32>,

    /// What becomes of a message that fails in each of its attempts
    #[arg(long, value_enum, default_value_t = FailureMode::Stop)]
    pub(crate) on_failure: FailureMode,

    /// Keep the database in this file, and go on where earlier runs on it stopped; the log's
    /// partitions are kept beside it [default: a temporary folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) database: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What else there is to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Kill or freeze two workers on one database until all is settled, and audit; again and again
    Prove {
        /// How many databases
        rounds: u64,
        /// Note here how many there were, and go on from what is noted
        progress: Option<PathBuf>,
    },
}

/// What becomes of a message that fails in each of its attempts. What it did is undone in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailureMode {
    /// It is given back, and the run ends; the next one takes it again
    Stop,
    /// It goes to the dead letters, and the run goes on
    DeadLetter,
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
  0  the audit holds, and the run ended as asked: every message is settled, or it stopped where
     --fail-at told it to
  1  the audit does not hold
  2  the run failed otherwise (a bad line, the timeout, unusable input); where it had taken
     messages, what is not done of them is undone, and the audit holds
  3  Ctrl-C or SIGTERM ended the run before everything was settled, and the audit holds: the first
     one lets what runs finish, the second one undoes it; the next run goes on from there";
