//! Three shops on smol: one order cannot be paid, and every reservation is given back.
//!
//! The drain is a future like any other. Here it is a task of smol's executor, beside the tasks
//! that send the orders.
//!
//! ```text
//! cargo run -p under_smol
//! ```

use std::sync::Arc;

use futures::lock::Mutex;
use watershed::{BoxError, CompensationPolicy, Source, StepContext, fan_in};

fn main() -> Result<(), BoxError> {
    smol::block_on(smol::spawn(run()))
}

async fn run() -> Result<(), BoxError> {
    let readers = ["Oslo", "Lima", "Pune"].map(|shop| {
        let (sender, reader) = async_channel::bounded(2);
        let send = async move {
            for number in 1..=4 {
                sender.send(format!("{shop} {number}")).await?;
            }
            Ok::<_, async_channel::SendError<String>>(()) // an error: the drain has ended
        };
        smol::spawn(send).detach();
        reader.named(shop)
    });

    let reserved = Arc::new(Mutex::new(Vec::new()));
    let context = StepContext::new("orders");
    let outcome = fan_in(&context, readers, async |order: String, step| {
        reserved.lock().await.push(order.clone());
        let undo = (Arc::clone(&reserved), order.clone());
        step.register_compensation_with(undo, async |(reserved, order)| {
            println!("  giving back {order}");
            reserved.lock().await.retain(|other| *other != order);
        });
        println!("reserved {order}");
        if order == "Lima 3" { Err("the card was refused") } else { Ok(()) }
    })
    .await;

    if let Err(failure) = outcome {
        println!("{failure:#}");
        let report = context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
        println!("{} reservations given back", report.succeeded());
    }
    println!("still reserved: {:?}", *reserved.lock().await);
    Ok(())
}
