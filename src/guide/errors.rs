//! Going on after a failure, and collecting what went wrong.
//!
//! A drain that fails ends with the first error; what else went wrong while it was ending is in
//! [`Error::related`](crate::Error::related), in the order of the sources. Your own error comes
//! back with [`Error::downcast_ref`](crate::Error::downcast_ref).
//!
//! A worker that must not stop at one bad message takes
//! [`OnFailure::RollBackMessage`](crate::OnFailure::RollBackMessage): the message's own effects are
//! undone at once, the dead-letter callback gets the error, and the drain goes on.
//!
//! ```
//! use std::num::ParseIntError;
//!
//! use futures::stream;
//! use watershed::{BoxError, Error, ErrorCode, OnFailure, Source, StepContext, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let sources = [
//!             stream::iter(["1", "two", "3"]).named("left"),
//!             stream::iter(["4", "V", "6"]).named("right"),
//!         ];
//!         let context = StepContext::new("numbers");
//!         let mut errors: Vec<Error> = Vec::new();
//!         let report = fan_in(&context, sources, |text, step| async move {
//!             step.register_compensation(move || async move { println!("forget {text}") });
//!             text.parse::<u32>().map(drop)
//!         })
//!         .on_failure(OnFailure::RollBackMessage)
//!         .dead_letter(|failed| errors.push(failed.error().clone()))
//!         .await?;
//!
//!         assert_eq!((report.handled(), report.rolled_back()), (4, 2));
//!         assert!(errors.iter().all(|error| error.downcast_ref::<ParseIntError>().is_some()));
//!         // One error out of all of them, for whoever wants a single result.
//!         let all = Error::new(ErrorCode::Aggregate, format!("{} messages failed", errors.len()))
//!             .with_related(errors);
//!         assert_eq!(all.related()[0].to_string(), "the handler failed (message 2 of source `left`)");
//!         Ok(())
//!     })
//! }
//! ```
