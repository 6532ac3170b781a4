//! Three feeds on tokio's multi-thread runtime: one payment hangs, its deadline passes, and every
//! payment is refunded.
//!
//! The drain's future is `Send`, so it can be a task. The library takes neither timers nor anything
//! else from tokio: the time is the context's clock's.
//!
//! ```text
//! cargo run -p under_tokio
//! ```

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::lock::Mutex;
use watershed::{BoxError, CompensationPolicy, Source, StepContext, fan_in};

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<(), BoxError> {
    tokio::spawn(run()).await?
}

async fn run() -> Result<(), BoxError> {
    let readers = [100, 200, 300].map(|account| {
        let (sender, reader) = async_channel::bounded(1);
        tokio::spawn(async move {
            for payment in 1..=3 {
                if sender.send(account + payment).await.is_err() {
                    break; // the drain has ended
                }
            }
        });
        reader.named(format!("account {account}"))
    });

    let paid = Arc::new(Mutex::new(Vec::new()));
    let context = StepContext::new("payments");
    let outcome = fan_in(&context, readers, async |payment: u32, step| {
        paid.lock().await.push(payment);
        step.register_compensation_with((Arc::clone(&paid), payment), async |(paid, payment)| {
            println!("  refunding {payment}");
            paid.lock().await.retain(|other| *other != payment);
        });
        println!("paid {payment}");
        if payment == 203 {
            pending::<()>().await; // the bank never answers
        }
        Ok::<_, BoxError>(())
    })
    .message_timeout(Duration::from_millis(50))
    .await;

    if let Err(failure) = outcome {
        println!("{}: {failure}", failure.error().code());
        let report = context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
        println!("{} payments refunded", report.succeeded());
    }
    println!("still paid: {:?}", *paid.lock().await);
    Ok(())
}
