//! Many messages of one source at once, and in which order.
//!
//! Within a source, messages are handled one after another unless you say otherwise, and at most
//! [`concurrency`](crate::FanIn::concurrency) handlers run at once over all sources.
//!
//! | | order | several messages of one source at once |
//! | --- | --- | --- |
//! | the default | that of the source | no |
//! | [`ordered_by`](crate::FanIn::ordered_by) a key | within a key of a source | with different keys |
//! | [`ordered_across_sources_by`](crate::FanIn::ordered_across_sources_by) a key | within a key, wherever it comes from | with different keys |
//! | [`unordered`](crate::FanIn::unordered) | none | yes |
//!
//! [`per_source_concurrency`](crate::FanIn::per_source_concurrency) keeps one source from taking all
//! the room. A failed message that waits for its next attempt keeps its place: its source waits
//! with it, or its key.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use futures::stream;
//! use watershed::{BoxError, StepContext, fan_in, timers};
//! # use std::time::Duration;
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let payments = stream::iter([("ann", 1), ("bob", 1), ("ann", 2), ("cid", 1), ("ann", 3)]);
//!         let booked = std::sync::Mutex::new(BTreeMap::<_, Vec<u32>>::new());
//!         let context = StepContext::new("payments");
//!         let report = fan_in(&context, [payments], async |(account, number), step| {
//!             // The ones of bob and cid overtake those of ann, which wait for one another.
//!             timers::delay(&step, Duration::from_millis(1)).await?;
//!             booked.lock().unwrap().entry(account).or_default().push(number);
//!             Ok::<_, BoxError>(())
//!         })
//!         .concurrency(8)
//!         .ordered_by(|(account, _)| *account)
//!         .await?;
//!         assert_eq!(report.handled(), 5);
//!         assert_eq!(booked.lock().unwrap()["ann"], [1, 2, 3]);
//!         Ok(())
//!     })
//! }
//! ```
//!
//! A limit that nothing can reach is no silence: eight handlers for one source in its own order can
//! never run, and the report says so.
//!
//! ```
//! use futures::stream;
//! use watershed::{BoxError, StepContext, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let context = StepContext::new("thumbnails");
//!         let report = fan_in(&context, [stream::iter(0..10)], async |_, _| Ok::<_, BoxError>(()))
//!             .concurrency(8)
//!             .await?;
//!         assert_eq!(report.warnings()[0].option(), "concurrency");
//!
//!         let report = fan_in(&context, [stream::iter(0..10)], async |_, _| Ok::<_, BoxError>(()))
//!             .concurrency(8)
//!             .unordered()
//!             .await?;
//!         assert!(report.warnings().is_empty());
//!         Ok(())
//!     })
//! }
//! ```
