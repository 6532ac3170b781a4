//! Tasks beside streams.
//!
//! A handler that does several things at once groups them: a [`Group`](crate::group::Group)
//! stops the others at the first failure, [`combinators::when_all`](crate::combinators::when_all)
//! gives values and undoes everything unless all succeed. What the tasks register is staged on the
//! step that the group was made with, so a message that fails takes all of it back.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use futures::stream;
//! use watershed::group::Group;
//! use watershed::{BoxError, CompensationPolicy, Error, StepContext, fan_in};
//!
//! type Log = Arc<Mutex<Vec<String>>>;
//!
//! /// Does something, and registers what undoes it.
//! async fn book(what: &'static str, trip: u32, log: Log, step: StepContext) -> Result<(), BoxError> {
//!     if (what, trip) == ("hotel", 2) {
//!         return Err("the hotel is full".into());
//!     }
//!     log.lock().unwrap().push(format!("{what} {trip}"));
//!     step.register_compensation_with((log, what, trip), async |(log, what, trip)| {
//!         log.lock().unwrap().retain(|entry| *entry != format!("{what} {trip}"));
//!     });
//!     Ok(())
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let (context, log) = (StepContext::new("trips"), Log::default());
//!         let outcome = fan_in(&context, [stream::iter(1..=3)], async |trip, step: StepContext| {
//!             let group = Group::new(&step);
//!             for what in ["flight", "hotel", "car"] {
//!                 let log = Arc::clone(&log);
//!                 group.go(what, move |task| book(what, trip, log, task))?;
//!             }
//!             group.wait().await.map(drop).map_err(Error::from)
//!         })
//!         .await;
//!         assert!(outcome.is_err());
//!         assert!(log.lock().unwrap().len() >= 3, "the first trip, and some of the second");
//!
//!         context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
//!         assert!(log.lock().unwrap().is_empty());
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # A limit, values, and a group that stays open
//!
//! A group made by [`Group::collecting`](crate::group::Group::collecting) keeps what its tasks return, and
//! gives it in the order in which they were added, also of those that succeeded where others failed.
//! [`concurrency`](crate::group::Group::concurrency) says how many run at once.
//!
//! Clones of a group are handles of it. The one that waits ends when the tasks have ended and no other
//! handle is left, so that a group may be awaited before there is a task: whoever has a handle adds
//! tasks later, tasks themselves included. [`close`](crate::group::Group::close) ends it while handles are
//! left; what is added then is refused with an error.
//!
//! ```
//! use watershed::group::Group;
//! use watershed::{BoxError, OnFailure, StepContext};
//!
//! async fn fetch(page: u32) -> Result<String, BoxError> {
//!     if page == 13 { Err("no such page".into()) } else { Ok(format!("page {page}")) }
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let group = Group::collecting(&StepContext::new("crawl"))
//!             .on_failure(OnFailure::Continue)
//!             .concurrency(4);
//!         let found = group.clone();
//!         let (outcome, added) = futures::join!(group.wait(), async move {
//!             // Links come in while the first pages are fetched.
//!             for page in [1, 13, 2] {
//!                 found.go(None, move |_| fetch(page))?;
//!             }
//!             Ok::<_, BoxError>(())
//!         });
//!         added?;
//!
//!         let (error, report) = outcome.unwrap_err().into_parts();
//!         assert_eq!(format!("{error:#}"), "the handler failed: no such page");
//!         assert_eq!((report.succeeded(), report.failed()), (2, 1));
//!         assert_eq!(report.into_values(), ["page 1", "page 2"]);
//!         Ok(())
//!     })
//! }
//! ```
