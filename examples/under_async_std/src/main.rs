//! Three feeds on async-std, up to three handlers at once: a failure undoes what all of them did,
//! in the reverse of the order in which they did it.
//!
//! ```text
//! cargo run -p under_async_std
//! ```

use std::sync::Arc;

use async_std::task;
use futures::lock::Mutex;
use watershed::{BoxError, CompensationPolicy, Source, StepContext, fan_in, labelled};

fn main() -> Result<(), BoxError> {
    task::block_on(task::spawn(run()))
}

async fn run() -> Result<(), BoxError> {
    let readers = ["north", "south", "west"].map(|gate| {
        let (sender, reader) = async_channel::unbounded();
        task::spawn(async move {
            for ticket in 1..=3 {
                task::yield_now().await;
                if sender.send((gate, ticket)).await.is_err() {
                    break; // the drain has ended
                }
            }
        });
        reader.named(gate)
    });

    let inside = Arc::new(Mutex::new(Vec::new()));
    let context = StepContext::new("gates");
    let outcome = fan_in(&context, readers, async |(gate, ticket), step| {
        // Reserved first, so that a visitor let in is never forgotten; harmless if not let in.
        let everyone = Arc::clone(&inside);
        step.reserve(labelled("show out", move || {
            let everyone = Arc::clone(&everyone);
            async move { everyone.lock().await.retain(|visitor| *visitor != (gate, ticket)) }
        }));
        inside.lock().await.push((gate, ticket));
        println!("{gate} gate lets in ticket {ticket}");
        task::yield_now().await;
        if (gate, ticket) == ("south", 3) { Err("the ticket is forged") } else { Ok(()) }
    })
    .concurrency(3)
    .await;

    if let Err(failure) = outcome {
        println!("{failure:#}");
        let report = context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
        println!("{} visitors shown out", report.succeeded());
    }
    println!("still inside: {:?}", *inside.lock().await);
    Ok(())
}
