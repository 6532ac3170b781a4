//! Time by hand with `ManualClock`.
//!
//! Everything that waits does so by the clock of its context: deadlines, graces, windows, tickers,
//! retries. Give the context a [`ManualClock`](crate::ManualClock) and nothing waits any more; the
//! test says when time passes, and the same input gives the same trace every time.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use futures::FutureExt;
//! use watershed::{BoxError, Clock, ErrorCode, ManualClock, StepContext, fan_in, timers};
//!
//! const MINUTE: Duration = Duration::from_secs(60);
//!
//! fn main() -> Result<(), BoxError> {
//!     let clock = ManualClock::new();
//!     let context = StepContext::new("worker").with_clock(Arc::new(clock.clone()));
//!     let (sender, receiver) = async_channel::unbounded();
//!     sender.try_send(1)?;
//!
//!     let drain = fan_in(&context, [receiver], |_, step: StepContext| async move {
//!         timers::delay(&step, 2 * MINUTE).await?;
//!         Ok::<_, BoxError>(())
//!     });
//!     let mut drain = drain.timeout(3 * MINUTE).into_future();
//!
//!     assert!((&mut drain).now_or_never().is_none(), "the handler waits");
//!     assert_eq!(clock.sleepers(), 2, "for its delay; and the drain for its deadline");
//!     clock.advance(2 * MINUTE);
//!     assert!((&mut drain).now_or_never().is_none(), "handled; now it waits for messages");
//!     assert!(clock.advance_to_next(), "to the deadline");
//!     assert_eq!(clock.now().since(watershed::Tick::ZERO), 3 * MINUTE);
//!     let error = drain.now_or_never().ok_or("it is over")?.unwrap_err();
//!     assert_eq!((error.code(), error.metadata("handled")), (ErrorCode::Timeout, Some("1")));
//!     Ok(())
//! }
//! # use std::future::IntoFuture;
//! ```
