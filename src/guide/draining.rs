//! One worker, many sources.
//!
//! [`fan_in`](crate::fan_in) takes anything that yields sources, and a handler. A source is any
//! [`Stream`](futures::Stream); sources of one drain have one type, so streams of different types
//! are boxed. The handler is called once a message and gets a [`StepContext`](crate::StepContext)
//! of its own: there it registers what undoes its effects.
//!
//! When the drain fails, nothing is undone yet: the compensations of all messages are on the scope
//! of the context you passed, and you decide. Usually that is
//! [`run_compensation`](crate::run_compensation).
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::num::NonZeroUsize;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use futures::{StreamExt, stream};
//! use watershed::{
//!     BoxError, CancellationToken, CompensationPolicy, Source, StepContext, fan_in, labelled,
//!     run_compensation,
//! };
//!
//! type Balances = Arc<Mutex<BTreeMap<&'static str, i64>>>;
//!
//! async fn book(
//!     (account, amount): (&'static str, i64),
//!     balances: Balances,
//!     step: StepContext,
//! ) -> Result<(), BoxError> {
//!     if amount == 0 {
//!         return Err(format!("nothing to book for {account}").into());
//!     }
//!     *balances.lock().unwrap().entry(account).or_default() += amount;
//!     let undo = labelled("take the booking back", move || {
//!         let balances = Arc::clone(&balances);
//!         async move { *balances.lock().unwrap().entry(account).or_default() -= amount }
//!     });
//!     step.register_compensation(undo);
//!     Ok(())
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let (sender, queue) = async_channel::bounded(8);
//!         sender.try_send(("ann", 5))?;
//!         sender.try_send(("bob", 0))?;
//!         drop(sender);
//!         let file = stream::iter([("ann", 7), ("cid", 1)]);
//!         let sources = [queue.boxed().named("queue"), file.boxed().named("file")];
//!
//!         let balances = Balances::default();
//!         let context = StepContext::new("bookings");
//!         let outcome = fan_in(&context, sources, |booking, step| {
//!             book(booking, Arc::clone(&balances), step)
//!         })
//!         .concurrency(NonZeroUsize::new(2).ok_or("two is not zero")?)
//!         .timeout(Duration::from_secs(60))
//!         .await;
//!
//!         let error = outcome.unwrap_err();
//!         assert_eq!(error.source_name(), Some("queue"));
//!         assert_eq!(error.message_number(), Some(2));
//!
//!         let policy = CompensationPolicy::sequential_reverse();
//!         run_compensation(&policy, context.scope(), CancellationToken::never()).await?;
//!         assert!(balances.lock().unwrap().values().all(|balance| *balance == 0));
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # Many messages of one source at once
//!
//! Within a source, messages are handled one after another. Where only some of them belong
//! together, [`ordered_by`](crate::FanIn::ordered_by) names the key: messages of one key keep their
//! order, those of different keys run side by side.
//!
//! # Sources that come and go
//!
//! [`incoming`](crate::FanIn::incoming) takes a stream of further sources;
//! [`channels::live`](crate::channels::live) makes one with handles that pause, resume and remove.
