//! Messages in windows.
//!
//! Databases and remote services like batches. [`channels::window`](crate::channels::Window::new())
//! gathers by count, by time since the first message, or by whichever comes first. A window is a source
//! of a drain whose messages are `Vec`s, and one compensation undoes a whole batch. It is pulled, so
//! a slow database slows the source down.
//!
//! At the end of its source, and when the drain is [idle](crate::FanIn::until_idle), the open window
//! is handed out as it is. What is open when the drain ends otherwise goes to
//! [`put_back`](crate::FanIn::put_back), message by message. Reports and progress count a window as one
//! message from the moment it opens, and those that go back as one each.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use futures::stream;
//! use watershed::{BoxError, Commit, StepContext, channels, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let context = StepContext::new("inserts");
//!         let rows = channels::Window::new(&context, stream::iter(0..250))
//!             .count(100)
//!             .every(Duration::from_millis(50));
//!
//!         let table = Arc::new(Mutex::new(Vec::new()));
//!         let report = fan_in(&context, [rows], async |rows: Vec<i32>, step| {
//!             let first = rows[0];
//!             table.lock().unwrap().extend(rows);
//!             let undo = (Arc::clone(&table), first);
//!             step.register_compensation_with(undo, async |(table, first)| {
//!                 table.lock().unwrap().retain(|row| *row < first);
//!             });
//!             Ok::<_, BoxError>(())
//!         })
//!         .commit(Commit::Message)
//!         .await?;
//!         assert_eq!(table.lock().unwrap().len(), 250);
//!         assert!(report.handled() >= 3, "windows of 100, 100 and 50");
//!         Ok(())
//!     })
//! }
//! ```
//!
//! [`Window::stream`](crate::channels::Window::stream) gives the windows as a plain stream of results, for
//! use without a drain.
