//! Tasks beside streams.
//!
//! A handler that does several things at once groups them: [`group::ErrGroup`](crate::group::ErrGroup)
//! stops the others at the first failure, [`combinators::when_all`](crate::combinators::when_all)
//! gives values and undoes everything unless all succeed. What the tasks register is staged on the
//! step that the group was made with, so a message that fails takes all of it back.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use futures::stream;
//! use watershed::group::ErrGroup;
//! use watershed::{BoxError, CompensationPolicy, StepContext, fan_in};
//!
//! type Log = Arc<Mutex<Vec<String>>>;
//!
//! /// Does something, and registers what undoes it.
//! async fn book(what: &'static str, trip: u32, log: Log, step: StepContext) -> Result<(), BoxError> {
//!     if (what, trip) == ("hotel", 2) {
//!         return Err("the hotel is full".into());
//!     }
//!     log.lock().unwrap().push(format!("{what} {trip}"));
//!     step.register_compensation_with((log, what, trip), async |(log, what, trip)| {
//!         log.lock().unwrap().retain(|entry| *entry != format!("{what} {trip}"));
//!     });
//!     Ok(())
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let (context, log) = (StepContext::new("trips"), Log::default());
//!         let outcome = fan_in(&context, [stream::iter(1..=3)], async |trip, step: StepContext| {
//!             let group = ErrGroup::new(&step);
//!             for what in ["flight", "hotel", "car"] {
//!                 let log = Arc::clone(&log);
//!                 group.go(what, move |task| book(what, trip, log, task))?;
//!             }
//!             group.wait().await.map(drop)
//!         })
//!         .await;
//!         assert!(outcome.is_err());
//!         assert!(log.lock().unwrap().len() >= 3, "the first trip, and some of the second");
//!
//!         context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
//!         assert!(log.lock().unwrap().is_empty());
//!         Ok(())
//!     })
//! }
//! ```
