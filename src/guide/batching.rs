//! Messages in windows.
//!
//! Databases and remote services like batches. [`channels::window`](crate::channels::window)
//! gathers by count, by time since the first message, or by whichever comes first. A window is
//! pulled, so a slow database slows the source down, and whatever is open when the source ends, or
//! the token is cancelled, is handed out before the end.
//!
//! The windows are a stream of results; as [`faults`](crate::Source::faults) they are a source like
//! any other, and one compensation undoes a whole batch.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use futures::stream;
//! use watershed::{BoxError, Commit, Source, StepContext, channels, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let context = StepContext::new("inserts");
//!         let rows = channels::window(&context, stream::iter(0..250))
//!             .count(NonZeroUsize::new(100).ok_or("a hundred is not zero")?)
//!             .every(Duration::from_millis(50))
//!             .stream()?;
//!
//!         let table = Arc::new(Mutex::new(Vec::new()));
//!         let report = fan_in(&context, [rows.faults()], |rows: Vec<i32>, step| {
//!             let table = Arc::clone(&table);
//!             async move {
//!                 let first = rows[0];
//!                 table.lock().unwrap().extend(rows);
//!                 step.register_compensation_with(table, move |table| async move {
//!                     table.lock().unwrap().retain(|row| *row < first);
//!                 });
//!                 Ok::<_, BoxError>(())
//!             }
//!         })
//!         .commit(Commit::Message)
//!         .await?;
//!         assert!(report.handled() >= 3);
//!         assert_eq!(table.lock().unwrap().len(), 250);
//!         Ok(())
//!     })
//! }
//! ```
