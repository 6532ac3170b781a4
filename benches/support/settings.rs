//! How much is measured: the arguments, and what they default to.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::channels::{Kind, Load};
use super::report::grouped;
use super::section::{Column, Contender, Section};

const QUICK_MESSAGES: u32 = 20_000;

/// What `cargo bench`, `cargo test` and people pass.
#[allow(clippy::struct_excessive_bools, reason = "each is an argument")]
#[derive(Debug, Parser)]
pub(crate) struct Settings {
    /// Measure only these workloads [default: all]
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,

    /// Few messages and one round: shows that it works, not how fast
    #[arg(long)]
    quick: bool,

    /// Measure only this contender; may be given more than once
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// Measure only at this size, which in most workloads is the number of sources; may be given
    /// more than once
    #[arg(long, alias = "sources", value_name = "SIZE")]
    size: Vec<u32>,

    /// What the sources are
    #[arg(long, value_enum, default_value = "bounded")]
    channels: Kind,

    /// Messages in all [default: that of the workload, when quick 20000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    messages: Option<u32>,

    /// How often every contender has its turn [default: 15, when quick 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// Measure the time that the draining thread has a processor instead of the time that passes,
    /// for a machine that does other work as well (Linux; not where handlers or threads wait)
    #[arg(long)]
    cpu: bool,

    /// Count instructions as well: runs the same program again under valgrind
    #[arg(long)]
    instructions: bool,

    /// Write a picture of what was measured, an SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,

    /// Cargo passes it when it benches
    #[arg(long, hide = true)]
    bench: bool,

    /// Cargo passes it when it tests
    #[arg(long, hide = true)]
    test: bool,
}

impl Settings {
    pub(crate) fn from_arguments() -> Self {
        Self::parse()
    }

    /// Without `--bench` it is a test run, or a profiler's: both want it short.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick || self.test || !self.bench
    }

    /// What a contender gets to do.
    pub(crate) fn load(&self, column: Column) -> Load {
        let most = if self.is_quick() { QUICK_MESSAGES } else { u32::MAX };
        let messages = self.messages.unwrap_or(column.messages.min(most));
        Load { kind: self.channels, size: column.size, messages }
    }

    pub(crate) fn counts_cpu_time(&self) -> bool {
        self.cpu
    }

    pub(crate) fn counts_instructions(&self) -> bool {
        self.instructions
    }

    pub(crate) fn chart(&self) -> Option<&Path> {
        self.chart.as_deref()
    }

    /// What `--channels` would call it.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.channels {
            Kind::Bounded => "bounded",
            Kind::Unbounded => "unbounded",
        }
    }

    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.is_quick() { 1 } else { 15 })
    }

    pub(crate) fn wants(&self, section: &Section, contender: &Contender) -> bool {
        let among =
            |names: &[String], name| names.is_empty() || names.iter().any(|one| one == name);
        among(&self.workloads, section.name) && among(&self.only, contender.name)
    }

    pub(crate) fn wants_size(&self, column: Column) -> bool {
        self.size.is_empty() || self.size.contains(&column.size)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(messages) = self.messages {
            write!(f, "{} messages in ", grouped(messages))?;
        }
        write!(f, "{} channels, rounds: {}", self.kind_name(), self.rounds())
    }
}
