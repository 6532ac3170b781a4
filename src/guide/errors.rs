//! What went wrong, in the user's own words, and what was done all the same.
//!
//! A drain that fails gives a [`Failure`](crate::Failure): the [`Error`](crate::Error), and the report
//! of what was done. `?` turns it into the error. `{error}` says what failed and where, and
//! `{error:#}` adds the causes down to your own words. Your own error comes back with
//! [`downcast_ref`](crate::Error::downcast_ref). What else went wrong while the drain was ending is in
//! [`related`](crate::Error::related): the first ones by value, and the number of all.
//!
//! ```
//! use std::num::ParseIntError;
//!
//! use futures::stream;
//! use watershed::{BoxError, ErrorCode, Source, StepContext, fan_in};
//!
//! async fn import() -> Result<u64, watershed::Error> {
//!     let sources = [
//!         stream::iter(["1", "two", "3"]).named("left"),
//!         stream::iter(["4", "5", "6"]).named("right"),
//!     ];
//!     let context = StepContext::new("numbers");
//!     let report = fan_in(&context, sources, async |text, step| {
//!         step.register_compensation(move || async move { println!("forget {text}") });
//!         text.parse::<u32>().map(drop)
//!     })
//!     .await
//!     .map_err(|failure| {
//!         assert_eq!(failure.report().failed(), 1); // the report is there in any case
//!         context.scope().clear();
//!         failure
//!     })?;
//!     Ok(report.handled())
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     let error = futures::executor::block_on(import()).unwrap_err();
//!     assert_eq!(error.code(), ErrorCode::Handler);
//!     assert_eq!(error.to_string(), "the handler failed (message 2 of source `left`)");
//!     assert_eq!(
//!         format!("{error:#}"),
//!         "the handler failed (message 2 of source `left`): invalid digit found in string"
//!     );
//!     assert!(error.downcast_ref::<ParseIntError>().is_some());
//!     assert_eq!((error.related().len(), error.related_total()), (0, 0));
//!     Ok(())
//! }
//! ```
//!
//! A source that can fail yields results; as [`faults`](crate::Source::faults) its errors end the
//! drain. A worker that must not stop at one bad message has
//! [`dead_letters`](crate::guide::dead_letters), or [`retries`](crate::guide::retries).
