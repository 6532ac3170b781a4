//! A place for messages that are given up, so that the others go on.
//!
//! Without one, a message that has failed and has no attempts left ends the drain. With
//! [`dead_letters`](crate::FanIn::dead_letters) it is rolled back alone, a [`Letter`](crate::Letter)
//! goes to your async function, and the drain goes on. The letter has the message, the error, how
//! often it was tried, where it came from, and how its rollback went.
//!
//! Storing a letter has a deadline, and may fail: then the drain ends with both errors, because a
//! message that is neither handled nor stored must not be passed over.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use futures::stream;
//! use watershed::{BoxError, Commit, Letter, RetryPolicy, Source, StepContext, fan_in};
//!
//! #[derive(Debug, PartialEq)]
//! struct Row(String, u32, String);
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let parcels = stream::iter(["Oslo", "Atlantis", "Lima"]).named("parcels");
//!         let (sent, table) = (Arc::new(Mutex::new(Vec::new())), Mutex::new(Vec::new()));
//!         let context = StepContext::new("parcels");
//!         let report = fan_in(&context, [parcels], async |town, step| {
//!             sent.lock().unwrap().push(town);
//!             let undo = (Arc::clone(&sent), town);
//!             step.register_compensation_with(undo, async |(sent, town)| {
//!                 sent.lock().unwrap().retain(|other| *other != town);
//!             });
//!             if town == "Atlantis" { Err("no such town") } else { Ok(()) }
//!         })
//!         .commit(Commit::Message)
//!         .retry(RetryPolicy::fixed(3, Duration::ZERO))
//!         .dead_letters(async |letter: Letter<&'static str>| {
//!             letter.rollback().map_err(|failure| failure.error().clone())?;
//!             let why = format!("{:#}", letter.error());
//!             let row = Row(letter.message().copied().unwrap_or("?").into(), letter.attempts(), why);
//!             table.lock().map_err(|_| "the table is gone")?.push(row);
//!             Ok::<_, BoxError>(())
//!         })
//!         .dead_letter_timeout(Duration::from_secs(5))
//!         .await?;
//!
//!         assert_eq!((report.handled(), report.failed()), (2, 1));
//!         assert_eq!(*sent.lock().unwrap(), ["Oslo", "Lima"]);
//!         let why = "the handler failed (message 2 of source `parcels`): no such town";
//!         assert_eq!(table.into_inner()?, [Row("Atlantis".into(), 3, why.into())]);
//!         Ok(())
//!     })
//! }
//! ```
//!
//! Where the failures are of no interest, [`OnFailure::Continue`](crate::OnFailure::Continue) does the
//! same without a letter. How one message is undone is up to
//! [`message_compensation`](crate::FanIn::message_compensation).
