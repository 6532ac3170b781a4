//! What is to be reached, and whether it was.

use super::measure::{Measured, Series};
use super::report::{ByColumn, short};
use super::section::{Role, Section};

/// A figure that has a bound.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) what: &'static str,
    /// The contender whose figure it is.
    pub(crate) of: &'static str,
    /// What its figure is divided by.
    pub(crate) to: To,
    pub(crate) bound: Bound,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    /// The figure of another contender.
    Contender(&'static str),
    /// Its own at the first size.
    First,
    /// Nothing: the figure itself has the bound.
    One,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    Least(f64),
    Most(f64),
    /// At most so much up to this size, and so much beyond.
    MostThen(f64, u32, f64),
    /// From this size on at most so much.
    From(u32, f64),
}

impl Bound {
    fn is_reached(self, measured: &Measured, figure: f64) -> bool {
        match self {
            Self::Least(bound) => figure >= bound,
            Self::MostThen(_, size, bound) if measured.column.size > size => figure <= bound,
            Self::From(size, _) if measured.column.size < size => true,
            Self::Most(bound) | Self::MostThen(bound, ..) | Self::From(_, bound) => figure <= bound,
        }
    }
}

impl Target {
    fn figure(&self, measured: &Measured, first: &Measured) -> Option<f64> {
        let series = measured.series(self.of)?;
        match self.to {
            To::Contender(name) => Some(series.ratio(measured.series(name)?)),
            To::First if measured.column == first.column => None,
            To::First => Some(series.ratio(first.series(self.of)?)),
            To::One => Some(series.median()),
        }
    }
}

/// What became of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    /// A peer is faster by less than runs differ.
    Even,
    Missed,
}

impl Verdict {
    /// Of the ratio of a peer to ours.
    fn of_peer(ratio: f64) -> Self {
        match ratio {
            1.0.. => Self::Reached,
            0.97.. => Self::Even,
            _ => Self::Missed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Even => "even",
            Self::Missed => "MISSED",
        }
    }
}

/// How many targets were held against how many figures.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    reached: u32,
    even: u32,
    missed: Vec<String>,
}

impl Tally {
    /// Prints the figures beside their targets, and counts them: those of the section, and for each
    /// of ours that it is no slower than any peer.
    pub(crate) fn print(&mut self, section: &Section, measured: &[Measured]) {
        let Some(first) = measured.first() else { return };
        let mut table = ByColumn::new("target", measured);
        for target in section.targets {
            self.row(&mut table, section, measured, target.what, |measured| {
                let figure = target.figure(measured, first)?;
                let is_reached = target.bound.is_reached(measured, figure);
                let verdict = if is_reached { Verdict::Reached } else { Verdict::Missed };
                Some((verdict, short(figure)))
            });
        }
        for ours in section.contenders.iter().filter(|one| one.role == Role::Ours) {
            let what = format!("fastest peer to {}: at least 1", ours.name);
            self.row(&mut table, section, measured, &what, |measured| {
                let (peer, ratio) = fastest_peer(measured, ours.name)?;
                Some((Verdict::of_peer(ratio), format!("{} {peer}", short(ratio))))
            });
        }
        table.print(&format!("Targets, {}: {}", section.name, section.title));
    }

    fn row(
        &mut self,
        table: &mut ByColumn<'_>,
        section: &Section,
        measured: &[Measured],
        what: &str,
        judge: impl Fn(&Measured) -> Option<(Verdict, String)>,
    ) {
        for measured in measured {
            match judge(measured) {
                Some((Verdict::Reached, _)) => self.reached += 1,
                Some((Verdict::Even, _)) => self.even += 1,
                Some((Verdict::Missed, figure)) => {
                    let Measured { column, figure: unit, .. } = measured;
                    let (name, label) = (section.name, column.label);
                    self.missed.push(format!("{name}, {label}, {unit}: {what}; it is {figure}"));
                }
                None => {}
            }
        }
        table.row(what, |measured| {
            let (verdict, figure) = judge(measured)?;
            Some(format!("{figure} {}", verdict.name()))
        });
    }

    pub(crate) fn print_total(&self) {
        let Self { reached, even, missed } = self;
        println!("Targets reached: {reached}, even: {even}, missed: {}", missed.len());
        for missed in missed {
            println!("- missed: {missed}");
        }
    }
}

/// The peer of one of ours with the smallest ratio to it.
fn fastest_peer(measured: &Measured, ours: &'static str) -> Option<(&'static str, f64)> {
    let own = measured.series(ours)?;
    let is_peer = |series: &&Series| series.contender.role == Role::PeerOf(ours);
    let peers = measured.series.iter().filter(is_peer);
    let ratios = peers.map(|peer| (peer.contender.name, peer.ratio(own)));
    ratios.min_by(|(_, one), (_, other)| one.total_cmp(other))
}
