//! A deadline for each message, and for operations inside a handler.
//!
//! [`timeout`](crate::FanIn::timeout) is one absolute deadline for a whole drain.
//! [`message_timeout`](crate::FanIn::message_timeout) is one for each message: a handler that
//! passes it is dropped where it is, what it had registered stays, and the message has failed.
//! Within a handler [`timers::with_timeout`](crate::timers::with_timeout) bounds one operation and
//! undoes it before it reports.
//!
//! ```
//! use std::time::Duration;
//!
//! use futures::stream;
//! use watershed::{BoxError, ErrorCode, OnFailure, StepContext, fan_in, timers};
//!
//! async fn reserve(seat: u32, step: &StepContext) -> Result<(), BoxError> {
//!     step.register_compensation(move || async move { println!("free seat {seat}") });
//!     if seat == 2 {
//!         futures::future::pending::<()>().await; // the seat service hangs
//!     }
//!     Ok(())
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let context = StepContext::new("seats");
//!         let mut late = Vec::new();
//!         let report = fan_in(&context, [stream::iter(1..=3)], |seat, step| async move {
//!             // Undone when it takes too long, before the error comes back.
//!             timers::with_timeout(&step, Duration::from_millis(5), |inner| async move {
//!                 reserve(seat, &inner).await
//!             })
//!             .await
//!         })
//!         .message_timeout(Duration::from_secs(5))
//!         .on_failure(OnFailure::RollBackMessage)
//!         .dead_letter(|failed| late.push((failed.error().message_number(), failed.error().code())))
//!         .await?;
//!         assert_eq!((report.handled(), report.rolled_back()), (2, 1));
//!         assert_eq!(late, [(Some(2), ErrorCode::Timeout)]);
//!         Ok(())
//!     })
//! }
//! ```
