//! What a run prints: a table of the feeds, how the drain ended, and the audit.

use std::error::Error as StdError;
use std::fmt::{self, Write};
use std::time::Duration;

use comfy_table::modifiers::UTF8_ROUND_CORNERS;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

use crate::cli::Options;
use crate::event::EventError;
use crate::input::Transport;
use crate::run::{FeedSummary, Summary};
use crate::schema::Recovered;

/// The most failed messages that are listed one by one.
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
    table.set_header(["feed", "transport", "messages", "handled", "rolled back", "done"]);
    for feed in &summary.feeds {
        let transport = Cell::new(feed.transport.as_str());
        table.add_row(row(Cell::new(&feed.name), transport, feed));
    }
    let sum = |count: fn(&FeedSummary) -> u64| summary.feeds.iter().map(count).sum();
    let total = FeedSummary {
        name: "all".into(),
        transport: Transport::Log, // not shown
        messages: sum(|feed| feed.messages),
        handled: sum(|feed| feed.handled),
        rolled_back: sum(|feed| feed.rolled_back),
        done: sum(|feed| feed.done),
    };
    table.add_row(row(Cell::new("all"), Cell::new(""), &total));
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(name: Cell, transport: Cell, feed: &FeedSummary) -> [Cell; 6] {
    [
        name,
        transport,
        Cell::new(grouped(feed.messages)),
        Cell::new(grouped(feed.handled)),
        Cell::new(grouped(feed.rolled_back)),
        Cell::new(grouped(feed.done)),
    ]
}

fn ending(text: &mut String, options: &Options, summary: &Summary) -> fmt::Result {
    let recovered = summary.recovered;
    if recovered != Recovered::default() {
        writeln!(
            text,
            "An earlier run was killed: {} leases released and {} rows of half-done messages \
            deleted before this one.",
            grouped(recovered.released as u64),
            grouped(recovered.deleted as u64),
        )?;
    }
    let drained = &summary.drained;
    match &drained.outcome {
        Ok(report) => writeln!(
            text,
            "Drained on {}: {} messages handled, {} rolled back, in {}, {} a second.",
            options.executor,
            grouped(report.handled()),
            grouped(report.failed()),
            short(report.elapsed()),
            rate(report.handled(), report.elapsed()),
        )?,
        Err(ended) => {
            let error = ended.error();
            writeln!(text, "The drain on {} was aborted by {}:", options.executor, error.code())?;
            failure(text, error)?;
            for related in error.related() {
                writeln!(text, "and meanwhile by {}:", related.code())?;
                failure(text, related)?;
            }
        }
    }
    match &drained.rollback {
        Some((Ok(report), time)) => writeln!(
            text,
            "Rolled back: {} compensations in {}.",
            grouped(report.succeeded() as u64),
            short(*time),
        )?,
        Some((Err(ended), _)) => {
            let error = ended.error();
            writeln!(text, "The rollback failed:")?;
            failure(text, error)?;
            error.related().iter().try_for_each(|related| failure(text, related))?;
        }
        None => {}
    }
    if !drained.failed.is_empty() {
        let count = grouped(drained.failed.len() as u64);
        writeln!(text, "Rolled back alone and left for the next run ({count}):")?;
        drained.failed.iter().take(LISTED).try_for_each(|error| failure(text, error))?;
        if drained.failed.len() > LISTED {
            writeln!(text, "  …")?;
        }
    }
    if summary.interrupted {
        let left = summary.feeds.iter().map(|feed| feed.messages - feed.done).sum();
        writeln!(text, "A signal ended the run; {} messages are left.", grouped(left))?;
    }
    if summary.released > 0 {
        writeln!(
            text,
            "Released {} lease(s) of messages that were not started any more.",
            summary.released,
        )?;
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

/// One line that says what went wrong: the handler's own words where it was the handler, the whole
/// chain of causes otherwise.
fn failure(text: &mut String, error: &watershed::Error) -> fmt::Result {
    match error.downcast_ref::<EventError>().map(|own| (own, own.source())) {
        Some((own, Some(cause))) => writeln!(text, "  {own}: {cause}"),
        Some((own, None)) => writeln!(text, "  {own}"),
        None => writeln!(text, "  {error:#}"),
    }
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
