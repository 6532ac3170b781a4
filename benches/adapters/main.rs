//! `cargo bench --bench adapters`: the adapters beside their nearest peers, in one run, with the
//! same measuring and the same arguments as the bench `fan_in`.
//!
//! - `merged`, a stream over many channels, beside `select_all`, the merge of `futures-concurrency`
//!   and tokio's `StreamMap`
//! - `select` in a loop over 8 channels, beside a fresh race of receives for every message
//! - `window` by count, beside the chunks of `futures`
//! - `broadcast` of one channel into 8, beside the loop by hand

#[path = "../fan_in/channels.rs"]
mod channels;
#[path = "../fan_in/measure.rs"]
mod measure;
mod merging;
mod one_to_many;
#[path = "../fan_in/report.rs"]
mod report;
mod selecting;
#[path = "../fan_in/settings.rs"]
mod settings;
#[path = "../fan_in/targets.rs"]
mod targets;
mod windowing;

use settings::Settings;
use targets::Tally;

fn main() {
    let settings = Settings::from_arguments();
    println!("{settings}\n");
    let sections = [merging::SECTION, selecting::SECTION, windowing::SECTION, one_to_many::SECTION];
    let mut tally = Tally::default();
    let measured = sections.map(|section| {
        let measured = section.measure(&settings);
        report::print(section.title, &measured);
        (section, measured)
    });
    if settings.is_quick() {
        println!("Too short a run to be held against targets.");
        return;
    }
    for (section, measured) in &measured {
        tally.print(section.title, section.targets, measured);
    }
    tally.print_total();
}
