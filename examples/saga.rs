//! A saga: named steps over one context, each with what undoes it; a step that fails takes the
//! earlier ones back.
//!
//! ```console
//! cargo run --example saga
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use watershed::{BoxError, CompensationPolicy, StepContext, labelled, timers};

/// What the services of this world know.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Vec<String>>>);

impl World {
    fn add(&self, entry: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry.to_owned());
    }

    fn remove(&self, entry: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known != entry);
    }

    fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One step: an effect, and the compensation with its name.
async fn step(context: &StepContext, world: &World, what: String) -> Result<String, BoxError> {
    if what == "hotel in Atlantis" {
        return Err("no such town".into());
    }
    // The way to the service and back.
    timers::delay(context, Duration::from_millis(1)).await?;
    world.add(&what);
    println!("  booked {what}");
    let (world, entry) = (world.clone(), what.clone());
    context.register_compensation(labelled(format!("cancel {what}"), move || {
        let (world, entry) = (world.clone(), entry.clone());
        async move {
            world.remove(&entry);
            println!("  cancelled {entry}");
        }
    }));
    Ok(what)
}

/// The steps in their order; each can use what the earlier ones returned.
async fn book_trip(context: &StepContext, world: &World, town: &str) -> Result<String, BoxError> {
    let flight = step(context, world, format!("flight to {town}")).await?;
    let hotel = step(context, world, format!("hotel in {town}")).await?;
    let car = step(context, world, format!("car in {town}")).await?;
    Ok(format!("{flight}, {hotel}, {car}"))
}

fn main() -> Result<(), BoxError> {
    let world = World::default();
    futures::executor::block_on(async {
        for town in ["Oslo", "Atlantis"] {
            println!("A trip to {town}");
            let context = StepContext::new("trip");
            match book_trip(&context, &world, town).await {
                Ok(trip) => {
                    println!("  done: {trip}");
                    context.scope().clear();
                }
                Err(error) => {
                    println!("  failed: {error}");
                    context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
                }
            }
        }
        Ok::<_, BoxError>(())
    })?;
    println!("In the end: {:?}", world.entries());
    Ok(())
}

// P32
#[test]
fn a_saga_rolls_back_when_a_step_fails_and_returns_its_results_otherwise() {
    let world = World::default();
    let context = StepContext::new("trip");
    let trip = futures::executor::block_on(book_trip(&context, &world, "Oslo"));
    assert_eq!(trip.expect("it succeeds"), "flight to Oslo, hotel in Oslo, car in Oslo");
    assert_eq!((world.entries().len(), context.scope().clear()), (3, 3));

    let trip = futures::executor::block_on(book_trip(&context, &world, "Atlantis"));
    assert_eq!(trip.expect_err("no such town").to_string(), "no such town");
    let rollback = context.roll_back(&CompensationPolicy::sequential_reverse());
    assert_eq!(futures::executor::block_on(rollback).expect("it succeeds").succeeded(), 1);
    assert_eq!(world.entries(), ["flight to Oslo", "hotel in Oslo", "car in Oslo"]);
}
