//! A live picture of a running drain: per source its rate and what is in flight, and over all
//! sources the compensations that are staged.
//!
//! ```console
//! cargo run --release -p live_picture
//! ```

use std::time::Duration;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use futures::future::{Either, select};
use futures::stream::{self, StreamExt};
use watershed::{BoxError, FanInReport, Progress, Source, StepContext, fan_in, timers};

/// Draws over the last picture, which had so many lines, and returns how many this one has.
fn draw(report: &FanInReport, last: usize) -> usize {
    let seconds = report.elapsed().as_secs_f64();
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "source",
        "handled",
        "per second",
        "in flight",
    ]);
    for source in report.sources() {
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = format!("{:.0}", source.handled() as f64 / seconds);
        let (handled, in_flight) = (source.handled().to_string(), source.in_flight().to_string());
        table.add_row([source.name(), &handled, &rate, &in_flight]);
    }
    let text = format!("{table}\n{} compensations staged, {seconds:.1} s", report.staged());
    // Back to where the last picture began, and over it.
    if last > 0 {
        print!("\x1b[{last}A");
    }
    for line in text.lines() {
        println!("{line}\x1b[K");
    }
    text.lines().count()
}

fn main() -> Result<(), BoxError> {
    let (context, progress) = (StepContext::new("live picture"), Progress::new());
    let sources = [("orders", 3, 660), ("payments", 5, 400), ("alarms", 9, 220), ("mail", 20, 100)];
    let sources =
        sources.map(|(name, millis, count)| stream::repeat(millis).take(count).named(name));
    let drain = fan_in(&context, sources, async |millis, step| {
        step.register_compensation(async || { /* undo the effect */ });
        // Some time that passes: a call to another service, say.
        timers::delay(&step, Duration::from_millis(millis)).await
    });
    let drain = drain.concurrency(3).progress(&progress);

    futures::executor::block_on(async {
        let mut frames =
            Box::pin(timers::Ticker::new(&StepContext::new("frames"), Duration::from_millis(100))?);
        let (mut drain, mut lines) = (drain.into_future(), 0);
        let report = loop {
            let either = select(&mut drain, frames.next()).await;
            lines = draw(&progress.report(), lines);
            if let Either::Left((report, _)) = either {
                break report?;
            }
        };
        println!("{} messages in {:?}", report.handled(), report.elapsed());
        Ok(())
    })
}
