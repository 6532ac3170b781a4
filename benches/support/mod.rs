//! What the benches share: who is measured against whom, how, and how it is told.
//!
//! - `settings`: the arguments
//! - `section`: contenders for the same work; `measure`: they take turns
//! - `instructions`: the same by callgrind
//! - `report`: the tables; `chart`: the picture; `marks`: what is to be reached, and whether it was
//! - `channels`: the sources; `merges`: the usual ways to make one stream of them; `concurrent`: the
//!   usual ways to handle several of its messages at once

#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod channels;
mod chart;
pub(crate) mod concurrent;
mod instructions;
pub(crate) mod marks;
pub(crate) mod measure;
pub(crate) mod merges;
pub(crate) mod report;
pub(crate) mod section;
pub(crate) mod settings;

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use marks::Tally;
use section::Section;
use settings::Settings;

/// Measures the sections that are wanted, and holds them against their marks.
pub(crate) fn run(sections: &'static [Section]) -> ExitCode {
    let settings = Settings::from_arguments();
    println!("{settings}\n");

    let counts = settings.counts_instructions() && instructions::can_be_counted();
    if settings.counts_instructions() && !counts {
        println!("Instructions are not counted: valgrind is not installed.\n");
    }

    let mut measured = Vec::new();
    for section in sections {
        let by_cpu_time = settings.counts_cpu_time() && section.countable;
        measure::COUNTS_CPU_TIME.store(by_cpu_time, Ordering::Relaxed);
        let figures = section.measure(&settings);
        if figures.is_empty() {
            continue;
        }
        report::print(section, &figures);
        if counts {
            report::print(section, &section.count_instructions(&settings));
        }
        report::print_note(section);
        measured.push((section, figures));
    }
    if measured.is_empty() {
        report::print_names(sections);
        return ExitCode::FAILURE;
    }
    if let Some(path) = settings.chart() {
        if let Err(error) = chart::write(path, &measured) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    if settings.is_quick() {
        println!("Too short a run to be held against marks.");
        return ExitCode::SUCCESS;
    }

    // A miss is reported and no more: a busy machine must not fail a build.
    let mut tally = Tally::default();
    for (section, measured) in &measured {
        tally.print(section, measured);
    }
    tally.print_total();
    ExitCode::SUCCESS
}
