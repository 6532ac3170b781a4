//! How much is measured: the arguments, and what they default to.

use std::fmt;

use clap::Parser;

use crate::channels::{Kind, Load};
use crate::measure::Contender;
use crate::report::grouped;

const SOURCES: &[u32] = &[1, 8, 64, 1_024, 16_384];

/// What `cargo bench`, `cargo test` and people pass.
#[derive(Debug, Parser)]
pub(crate) struct Settings {
    /// Few messages and one round: shows that it works, not how fast
    #[arg(long)]
    quick: bool,

    /// Measure only this contender; may be given more than once
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// Measure only with so many sources; may be given more than once
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    sources: Vec<u32>,

    /// What the sources are
    #[arg(long, value_enum, default_value = "bounded")]
    channels: Kind,

    /// Messages in all [default: 1000000, when quick 20000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    messages: Option<u32>,

    /// How often every contender has its turn [default: 7, when quick 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

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

    pub(crate) fn sources(&self) -> &[u32] {
        if self.sources.is_empty() { SOURCES } else { &self.sources }
    }

    /// What a contender gets to do, with so many sources.
    pub(crate) fn load(&self, sources: u32) -> Load {
        Load { kind: self.channels, sources, messages: self.messages() }
    }

    fn messages(&self) -> u32 {
        self.messages.unwrap_or(if self.is_quick() { 20_000 } else { 1_000_000 })
    }

    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.is_quick() { 1 } else { 7 })
    }

    pub(crate) fn wants(&self, contender: &Contender) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == contender.name)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.channels {
            Kind::Bounded => "bounded",
            Kind::Unbounded => "unbounded",
        };
        let (messages, rounds) = (grouped(self.messages()), self.rounds());
        write!(f, "{messages} messages in {kind} channels, rounds: {rounds}")
    }
}
