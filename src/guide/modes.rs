//! Which commit mode and which failure mode.
//!
//! Two questions decide. *When is an effect final?* and *what does one bad message do to the
//! others?*
//!
//! | | `OnFailure::Abort` | `OnFailure::Continue`, or `dead_letters` |
//! | --- | --- | --- |
//! | `Commit::Pipeline` | All or nothing: an import of one file, a migration. Memory grows with the messages. | An import that leaves out what it cannot read; a cancellation still undoes the rest. |
//! | `Commit::Message` | A feed that stops at the first failure, to be started again by a supervisor. Constant memory. | An endless feed with dead letters. Constant memory. |
//! | `Commit::Never` | The scope outlives the drain: several drains make one unit, and you clear it. | The same, leaving out what failed. |
//!
//! ```
//! use futures::stream;
//! use watershed::{BoxError, Commit, OnFailure, StepContext, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         for (commit, on_failure, staged) in [
//!             (Commit::Pipeline, OnFailure::Abort, 2),    // 1, and 2 that failed
//!             (Commit::Message, OnFailure::Abort, 1),     // 2 that failed
//!             (Commit::Pipeline, OnFailure::Continue, 0), // 1 and 3 are final
//!             (Commit::Message, OnFailure::Continue, 0),
//!             (Commit::Never, OnFailure::Continue, 2),    // 1 and 3, for you to decide
//!         ] {
//!             let context = StepContext::new("modes");
//!             let outcome = fan_in(&context, [stream::iter(1..=3)], async |message, step| {
//!                 step.register_compensation(async || {});
//!                 if message == 2 { Err("no") } else { Ok(()) }
//!             })
//!             .commit(commit)
//!             .on_failure(on_failure)
//!             .await;
//!             assert_eq!(outcome.is_ok(), on_failure == OnFailure::Continue);
//!             assert_eq!(context.scope().clear(), staged, "{commit:?}, {on_failure:?}");
//!         }
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # Register before, or after?
//!
//! [`register_compensation`](crate::StepContext::register_compensation) after the effect is right
//! when only the effect's result tells how to undo it. Where the effect may have happened although
//! its call failed, [`reserve`](crate::StepContext::reserve) before it, and
//! [`disarm`](crate::Reservation::disarm) when it turned out not to have happened.
//!
//! ```
//! use futures::stream;
//! use watershed::{BoxError, OnFailure, StepContext, fan_in};
//!
//! /// Inserts a row, unless it is there: then it is not ours to delete.
//! async fn insert(row: u32) -> Result<bool, BoxError> {
//!     Ok(row != 7)
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let context = StepContext::new("rows");
//!         fan_in(&context, [stream::iter(6..=8)], async |row, step: StepContext| {
//!             let delete = step.reserve(move || async move { println!("delete row {row}") });
//!             if !insert(row).await? {
//!                 delete.disarm();
//!             }
//!             assert_eq!(step.scope().len(), usize::from(row != 7));
//!             Ok::<_, BoxError>(())
//!         })
//!         .on_failure(OnFailure::Continue)
//!         .await?;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # A drain within a drain
//!
//! A drain on the step of another drain's message is *nested* in it: when it succeeds, what it staged
//! goes to that step, and is final only when the outer message is.
