//! For people who use `futures` alone.
//!
//! The loop by hand, with a list of what to undo:
//!
//! ```
//! use futures::future::BoxFuture;
//! use futures::stream::{self, StreamExt, select_all};
//!
//! type Undo = Box<dyn FnOnce() -> BoxFuture<'static, ()>>;
//!
//! async fn reserve(seat: u32) -> Result<(), String> {
//!     if seat == 3 { Err("taken".to_owned()) } else { Ok(()) }
//! }
//!
//! fn main() {
//!     futures::executor::block_on(async {
//!         let mut messages = select_all([stream::iter(1..=2), stream::iter(3..=4)]);
//!         let mut undo: Vec<Undo> = Vec::new();
//!         let mut outcome = Ok(());
//!         while let Some(seat) = messages.next().await {
//!             if let Err(error) = reserve(seat).await {
//!                 outcome = Err(error);
//!                 break;
//!             }
//!             undo.push(Box::new(move || Box::pin(async move { println!("free {seat}") })));
//!         }
//!         if outcome.is_err() {
//!             while let Some(undo) = undo.pop() {
//!                 undo().await; // a panic, a failure or a drop here forgets the rest
//!             }
//!         }
//!     });
//! }
//! ```
//!
//! The same with a drain, which also has a deadline, survives panics, and can be dropped
//! anywhere:
//!
//! ```
//! use std::time::Duration;
//! use futures::stream;
//! use watershed::{CompensationPolicy, StepContext, fan_in};
//!
//! async fn reserve(seat: u32) -> Result<(), String> {
//!     if seat == 3 { Err("taken".to_owned()) } else { Ok(()) }
//! }
//!
//! fn main() -> Result<(), watershed::Error> {
//!     futures::executor::block_on(async {
//!         let context = StepContext::new("seats");
//!         let sources = [stream::iter(1..=2), stream::iter(3..=4)];
//!         let outcome = fan_in(&context, sources, async |seat, step| {
//!             reserve(seat).await?;
//!             step.register_compensation(move || async move { println!("free {seat}") });
//!             Ok::<_, String>(())
//!         })
//!         .timeout(Duration::from_secs(60))
//!         .await;
//!         if outcome.is_err() {
//!             context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
//!         }
//!         Ok(())
//!     })
//! }
//! ```
//!
//! | with `futures` | here | what it adds |
//! | --- | --- | --- |
//! | `select_all` and a loop | [`fan_in`](crate::fan_in) | nothing prefetched, fairness by turns, undo |
//! | `for_each_concurrent` | [`fan_in`](crate::fan_in) with [`concurrency`](crate::FanIn::concurrency) and [`unordered`](crate::FanIn::unordered) | or order within a source or a key; errors that end it, retries, dead letters |
//! | `take_until` | [`shutdown`](crate::FanIn::shutdown) | what runs is finished |
//! | `select!` in a loop | [`Select`](crate::channels::Select) | priorities, fair turns, a deadline |
//! | `ready_chunks`, `chunks` | [`Window`](crate::channels::Window) | by time as well, nothing lost on cancellation |
//! | `try_join_all` | [`when_all`](crate::combinators::when_all) | undone unless all succeed |
//! | `select_ok` | [`when_any`](crate::combinators::when_any()) | losers are undone |
//! | `FuturesUnordered` | [`group`](crate::group) | names, cancellation, compensations |
