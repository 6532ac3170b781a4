//! Trying a message again, after a failure or because it asks to.
//!
//! With [`retry`](crate::FanIn::retry) a failed message is undone, waits, and is handled again; only
//! its last failure counts. While it waits it holds no permit, so other sources go on; its own source,
//! or its key, waits with it, so the order holds. [`StepContext::attempt`](crate::StepContext::attempt)
//! tells a handler which attempt it is. Messages are cloned for it: large ones go into an `Arc`.
//!
//! ```
//! use std::time::Duration;
//!
//! use futures::stream;
//! use watershed::{BoxError, RetryPolicy, StepContext, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let context = StepContext::new("invoices");
//!         let policy = RetryPolicy::exponential(4, Duration::from_millis(1))
//!             .cap(Duration::from_secs(30))
//!             .full_jitter(42);
//!         let report = fan_in(&context, [stream::iter(1..=3)], async |invoice, step| {
//!             step.register_compensation(move || async move { println!("withdraw {invoice}") });
//!             if invoice == 2 && step.attempt() < 3 {
//!                 return Err("the tax office is busy");
//!             }
//!             Ok(())
//!         })
//!         .retry(policy)
//!         .await?;
//!         assert_eq!((report.handled(), report.failed()), (3, 0));
//!         assert_eq!(report.attempts(), 5, "two of the second invoice were in vain");
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # A message that is to come later
//!
//! *It is not yet time for this one* is no failure. A handler that returns
//! [`Answer::Later`](crate::Answer::Later) has its message undone and handled again after that time;
//! it costs no attempt, and the policy's waits do not apply.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use futures::stream;
//! use watershed::{Answer, BoxError, Clock, ManualClock, RetryPolicy, StepContext, Tick, fan_in};
//! # use futures::FutureExt;
//! # use std::future::IntoFuture;
//!
//! const HOUR: Duration = Duration::from_secs(3_600);
//!
//! fn main() -> Result<(), BoxError> {
//!     let clock = ManualClock::new();
//!     let context = StepContext::new("reminders").with_clock(Arc::new(clock.clone()));
//!     let due = Tick::ZERO + 2 * HOUR;
//!     let drain = fan_in(&context, [stream::iter(["dentist"])], async |what, step| {
//!         if step.clock().now() < due {
//!             return Ok(Answer::Later(due.since(step.clock().now())));
//!         }
//!         println!("{what}!");
//!         Ok::<_, BoxError>(Answer::Done)
//!     });
//!     let mut drain = drain.retry(RetryPolicy::none()).into_future();
//!
//!     assert!((&mut drain).now_or_never().is_none(), "it waits");
//!     clock.advance(2 * HOUR);
//!     let report = drain.now_or_never().ok_or("it is time")??;
//!     assert_eq!((report.handled(), report.attempts()), (1, 2));
//!     Ok(())
//! }
//! ```
//!
//! A message that waits when the drain ends is neither handled nor failed: it goes to
//! [`put_back`](crate::FanIn::put_back), see [`shutdown`](crate::guide::shutdown).
