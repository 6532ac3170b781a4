//! What is to be reached, and whether it was.

use crate::measure::Measured;
use crate::report::BySize;

/// A ratio of two contenders that has a bound.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) what: &'static str,
    /// The contender whose time is divided.
    pub(crate) of: &'static str,
    /// The contender by whose time it is divided.
    pub(crate) to: &'static str,
    pub(crate) bound: Bound,
}

#[allow(dead_code, reason = "each bench uses some of them")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    Least(f64),
    Most(f64),
    /// At most so much up to 1,024 sources, and so much beyond.
    MostThen(f64, f64),
}

impl Bound {
    fn is_reached(self, measured: &Measured, figure: f64) -> bool {
        match self {
            Self::Least(bound) => figure >= bound,
            Self::MostThen(_, bound) if measured.sources > Some(1_024) => figure <= bound,
            Self::Most(bound) | Self::MostThen(bound, _) => figure <= bound,
        }
    }
}

/// How many targets were held against how many figures.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    reached: u32,
    missed: u32,
}

impl Tally {
    /// Prints the figures beside their targets, and counts them.
    pub(crate) fn print(&mut self, title: &str, targets: &[Target], measured: &[Measured]) {
        let mut table = BySize::new("target", measured);
        for target in targets {
            let judged = |measured: &Measured| {
                let figure = measured.ratio(target.of, target.to)?;
                Some((figure, target.bound.is_reached(measured, figure)))
            };
            for (_, reached) in measured.iter().filter_map(judged) {
                *if reached { &mut self.reached } else { &mut self.missed } += 1;
            }
            table.row(target.what, |measured| {
                let (figure, reached) = judged(measured)?;
                Some(format!("{figure:.2} {}", if reached { "reached" } else { "MISSED" }))
            });
        }
        table.print(&format!("Targets, {title}"));
    }

    pub(crate) fn print_total(&self) {
        let Self { reached, missed } = self;
        if reached + missed > 0 {
            println!("Targets reached: {reached} of {}", reached + missed);
        }
    }
}
