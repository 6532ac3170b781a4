//! Undoing that waits, fails and is tried again.
//!
//! A rollback runs the actions of a scope in the reverse of the order of their registration. Its
//! [`CompensationPolicy`](crate::CompensationPolicy) says how: one after another or several at once,
//! how often an action that fails is tried, and how long an attempt may take. An action that fails for
//! good keeps no other from running, is named in the report, and stays staged: roll back again when
//! its reason is gone.
//!
//! An action may run more than once, because a rollback can be interrupted or retried: write it so that
//! a second run does no harm.
//!
//! # An action that needs a step
//!
//! By the time an action runs, the token of the work it undoes has usually been cancelled. An action that
//! waits, retries or uses a [`timers`](crate::timers) function is made by
//! [`with_step`](crate::with_step): it is given a step whose token and clock are the rollback's.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
//! use std::time::Duration;
//!
//! use watershed::{
//!     BoxError, CompensationPolicy, RetryPolicy, StepContext, labelled, timers, with_step,
//! };
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let context = StepContext::new("booking");
//!         let calls = Arc::new(AtomicU32::new(0));
//!         let hotel = Arc::clone(&calls);
//!         let cancel = with_step(move |step: StepContext| {
//!             let hotel = Arc::clone(&hotel);
//!             async move {
//!                 // Where the hotel gets its mails from is slow.
//!                 timers::delay(&step, Duration::from_millis(1)).await?;
//!                 if hotel.fetch_add(1, Relaxed) < 3 {
//!                     return Err(BoxError::from("nobody answers"));
//!                 }
//!                 Ok(())
//!             }
//!         });
//!         context.register_compensation(labelled("cancel the hotel", cancel));
//!
//!         let twice = RetryPolicy::fixed(2, Duration::from_millis(1));
//!         let policy = CompensationPolicy::sequential_reverse()
//!             .retry(twice)
//!             .attempt_timeout(Duration::from_secs(10));
//!         let failure = context.roll_back(&policy).await.unwrap_err();
//!         let failed = &failure.report().failures()[0];
//!         assert_eq!((failed.label(), failed.attempts()), (Some("cancel the hotel"), 2));
//!
//!         let report = context.roll_back(&policy).await?; // it was still staged
//!         assert_eq!((report.succeeded(), calls.load(Relaxed)), (1, 4));
//!         Ok(())
//!     })
//! }
//! ```
