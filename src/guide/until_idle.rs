//! A queue that feeds itself: running until nothing is left to do.
//!
//! A crawler takes a page, and puts the pages it links to into the queue it took it from. That queue
//! never closes. [`until_idle`](crate::FanIn::until_idle) ends the drain with success when, in one
//! poll, every source is pending, no handler runs and no message waits for its next attempt. Open
//! windows are handed out first. It is for queues that the handlers fill; producers outside the drain
//! are your concern.
//!
//! ```
//! use std::collections::{BTreeMap, BTreeSet};
//! use std::sync::Mutex;
//!
//! use watershed::{BoxError, StepContext, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let links = BTreeMap::from([
//!             ("/", vec!["/news", "/shop"]),
//!             ("/news", vec!["/", "/archive"]),
//!             ("/shop", vec!["/news"]),
//!         ]);
//!         let (sender, pages) = async_channel::unbounded();
//!         sender.try_send("/")?;
//!
//!         let seen = Mutex::new(BTreeSet::from(["/"]));
//!         let context = StepContext::new("crawl");
//!         let report = fan_in(&context, [pages], async |page, _| {
//!             for link in links.get(page).into_iter().flatten() {
//!                 if seen.lock().unwrap().insert(*link) {
//!                     sender.send(*link).await?;
//!                 }
//!             }
//!             Ok::<_, BoxError>(())
//!         })
//!         .unordered()
//!         .concurrency(8)
//!         .until_idle()
//!         .await?;
//!         assert_eq!(report.handled(), 4);
//!         Ok(())
//!     })
//! }
//! ```
