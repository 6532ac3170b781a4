//! What a run prints: a table of the feeds, how the drain ended, and the audit.

use std::fmt::{self, Write};
use std::time::Duration;

use comfy_table::modifiers::UTF8_ROUND_CORNERS;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

use crate::audit::Found;
use crate::cli::Options;
use crate::run::Summary;
use crate::worker::reason;

/// The most dead letters that are listed one by one.
const LISTED: usize = 10;

/// The whole report.
///
/// # Errors
///
/// Those of writing to a string: none.
pub(crate) fn report(options: &Options, summary: &Summary) -> Result<String, fmt::Error> {
    let mut text = format!("{}\n\n", table(summary));
    ending(&mut text, options, summary)?;
    audit(&mut text, summary)?;
    Ok(text)
}

fn table(summary: &Summary) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).apply_modifier(UTF8_ROUND_CORNERS);
    table.set_header(["feed", "transport", "messages", "done", "undone", "dead", "waiting"]);
    for (feed, found) in summary.input.feeds.iter().zip(&summary.audit.feeds) {
        let messages = feed.messages().into();
        table.add_row(row(&feed.name, feed.transport().as_str(), messages, *found));
    }
    table.add_row(row("all", "", summary.input.messages(), summary.audit.found()));
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(name: &str, transport: &str, messages: u64, found: Found) -> [Cell; 7] {
    let Found { done, undone, dead, waiting, in_work } = found;
    let [messages, done, undone, dead, waiting] =
        [messages, done, undone, dead, waiting + in_work].map(|count| Cell::new(grouped(count)));
    [Cell::new(name), Cell::new(transport), messages, done, undone, dead, waiting]
}

fn ending(text: &mut String, options: &Options, summary: &Summary) -> fmt::Result {
    let drained = &summary.drained;
    let report = drained.report();
    match &drained.outcome {
        Ok(_) => writeln!(
            text,
            "Drained on {}: {} messages handled in {}, {} a second.",
            options.executor,
            grouped(report.handled()),
            short(report.elapsed()),
            rate(report.handled(), report.elapsed()),
        )?,
        Err(ended) => {
            let error = ended.error();
            writeln!(text, "The drain on {} was ended by {}:", options.executor, error.code())?;
            writeln!(text, "  {}", reason(error))?;
            for related in error.related() {
                writeln!(text, "and meanwhile by {}:", related.code())?;
                writeln!(text, "  {}", reason(related))?;
            }
        }
    }
    writeln!(
        text,
        "Of {} deliveries {} were accepted, {} released, {} rejected, {} lost, {} unknown, {} \
        abandoned.",
        grouped(report.fetched()),
        grouped(report.accepted()),
        grouped(report.released()),
        grouped(report.rejected()),
        grouped(report.lost()),
        grouped(report.unknown()),
        grouped(report.abandoned()),
    )?;
    if let Some(Err(ended)) = &drained.rollback {
        writeln!(text, "Not everything could be undone:")?;
        let error = ended.error();
        writeln!(text, "  {}", reason(error))?;
        error.related().iter().try_for_each(|one| writeln!(text, "  {}", reason(one)))?;
    }
    let buried = summary.audit.dead.iter().filter(|(run, _)| *run == summary.run);
    let buried: Vec<_> = buried.map(|(_, reason)| reason).collect();
    if !buried.is_empty() {
        writeln!(text, "Undone, and put among the dead letters ({}):", buried.len())?;
        buried.iter().take(LISTED).try_for_each(|reason| writeln!(text, "  {reason}"))?;
        if buried.len() > LISTED {
            writeln!(text, "  …")?;
        }
    }
    if summary.interrupted {
        let Found { waiting, in_work, .. } = summary.audit.found();
        writeln!(text, "A signal ended the run; {} messages wait.", grouped(waiting + in_work))?;
    }
    if let Some(fail_at) = options.fail_at.filter(|fail_at| fail_at.get() > summary.emitted) {
        writeln!(
            text,
            "--fail-at {fail_at} was not reached: {} events were emitted.",
            grouped(summary.emitted),
        )?;
    }
    Ok(())
}

fn audit(text: &mut String, summary: &Summary) -> fmt::Result {
    writeln!(text, "\nAudit of the database after run {}", summary.run)?;
    for (number, check) in (1..).zip(&summary.audit.checks) {
        let mark = if check.holds { '✓' } else { '✗' };
        writeln!(text, "  {mark} {number}. {}", check.text)?;
    }
    let verdict =
        if summary.audit.holds() { "The audit holds." } else { "The audit DOES NOT hold." };
    writeln!(text, "{verdict}")
}

/// A number with a comma between its thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn short(time: Duration) -> String {
    format!("{time:.2?}")
}

fn rate(messages: u64, time: Duration) -> String {
    let nanos = time.as_nanos();
    if messages == 0 || nanos == 0 {
        return "-".to_owned();
    }
    let rate = u128::from(messages) * 1_000_000_000 / nanos;
    grouped(u64::try_from(rate).unwrap_or(u64::MAX))
}
