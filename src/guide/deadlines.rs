//! A deadline for each message, and for operations inside a handler.
//!
//! [`timeout`](crate::FanIn::timeout) is one absolute deadline for a whole drain.
//! [`message_timeout`](crate::FanIn::message_timeout) is one for each attempt at a message: a handler
//! that passes it is dropped where it is, what it had registered stays, and the attempt has failed.
//! Within a handler [`timers::with_timeout`](crate::timers::with_timeout) bounds one operation and
//! undoes it before it reports.
//!
//! ```
//! use std::sync::Mutex;
//! use std::time::Duration;
//!
//! use futures::stream;
//! use watershed::{BoxError, ErrorCode, Letter, StepContext, fan_in, timers};
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
//!         let late = Mutex::new(Vec::new());
//!         let report = fan_in(&context, [stream::iter(1..=3)], async |seat, step| {
//!             // Undone when it takes too long, before the error comes back.
//!             timers::with_timeout(&step, Duration::from_millis(50), async |inner| {
//!                 reserve(seat, &inner).await
//!             })
//!             .await
//!         })
//!         .message_timeout(Duration::from_secs(5))
//!         .dead_letters(async |letter: Letter<u32>| {
//!             late.lock().unwrap().push((letter.message_number(), letter.error().code()));
//!         })
//!         .await?;
//!         assert_eq!((report.handled(), report.failed()), (2, 1));
//!         assert_eq!(late.into_inner()?, [(2, ErrorCode::Timeout)]);
//!         Ok(())
//!     })
//! }
//! ```
//!
//! A hanging *compensation* is bounded by
//! [`attempt_timeout`](crate::CompensationPolicy::attempt_timeout) of its policy.
