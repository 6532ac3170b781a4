//! The tables of what was measured.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use crate::measure::{Measured, Series};

/// Prints what was measured: a row a contender, a column a size.
pub(crate) fn print(title: &str, measured: &[Measured]) {
    let Some(first) = measured.first() else { return };
    let mut table = BySize::new("ns each (minimum), ratio", measured);
    for Series { name, floor, .. } in &first.series {
        table.row(name, |measured| {
            let series = measured.series(name)?;
            let (median, minimum) = (series.median(), series.minimum());
            let ratio = measured.ratio(name, floor);
            let ratio = ratio.map_or(String::new(), |ratio| format!(" {ratio:.2}x"));
            Some(format!("{median:.1} ({minimum:.1}){ratio}"))
        });
    }
    table.print(&format!("Measured, {title}"));
}

/// A table with a column for every size.
pub(crate) struct BySize<'a> {
    measured: &'a [Measured],
    table: Table,
}

impl<'a> BySize<'a> {
    pub(crate) fn new(corner: &str, measured: &'a [Measured]) -> Self {
        let mut table = Table::new();
        let sizes = measured.iter().map(|measured| match measured.sources {
            None => "in all".to_owned(),
            Some(1) => "1 source".to_owned(),
            Some(sources) => format!("{} sources", grouped(sources)),
        });
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header([corner.to_owned()].into_iter().chain(sizes));
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
