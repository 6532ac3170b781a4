//! No more than so many in a second.
//!
//! [`rate`](crate::FanIn::rate) bounds how many attempts begin, those of retries included: in no span of
//! `per` more than `n`. Room that is not used is not saved, so there is no burst after a pause. The
//! drain has one rate, and each source may have [one of its own](crate::Source::rate); while one
//! source waits for its rate, the others go on.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use futures::{StreamExt, stream};
//! use watershed::{BoxError, Clock, ManualClock, Source, StepContext, Tick, fan_in};
//! # use futures::FutureExt;
//! # use std::future::IntoFuture;
//!
//! const SECOND: Duration = Duration::from_secs(1);
//!
//! fn main() -> Result<(), BoxError> {
//!     let clock = ManualClock::new();
//!     let context = StepContext::new("mails").with_clock(Arc::new(clock.clone()));
//!     let sources = [
//!         stream::repeat("newsletter").take(5).rate(2, SECOND),
//!         stream::repeat("receipt").take(5).rate(100, SECOND),
//!     ];
//!     let sent = Mutex::new(Vec::new());
//!     let drain = fan_in(&context, sources, async |mail, step: StepContext| {
//!         sent.lock().unwrap().push((mail, step.clock().now().since(Tick::ZERO).as_secs()));
//!         Ok::<_, BoxError>(())
//!     });
//!     let mut drain = drain.into_future();
//!     let report = loop {
//!         if let Some(result) = (&mut drain).now_or_never() {
//!             break result?;
//!         }
//!         assert!(clock.advance_to_next(), "it waits for its rate, and for nothing else");
//!     };
//!     drop(drain);
//!     assert_eq!(report.handled(), 10);
//!     let sent = sent.into_inner()?;
//!     let seconds_of = |what| -> Vec<u64> {
//!         sent.iter().filter(|(mail, _)| *mail == what).map(|(_, second)| *second).collect()
//!     };
//!     assert_eq!(seconds_of("receipt"), [0, 0, 0, 0, 0]);
//!     assert_eq!(seconds_of("newsletter"), [0, 0, 1, 1, 2]);
//!     Ok(())
//! }
//! ```
