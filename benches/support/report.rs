//! The tables of what was measured.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::measure::Measured;
use super::section::Section;

/// Prints what was measured: a row a contender, a column a size.
///
/// A peer's ratio is that to the one of ours that does the same; above 1, ours is faster.
pub(crate) fn print(section: &Section, measured: &[Measured]) {
    let Some(first) = measured.first() else { return };
    let rounds = first.series.iter().map(|series| series.rounds.len()).max();
    let minimum = if rounds > Some(1) { " (minimum)" } else { "" };
    let corner = match first.figure {
        figure if measured.iter().all(|other| other.figure == figure) => figure,
        _ => "",
    };
    let mut table = ByColumn::new(&format!("{corner}{minimum}, ratio to ours"), measured);
    for contender in section.contenders {
        table.row(contender.name, |measured| {
            let series = measured.series(contender.name)?;
            let ours = contender.compares_to().and_then(|ours| measured.series(ours));
            let ratio = ours.map(|ours| series.ratio(ours)).filter(|ratio| ratio.is_finite());
            let ratio = ratio.map_or(String::new(), |ratio| format!(" {ratio:.2}x"));
            let median = short(series.median());
            Some(match minimum {
                "" => format!("{median}{ratio}"),
                _ => format!("{median} ({}){ratio}", short(series.minimum())),
            })
        });
    }
    table.print(&format!("{}: {}", section.name, section.title));
}

/// Who is left out, and what else is to be known.
pub(crate) fn print_note(section: &Section) {
    if !section.note.is_empty() {
        println!("{}\n", section.note);
    }
}

/// The names that arguments may give.
pub(crate) fn print_names(sections: &[Section]) {
    eprintln!("There is nothing of these names and sizes. There are:");
    for section in sections {
        let names: Vec<_> = section.contenders.iter().map(|contender| contender.name).collect();
        let sizes: Vec<_> = section.columns.iter().map(|column| column.size.to_string()).collect();
        eprintln!("{}: {}; sizes {}", section.name, names.join(", "), sizes.join(", "));
    }
}

/// Four digits or so.
pub(crate) fn short(figure: f64) -> String {
    match figure.abs() {
        0.0..10.0 => format!("{figure:.2}"),
        10.0..1_000.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

/// A table with a column for every figure at every size.
pub(crate) struct ByColumn<'a> {
    measured: &'a [Measured],
    table: Table,
}

impl<'a> ByColumn<'a> {
    pub(crate) fn new(corner: &str, measured: &'a [Measured]) -> Self {
        let mut table = Table::new();
        let several = measured.iter().any(|other| other.figure != measured[0].figure);
        let headings = measured.iter().map(|measured| {
            let (label, figure) = (measured.column.label, measured.figure);
            if several { format!("{label} {figure}") } else { label.to_owned() }
        });
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header([corner.to_owned()].into_iter().chain(headings));
        Self { measured, table }
    }

    /// Adds a row, unless it has nothing to say at any size.
    pub(crate) fn row(&mut self, name: &str, cell: impl Fn(&Measured) -> Option<String>) {
        let cells: Vec<_> = self.measured.iter().map(cell).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(Option::unwrap_or_default);
            self.table.add_row([name.to_owned()].into_iter().chain(cells));
        }
    }

    pub(crate) fn print(mut self, title: &str) {
        if self.table.is_empty() {
            return;
        }
        for column in self.table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{title}\n{}\n", self.table);
    }
}

/// The number with its thousands set apart.
pub(crate) fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
