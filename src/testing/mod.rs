//! Tests of handlers that find what chance would hide (feature `testing`).
//!
//! A [`Simulation`] is a deterministic executor: its seed decides which task runs next and how long
//! a [`pause`](World::pause) takes, its clock jumps to the next timer when nothing can run, and
//! its trace is the same in every run with the same seed. Sources follow a [`Script`]: ready,
//! pending, waiting, never ready, faulting, panicking, waking without cause. A [`Ledger`] holds the
//! effects of the handler and tells whether each was committed or undone exactly once, or reported
//! as stuck.
//!
//! Three ways to try everything:
//!
//! - [`explore`]: many seeds, until one breaks the scenario, and says which
//! - [`for_every_poll`]: the future dropped, or cancelled, after each of its polls
//! - [`for_every_fault`]: an error, and a panic, at each point that can fail
//!
//! ```
//! use watershed::testing::{Ledger, Simulation, explore};
//! use watershed::{BoxError, CompensationPolicy, fan_in};
//!
//! fn scenario(simulation: &Simulation) -> Result<(), BoxError> {
//!     let world = simulation.world();
//!     let (context, ledger) = (world.context("orders"), Ledger::new());
//!     let sources = [
//!         world.script("web").scattered(0..5),
//!         world.script("phone").scattered(5..10),
//!     ];
//!     let drain = fan_in(&context, sources, async |order, step| {
//!         world.pause().await;
//!         ledger.apply(&step, order);
//!         world.pause().await;
//!         if order == 7 { Err("declined") } else { Ok(()) }
//!     });
//!     assert!(simulation.run(drain.concurrency(2))?.is_err());
//!     simulation.run(context.roll_back(&CompensationPolicy::sequential_reverse()))??;
//!     ledger.check()?;
//!     Ok(())
//! }
//! assert_eq!(explore(0..100, scenario).unwrap(), 100);
//! ```
//!
//! - `simulation`: the executor; `world`: what everything in it shares; `trace`: what happened
//! - `script`: sources; `queue`: a transport; `ledger`: effects
//! - `explore`, `every_poll`, `every_fault`: trying everything
//! - `log`: a transport in prefix order, with partitions that come and go

mod conformance;
mod every_fault;
mod every_poll;
mod explore;
mod ledger;
mod log;
mod queue;
mod script;
mod simulation;
mod trace;
mod world;

pub use conformance::{Broker, conformance};
pub use every_fault::{Fault, FaultPoints, for_every_fault};
pub use every_poll::{DropPoint, for_every_poll};
pub use explore::{Finding, explore};
pub use ledger::{Account, Entry, Ledger, Unaccounted};
pub use log::{LogAnswer, LogConsumer, LogOffset, LogRecord, ScriptedLog};
pub use queue::{FetchAnswer, QueueCall, QueueReceipt, RenewalAnswer, ScriptedQueue, SettleAnswer};
pub use script::Script;
pub use simulation::{Simulation, Spawner, Stopped};
pub use trace::Event;
pub use world::World;
