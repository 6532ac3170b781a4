//! A handler with a bug that one run in many shows, and the seed that shows it.
//!
//! The payment service takes the money, and answers later. The careless handler registers the
//! refund when it has the answer: a deadline that comes in between loses the money. The careful
//! one reserves the refund first, and withdraws it when there was nothing to refund.
//!
//! `cargo run --release --example simulation --features testing`

use std::time::Duration;

use watershed::testing::{Ledger, Simulation, World, explore};
use watershed::{BoxError, CompensationPolicy, StepContext, fan_in};

/// A payment service in memory, which takes its time.
#[derive(Clone)]
struct Payments {
    world: World,
    ledger: Ledger<String>,
}

impl Payments {
    async fn charge(&self, order: u32) -> Result<(), &'static str> {
        self.world.pause().await;
        if order % 5 == 0 {
            return Err("the card was declined");
        }
        self.ledger.done(format!("payment {order}"));
        self.world.note(format!("order {order} is paid"));
        self.world.pause().await; // the answer is on its way
        Ok(())
    }

    /// Harmless for an order that was not paid.
    async fn refund(self, order: u32) {
        self.world.pause().await;
        let payment = format!("payment {order}");
        if self.ledger.open().contains(&payment) {
            self.ledger.undone(payment);
        }
    }
}

async fn careless(order: u32, step: StepContext, payments: Payments) -> Result<(), BoxError> {
    if payments.charge(order).await.is_ok() {
        step.register_compensation_with(payments, move |payments| payments.refund(order));
    }
    Ok(())
}

async fn careful(order: u32, step: StepContext, payments: Payments) -> Result<(), BoxError> {
    let state = payments.clone();
    let refund = step.reserve(move || state.clone().refund(order));
    if payments.charge(order).await.is_err() {
        refund.disarm();
    }
    Ok(())
}

/// Drains two sources with a deadline that the seed decides and no grace for handlers in flight,
/// rolls back if it passed, and looks for money that is neither earned nor given back.
fn scenario<F>(simulation: &Simulation, handler: fn(u32, StepContext, Payments) -> F) -> Outcome
where
    F: Future<Output = Result<(), BoxError>>,
{
    let world = simulation.world();
    let (context, ledger) = (world.context("orders"), Ledger::new());
    let payments = Payments { world: world.clone(), ledger: ledger.clone() };
    let sources = [world.script("web").scattered(1..=4), world.script("phone").scattered(6..=9)];
    let deadline = Duration::from_micros(world.below(40_000));

    let drain = fan_in(&context, sources, |order, step| handler(order, step, payments.clone()))
        .concurrency(2)
        .timeout(deadline)
        .grace(Duration::ZERO);
    if simulation.run(drain)?.is_ok() {
        ledger.commit_open();
    } else {
        world.note("the deadline has passed");
        simulation.run(context.roll_back(&CompensationPolicy::sequential_reverse()))??;
    }
    ledger.check()?;
    Ok(())
}

type Outcome = Result<(), BoxError>;

fn main() -> Result<(), BoxError> {
    let finding = explore(0..1_000, |simulation| scenario(simulation, careless));
    let finding = finding.err().ok_or("the bug was not found")?;
    println!("The careless handler: {finding}");
    println!("The end of that run:");
    let told = finding.trace().iter().filter(|event| event.what() != "polled");
    let told: Vec<_> = told.collect();
    for event in &told[told.len().saturating_sub(9)..] {
        println!("  {event}");
    }

    let again = explore([finding.seed()], |simulation| scenario(simulation, careless));
    let again = again.err().ok_or("the seed does not show it again")?;
    assert_eq!(again.trace(), finding.trace());
    println!("The same seed shows it again, event by event.");

    let runs = explore(0..1_000, |simulation| scenario(simulation, careful))?;
    println!("The careful handler: {runs} seeds, every payment earned or given back.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{careful, careless, scenario};
    use watershed::testing::explore;

    #[test]
    fn the_planted_bug_is_found_and_its_seed_shows_it_again() {
        let finding = explore(0..1_000, |simulation| scenario(simulation, careless)).unwrap_err();
        assert!(finding.to_string().contains("neither committed nor undone: \"payment"));
        let again = explore([finding.seed()], |simulation| scenario(simulation, careless));
        assert_eq!(again.unwrap_err().trace(), finding.trace());
    }

    #[test]
    fn the_mended_handler_loses_nothing() {
        assert_eq!(explore(0..1_000, |simulation| scenario(simulation, careful)).unwrap(), 1_000);
    }
}
