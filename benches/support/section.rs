//! What is measured: contenders for the same work, at several sizes of it.

use super::channels::Load;
use super::marks::Mark;
use super::measure::{Measured, in_turns};
use super::settings::Settings;

/// Contenders for the same work, and how they are to compare.
#[derive(Debug)]
pub(crate) struct Section {
    /// What arguments call it.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What a contender's figures are, each with its unit. Less is better.
    pub(crate) figures: &'static [&'static str],
    pub(crate) columns: &'static [Column],
    pub(crate) contenders: &'static [Contender],
    pub(crate) marks: &'static [Mark],
    /// Whether instructions can be counted: all of it happens on one thread, and not in waiting.
    pub(crate) countable: bool,
    /// Who is left out, and why.
    pub(crate) note: &'static str,
}

/// One size of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) label: &'static str,
    pub(crate) size: u32,
    /// How many messages a contender is given, when not told otherwise.
    pub(crate) messages: u32,
}

impl Column {
    pub(crate) const fn new(label: &'static str, size: u32, messages: u32) -> Self {
        Self { label, size, messages }
    }
}

/// The size is the number of sources that the messages lie in.
pub(crate) const BY_SOURCES: &[Column] = &[
    Column::new("1 source", 1, 400_000),
    Column::new("64 sources", 64, 400_000),
    Column::new("1,024 sources", 1_024, 400_000),
    Column::new("16,384 sources", 16_384, 400_000),
];

/// One way to do the work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender {
    /// What `--only` and the tables call it.
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    /// Does all of it once, and gives the section's figures.
    pub(crate) once: fn(Load) -> Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The least that the work can cost: less than the work is done.
    Floor,
    Ours,
    /// Does the same as the one of ours with this name.
    PeerOf(&'static str),
}

impl Contender {
    /// The contender that its ratio is taken to in the table.
    pub(crate) fn compares_to(&self) -> Option<&'static str> {
        match self.role {
            Role::PeerOf(ours) => Some(ours),
            Role::Floor | Role::Ours => None,
        }
    }
}

impl Section {
    /// Measures the contenders that are wanted at the sizes that are; nothing if there are none.
    pub(crate) fn measure(&self, settings: &Settings) -> Vec<Measured> {
        let contenders: Vec<_> =
            self.contenders.iter().filter(|one| settings.wants(self, one)).collect();
        let columns: Vec<_> =
            self.columns.iter().copied().filter(|column| settings.wants_size(*column)).collect();
        if contenders.is_empty() || columns.is_empty() {
            return Vec::new();
        }
        in_turns(settings, self.figures, &columns, &contenders)
    }
}
