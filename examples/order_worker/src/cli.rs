//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::prove::Prove;

/// Takes orders from Kafka, SQS, tables of PostgreSQL and files at once, and puts each into one database
/// exactly once. Any number of it may work on the same sources, and any may be killed.
#[derive(Clone, Debug, Parser)]
#[command(name = "order_worker", after_help = EXIT_CODES)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// How much is logged, as JSON lines on standard error: error, warn, info, debug, trace, or by
    /// module, such as info,watershed=debug
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info,sqlx=warn,rdkafka=off")]
    pub(crate) log: String,
}

/// What there is to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Drain every source that the file names, until SIGTERM or Ctrl-C
    Work(Configured),
    /// Put orders made of earthquakes into every source; what is missing of topics, queues and tables is
    /// made
    Produce(Produce),
    /// Prove from the store and the sources that every order was handled exactly once, or is a dead letter
    Audit(Configured),
    /// Kill, freeze and cut off workers and servers while orders are drained, and audit; again and again
    Prove(Prove),
}

/// What needs nothing but its configuration.
#[derive(Args, Clone, Debug)]
pub(crate) struct Configured {
    /// The configuration: all.toml beside the source text shows what it can say
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// The options of `produce`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Produce {
    /// The configuration: all.toml beside the source text shows what it can say
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// How many orders each source gets
    #[arg(long, value_name = "N")]
    pub(crate) count: u32,

    /// How many of them are poison: they cannot be read, or are no valid orders
    #[arg(long, value_name = "K", default_value = "0")]
    pub(crate) poison: u32,

    /// What the ids of the orders begin with; orders of one id are one order [default: the time]
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,
}

const EXIT_CODES: &str = "\
Exit code:
  0  work: a signal ended it, and all that was begun is done, or undone and given back
     produce: all is sent; audit: all holds
  1  work: the drain failed, or something could not be undone (its message comes again and finishes it)
     audit: something does not hold: each finding is a line
  2  an option, the configuration or a server does not let it begin, or audit come to an end
  3  work: a second signal ended it, or finish_within was over; what ran was undone and given back";
