//! Watching a drain while it runs.
//!
//! [`Progress`](crate::Progress) shows the report of a drain at any moment, from any thread: how many
//! messages were handled, failed, are in flight or wait, in all and for each source, and how many
//! compensations are staged. Each message taken is in exactly one of these counts, and they never become
//! fewer; attempts are counted apart. While so many wait that failed messages keep every permit, a
//! [warning](crate::FanInReport::warnings) says so.
//!
//! ```
//! use std::time::Duration;
//!
//! use futures::stream;
//! use watershed::{BoxError, Progress, RetryPolicy, Source, StepContext, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let (context, progress) = (StepContext::new("mail"), Progress::new());
//!         let sources = [stream::iter(1..=2).named("post"), stream::iter(11..=12).named("fax")];
//!         let drain = fan_in(&context, sources, async |mail, step| {
//!             step.register_compensation(async || { /* take it back */ });
//!             if mail == 12 {
//!                 let now = progress.report();
//!                 assert_eq!((now.handled(), now.in_flight(), now.taken()), (3, 1, 4));
//!                 assert_eq!((now.sources()[1].name(), now.sources()[1].handled()), ("fax", 1));
//!             }
//!             Ok::<_, BoxError>(())
//!         });
//!         drain.progress(&progress).retry(RetryPolicy::fixed(2, Duration::ZERO)).await?;
//!
//!         let then = progress.report();
//!         assert_eq!((then.handled(), then.in_flight(), then.attempts()), (4, 0, 4));
//!         Ok(())
//!     })
//! }
//! ```
//!
//! A watched drain books every message at once, which costs two short locks a message; one that is
//! not watched pays nothing. What all drains of a process did is in
//! [`diagnostics`](crate::diagnostics). The example `live_picture` draws a table from it.
