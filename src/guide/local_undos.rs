//! Undoing what cannot leave its thread.
//!
//! A scope may be used by any thread, so its actions are `Send`. For state that is not (an `Rc`, a
//! handle of a user interface) there is [`LocalUndos`](crate::LocalUndos): the actions live in that
//! value, which stays where it is, and take their places in the order of all the others. The drain is
//! given it by [`local_undos`](crate::FanIn::local_undos), and is not `Send` then; the rollback by
//! [`local`](crate::Rollback::local). A rollback that was not given it reports such actions as failed,
//! and keeps them.
//!
//! ```
//! use std::cell::RefCell;
//! use std::rc::Rc;
//!
//! use futures::stream;
//! use watershed::{BoxError, CompensationPolicy, LocalUndos, StepContext, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let document = Rc::new(RefCell::new(Vec::new()));
//!         let (context, undos) = (StepContext::new("macro"), LocalUndos::new());
//!         let outcome = fan_in(&context, [stream::iter(["a", "b", "?"])], async |key, step| {
//!             document.borrow_mut().push(key);
//!             let undone = Rc::clone(&document);
//!             undos.register(&step, move || {
//!                 let undone = Rc::clone(&undone);
//!                 async move { drop(undone.borrow_mut().pop()) }
//!             });
//!             if key == "?" { Err("no such key") } else { Ok(()) }
//!         })
//!         .local_undos(&undos)
//!         .await;
//!         assert!(outcome.is_err());
//!         assert_eq!(*document.borrow(), ["a", "b", "?"]);
//!
//!         let policy = CompensationPolicy::sequential_reverse();
//!         let report = context.roll_back(&policy).local(&undos).await?;
//!         assert_eq!(report.succeeded(), 3);
//!         assert!(document.borrow().is_empty());
//!         Ok(())
//!     })
//! }
//! ```
