//! Choosing which source goes first.
//!
//! There are two ways, for two questions.
//!
//! *Which message next, of any type, and perhaps something else when there is none?* That is
//! [`Select`](crate::channels::Select): cases over streams of different types, asked in order of
//! priority. One run has one winner, and takes no message from any other case.
//!
//! ```
//! use futures::stream;
//! use watershed::channels::Select;
//! use watershed::{BoxError, ErrorCode, Source, StepContext};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let (alarms, from_alarms) = async_channel::unbounded::<&str>();
//!         alarms.try_send("fire")?;
//!         drop(alarms);
//!         let context = StepContext::new("desk");
//!         let mut select = Select::new(&context)
//!             .case(from_alarms.prioritized(0), async |alarm, step| {
//!                 step.register_compensation(async || println!("false alarm"));
//!                 Ok::<_, BoxError>(format!("alarm: {alarm}"))
//!             })
//!             .case(stream::iter([1, 2]), async |letter, _| {
//!                 Ok::<_, BoxError>(format!("letter {letter}"))
//!             });
//!         let mut done = Vec::new();
//!         loop {
//!             match select.run().await {
//!                 Ok(what) => done.push(what),
//!                 Err(error) if error.code() == ErrorCode::SelectDrained => break,
//!                 Err(error) => return Err(error.into()),
//!             }
//!         }
//!         assert_eq!(done, ["alarm: fire", "letter 1", "letter 2"]);
//!         context.scope().clear();
//!         Ok(())
//!     })
//! }
//! ```
//!
//! *How much of the worker does each source get?* Then the sources of a [`fan_in`](crate::fan_in), or of
//! a [`merge`](crate::channels::merge()), carry the answer: [`prioritized`](crate::Source::prioritized) makes
//! the others slow as long as an urgent source has something, and never starves them;
//! [`weighted`](crate::Source::weighted) gives shares.
//!
//! ```
//! use std::sync::Mutex;
//!
//! use futures::{StreamExt, stream};
//! use watershed::{BoxError, Source, StepContext, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let sources = [
//!             stream::repeat("bulk").take(40).prioritized(200),
//!             stream::repeat("paid").take(40).weighted(2),
//!         ];
//!         let sent = Mutex::new(Vec::new());
//!         let context = StepContext::new("mail");
//!         fan_in(&context, sources, async |mail, _| {
//!             sent.lock().unwrap().push(mail);
//!             Ok::<_, BoxError>(())
//!         })
//!         .quantum(4)
//!         .await?;
//!         let sent = sent.into_inner()?;
//!         // Eight of the one, one of the other.
//!         assert_eq!(sent[4..13].iter().filter(|mail| **mail == "paid").count(), 8);
//!         assert_eq!(sent.len(), 80);
//!         Ok(())
//!     })
//! }
//! ```
