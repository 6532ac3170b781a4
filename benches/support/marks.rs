//! What is to be reached, cell by cell, and whether it was.

use super::measure::{Measured, Series};
use super::report::{ByColumn, short};
use super::section::Section;

/// Ratios that differ by less than runs do are even.
const EVEN: f64 = 0.95;

/// A figure of one contender, and what it must be in some cells.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) what: &'static str,
    /// Which of the section's figures.
    pub(crate) figure: &'static str,
    /// Whose figure it is: that of the least of these.
    pub(crate) of: &'static [&'static str],
    /// What it is divided by, if by anything.
    pub(crate) to: Option<&'static str>,
    pub(crate) bound: Bound,
}

/// What a figure must be, by the size of the cell. A cell that is not named has no mark.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    Least(&'static [(u32, f64)]),
    Most(&'static [(u32, f64)]),
    /// Of a peer to ours: no less than 1, or even.
    Even(&'static [u32]),
}

impl Bound {
    /// The bound at this size, and whether a figure keeps to it.
    fn at(self, size: u32, figure: f64) -> Option<(String, Verdict)> {
        let (listed, is_least) = match self {
            Self::Even(sizes) if !sizes.contains(&size) => return None,
            Self::Even(_) if (EVEN..1.0).contains(&figure) => {
                return Some(("even".to_owned(), Verdict::Even));
            }
            Self::Even(_) => return Some(("even".to_owned(), Verdict::of(figure >= EVEN))),
            Self::Least(listed) => (listed, true),
            Self::Most(listed) => (listed, false),
        };
        let bound = listed.iter().find(|(at, _)| *at == size)?.1;
        let (text, is_kept) = if is_least {
            (format!("at least {}", short(bound)), figure >= bound)
        } else {
            (format!("at most {}", short(bound)), figure <= bound)
        };
        Some((text, Verdict::of(is_kept)))
    }
}

impl Mark {
    fn judge(&self, measured: &Measured) -> Option<Judged> {
        if measured.figure != self.figure {
            return None;
        }
        let series = self.of.iter().filter_map(|name| measured.series(name));
        let least = series.min_by(|one, other| one.median().total_cmp(&other.median()))?;
        let figure = match self.to {
            Some(name) => least.ratio(measured.series(name)?),
            None => least.median(),
        };
        let (bound, verdict) = self.bound.at(measured.column.size, figure)?;
        Some(Judged { figure, of: self.name_of(least), bound, verdict })
    }

    /// The name of the one whose figure it is, where that can be several.
    fn name_of(&self, series: &Series) -> &'static str {
        if self.of.len() > 1 { series.contender.name } else { "" }
    }
}

struct Judged {
    figure: f64,
    of: &'static str,
    bound: String,
    verdict: Verdict,
}

impl Judged {
    fn text(&self) -> String {
        format!("{} {}", short(self.figure), self.of).trim_end().to_owned()
    }
}

/// What became of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Winner,
    /// A peer is faster by less than runs differ.
    Even,
    Missed,
}

impl Verdict {
    fn of(is_kept: bool) -> Self {
        if is_kept { Self::Winner } else { Self::Missed }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Winner => "reached",
            Self::Even => "even",
            Self::Missed => "MISSED",
        }
    }
}

/// How many marks were held against how many figures.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    reached: u32,
    even: u32,
    missed: Vec<String>,
}

impl Tally {
    /// Prints the figures of a section beside their marks, and counts them.
    pub(crate) fn print(&mut self, section: &Section, measured: &[Measured]) {
        let mut table = ByColumn::new("mark", measured);
        for mark in section.marks {
            for measured in measured {
                let Some(judged) = mark.judge(measured) else { continue };
                match judged.verdict {
                    Verdict::Winner => self.reached += 1,
                    Verdict::Even => self.even += 1,
                    Verdict::Missed => self.missed.push(format!(
                        "{}, {}: {} ({}) {}; it is {}",
                        section.name,
                        measured.column.label,
                        mark.what,
                        mark.figure,
                        judged.bound,
                        judged.text()
                    )),
                }
            }
            table.row(mark.what, |measured| {
                let judged = mark.judge(measured)?;
                Some(format!("{} ({}) {}", judged.text(), judged.bound, judged.verdict.name()))
            });
        }
        table.print(&format!("Marks, {}: {}", section.name, section.title));
    }

    pub(crate) fn print_total(&self) {
        let Self { reached, even, missed } = self;
        println!("Marks reached: {reached}, even: {even}, missed: {}", missed.len());
        for missed in missed {
            println!("- missed: {missed}");
        }
    }
}
