//! For you, if you build a library of your own on this one.
//!
//! - *Bounds.* [`Source`](crate::Source) for what yields messages, and for a handler
//!   `H: FnMut(S::Message, StepContext) -> F` with `F: Future<Output: HandlerOutput>`: an async closure
//!   of your users fits. Ask for [`Clone`] messages where you retry or have dead letters. `Send` is
//!   asked of nobody: the future is, if its parts are. If you spawn it, ask for
//!   `Relaying<S, H>: Send + 'static`.
//! - *Names.* The future of a builder `B` is `<B as IntoFuture>::IntoFuture`: an
//!   [`OperationFuture`](crate::OperationFuture), which is `Unpin`. Options that take a function (`ordered_by`, `dead_letters`,
//!   `put_back`), and a handler that is a closure of your own, have types without a name: return
//!   `impl Future`, or box the future.
//! - *Context.* Take one instead of making one: it brings the clock, the token and the scope of your
//!   users. Roll back nothing that is theirs.
//! - *Actions.* A closure does. A type that implements [`Action`](crate::Action) has a label, and is
//!   told of the rollback that runs it ([`Undoing`](crate::Undoing)).
//! - *Clocks.* One over another passes on all three methods.
//! - *Tests.* With the feature `testing`, `testing::explore` runs a scenario in a `Simulation` for each
//!   seed, and tells the first one that breaks it: see [`testing`](crate::guide::testing). If `publish`
//!   registered behind its effect, this test would fail at one of its first seeds.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
//! use std::time::Duration;
//!
//! use watershed::{
//!     Action, BoxError, Clock, Error, FanIn, HandlerOutput, RetryPolicy, Sleep, Source, StepContext,
//!     Tick, Undoing, fan_in,
//! };
//!
//! /// What our users bring.
//! pub trait Topic: Clone + Send + 'static {
//!     fn publish(&self, event: u32) -> impl Future<Output = Result<(), BoxError>> + Send;
//!     /// Harmless for an event that was not published.
//!     fn withdraw(self, event: u32) -> impl Future<Output = Result<(), Error>> + Send;
//! }
//!
//! struct Withdraw<T>(T, u32);
//!
//! impl<T: Topic> Action for Withdraw<T> {
//!     fn attempt(&mut self, _: &Undoing) -> impl Future<Output = Result<(), Error>> + Send + 'static {
//!         self.0.clone().withdraw(self.1)
//!     }
//!     fn label(&self) -> Option<&str> {
//!         Some("withdraw the event")
//!     }
//! }
//!
//! /// Publishes an event, in a handler of our users. Whatever undoes the step withdraws it.
//! pub async fn publish<T: Topic>(event: u32, step: StepContext, topic: &T) -> Result<(), BoxError> {
//!     step.reserve(Withdraw(topic.clone(), event)); // first: this future may be dropped below
//!     topic.publish(event).await
//! }
//!
//! /// The future of a relay has a name, for fields and for futures that are written by hand.
//! pub type Relaying<S, H> = <FanIn<S, H> as IntoFuture>::IntoFuture;
//!
//! /// A drain with the settings of this library, and any handler.
//! pub fn relay<S, H, F>(context: &StepContext, sources: Vec<S>, handler: H) -> Relaying<S, H>
//! where
//!     S: Source<Message: Clone>,
//!     H: FnMut(S::Message, StepContext) -> F,
//!     F: Future<Output: HandlerOutput>,
//! {
//!     let clock = Arc::new(Metered(Arc::clone(context.clock())));
//!     let retry = RetryPolicy::exponential(5, Duration::from_millis(200));
//!     fan_in(&context.clone().with_clock(clock), sources, handler).retry(retry).into_future()
//! }
//!
//! /// The clock of our users, with a count of the waits.
//! #[derive(Debug)]
//! struct Metered(Arc<dyn Clock>);
//!
//! static WAITS: AtomicU64 = AtomicU64::new(0);
//!
//! impl Clock for Metered {
//!     fn now(&self) -> Tick {
//!         self.0.now()
//!     }
//!     fn sleep_until(&self, deadline: Tick) -> Sleep {
//!         WAITS.fetch_add(1, Relaxed);
//!         self.0.sleep_until(deadline)
//!     }
//!     fn check(&self) -> Result<(), Error> {
//!         self.0.check()
//!     }
//! }
//!
//! # #[cfg(feature = "testing")]
//! mod tests {
//!     use futures::future::{Either, select};
//!     use watershed::CompensationPolicy;
//!     use watershed::testing::{Ledger, Simulation, World};
//!
//!     use super::*;
//!
//!     #[derive(Clone)]
//!     struct Fake(World, Ledger<u32>);
//!
//!     impl Topic for Fake {
//!         async fn publish(&self, event: u32) -> Result<(), BoxError> {
//!             self.0.pause().await;
//!             if self.0.below(3) == 0 {
//!                 return Err("the broker is busy".into());
//!             }
//!             self.1.done(event);
//!             self.0.pause().await; // the answer is on its way
//!             Ok(())
//!         }
//!         async fn withdraw(self, event: u32) -> Result<(), Error> {
//!             if self.1.open().contains(&event) {
//!                 self.1.undone(event);
//!             }
//!             Ok(())
//!         }
//!     }
//!
//!     /// A relay that is dropped some day, or ends before.
//!     pub fn leaves_nothing_behind(simulation: &Simulation) -> Result<(), BoxError> {
//!         let (world, ledger) = (simulation.world(), Ledger::new());
//!         let (context, topic) = (world.context("relay"), Fake(world.clone(), ledger.clone()));
//!         let sources = vec![world.script("a").scattered(1..=5), world.script("b").scattered(6..=9)];
//!         let handler = async |event, step| publish(event, step, &topic).await;
//!         let some_day = Tick::ZERO + Duration::from_micros(world.below(600_000));
//!         let some_day = world.clock().sleep_until(some_day);
//!         match simulation.run(select(relay(&context, sources, handler), some_day))? {
//!             Either::Left((Ok(_), _)) => assert_eq!(ledger.commit_open(), 9),
//!             failed_or_too_late => drop(failed_or_too_late), // what it holds is staged only now
//!         }
//!         simulation.run(context.roll_back(&CompensationPolicy::sequential_reverse()))??;
//!         ledger.check()?;
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     # #[cfg(feature = "testing")]
//!     watershed::testing::explore(0..500, tests::leaves_nothing_behind)?;
//!     Ok(())
//! }
//! ```
