//! Which commit mode and which failure mode.
//!
//! Two questions decide. *When is an effect final?* and *what does one bad message do to the
//! others?*
//!
//! | | `OnFailure::Abort` | `OnFailure::RollBackMessage` |
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
//!             (Commit::Pipeline, OnFailure::Abort, 2),           // 1, and 2 that failed
//!             (Commit::Message, OnFailure::Abort, 1),            // 2 that failed
//!             (Commit::Pipeline, OnFailure::RollBackMessage, 0), // 1 and 3 are final
//!             (Commit::Message, OnFailure::RollBackMessage, 0),
//!             (Commit::Never, OnFailure::RollBackMessage, 2),    // 1 and 3, for you to decide
//!         ] {
//!             let context = StepContext::new("modes");
//!             let outcome = fan_in(&context, [stream::iter(1..=3)], |message, step| async move {
//!                 step.register_compensation(|| async {});
//!                 if message == 2 { Err("no") } else { Ok(()) }
//!             })
//!             .commit(commit)
//!             .on_failure(on_failure)
//!             .await;
//!             assert_eq!(outcome.is_ok(), on_failure == OnFailure::RollBackMessage);
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
