//! One worker, many sources.
//!
//! [`fan_in`](crate::fan_in) takes anything that yields sources, and a handler. A source is any
//! [`Stream`](futures::Stream); sources of one drain have one type, so streams of different types
//! are boxed. The handler is called once a message and gets a [`StepContext`](crate::StepContext)
//! of its own: there it registers what undoes its effects.
//!
//! When the drain fails, nothing is undone yet: the compensations of all messages are on the scope
//! of the context you passed, and you decide. Usually that is
//! [`roll_back`](crate::StepContext::roll_back). The failure is a pair of the error and the report of
//! what was done; `?` keeps the error alone.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use futures::{StreamExt, stream};
//! use watershed::{BoxError, CompensationPolicy, Source, StepContext, fan_in, labelled};
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
//!         let outcome = fan_in(&context, sources, async |booking, step| {
//!             book(booking, Arc::clone(&balances), step).await
//!         })
//!         .concurrency(2)
//!         .timeout(Duration::from_secs(60))
//!         .await;
//!
//!         let failure = outcome.unwrap_err();
//!         assert_eq!(failure.error().source_name(), Some("queue"));
//!         assert_eq!(failure.error().message_number(), Some(2));
//!         assert_eq!(failure.report().failed(), 1);
//!         assert!(format!("{failure:#}").ends_with("nothing to book for bob"));
//!
//!         context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
//!         assert!(balances.lock().unwrap().values().all(|balance| *balance == 0));
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # In a task of its own
//!
//! A drain is `Send` when its sources, messages, handler and the handler's futures are: any executor
//! can run it in a task.
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
//!
//! use futures::stream;
//! use watershed::{BoxError, StepContext, fan_in};
//!
//! async fn work() -> Result<u32, watershed::Error> {
//!     let sum = AtomicU32::new(0);
//!     let context = StepContext::new("sums");
//!     fan_in(&context, [stream::iter(1..=3)], async |number, _| {
//!         sum.fetch_add(number, Relaxed);
//!         Ok::<_, BoxError>(())
//!     })
//!     .await?;
//!     Ok(sum.into_inner())
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     assert_eq!(smol::block_on(smol::spawn(work()))?, 6);
//!     Ok(())
//! }
//! ```
//!
//! Within a source, messages are handled one after another; [`ordering`](crate::guide::ordering) says
//! how to have more of them at once. Sources that come and go have a chapter of their own,
//! [`live_sources`](crate::guide::live_sources).
