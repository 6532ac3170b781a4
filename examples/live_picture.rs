//! A live picture of a running drain: per source its rate and what is in flight, and over all
//! sources the compensations that are staged.
//!
//! ```console
//! cargo run --release --example live_picture
//! ```

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use futures::stream::{self, StreamExt};
use watershed::{BoxError, Source, StepContext, fan_in, timers};

/// What is known of one source.
#[derive(Clone, Copy, Default)]
struct Line {
    handled: u64,
    in_flight: u64,
}

type Picture = Arc<Mutex<BTreeMap<String, Line>>>;

fn change(picture: &Picture, source: &str, change: impl FnOnce(&mut Line)) {
    let mut lines = picture.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    change(lines.entry(source.to_owned()).or_default());
}

/// One effect with its compensation, and some time that passes: a call to another service, say.
async fn handle(millis: u64, step: StepContext, picture: Picture) -> Result<(), BoxError> {
    let source = step.source_name().unwrap_or_default().to_owned();
    change(&picture, &source, |line| line.in_flight += 1);
    step.register_compensation(|| async { /* undo the effect */ });
    let waited = timers::delay(&step, Duration::from_millis(millis)).await;
    change(&picture, &source, |line| {
        line.in_flight -= 1;
        line.handled += 1;
    });
    Ok(waited?)
}

fn print(picture: &Picture, context: &StepContext, started: Instant, last: &mut usize) {
    let lines = picture.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let seconds = started.elapsed().as_secs_f64();
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "source",
        "handled",
        "per second",
        "in flight",
    ]);
    for (source, line) in &lines {
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = format!("{:.0}", line.handled as f64 / seconds);
        table.add_row([source.clone(), line.handled.to_string(), rate, line.in_flight.to_string()]);
    }
    let text = format!("{table}\n{} compensations staged, {seconds:.1} s", context.scope().len());
    // Back to where the last picture began, and over it.
    if *last > 0 {
        print!("\x1b[{last}A");
    }
    for line in text.lines() {
        println!("{line}\x1b[K");
    }
    *last = text.lines().count();
}

fn main() -> Result<(), BoxError> {
    let (context, picture) = (StepContext::new("live picture"), Picture::default());
    let sources = [("orders", 3, 660), ("payments", 5, 400), ("alarms", 9, 220), ("mail", 20, 100)];
    let sources =
        sources.map(|(name, millis, count)| stream::repeat(millis).take(count).named(name));
    let drain =
        fan_in(&context, sources, |millis, step| handle(millis, step, Arc::clone(&picture)));
    let drain = drain.concurrency(NonZeroUsize::new(3).ok_or("three is not zero")?);

    let (started, mut last) = (Instant::now(), 0);
    futures::executor::block_on(async {
        let mut frames =
            Box::pin(timers::tick(&StepContext::new("frames"), Duration::from_millis(100))?);
        let mut drain = drain.into_future();
        let report = loop {
            let either = futures::future::select(&mut drain, frames.next()).await;
            print(&picture, &context, started, &mut last);
            if let futures::future::Either::Left((report, _)) = either {
                break report?;
            }
        };
        println!("{} messages in {:?}", report.handled(), report.elapsed());
        Ok(())
    })
}
