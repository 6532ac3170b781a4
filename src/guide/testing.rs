//! Time by hand with `ManualClock`, and every schedule by seed.
//!
//! Everything that waits does so by the clock of its context: deadlines, graces, windows, tickers,
//! retries. Give the context a [`ManualClock`](crate::ManualClock) and nothing waits any more; the
//! test says when time passes, and the same input gives the same trace every time.
//!
//! ```
//! use std::future::IntoFuture;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use futures::FutureExt;
//! use watershed::{BoxError, Clock, ErrorCode, ManualClock, StepContext, Tick, fan_in, timers};
//!
//! const MINUTE: Duration = Duration::from_secs(60);
//!
//! fn main() -> Result<(), BoxError> {
//!     let clock = ManualClock::new();
//!     let context = StepContext::new("worker").with_clock(Arc::new(clock.clone()));
//!     let (sender, receiver) = async_channel::unbounded();
//!     sender.try_send(1)?;
//!
//!     let drain = fan_in(&context, [receiver], async |_, step| {
//!         timers::delay(&step, 2 * MINUTE).await?;
//!         Ok::<_, BoxError>(())
//!     });
//!     let mut drain = drain.timeout(3 * MINUTE).into_future();
//!
//!     assert!((&mut drain).now_or_never().is_none(), "the handler waits");
//!     assert_eq!(clock.sleepers(), 2, "for its delay; and the drain for its deadline");
//!     clock.advance(2 * MINUTE);
//!     assert!((&mut drain).now_or_never().is_none(), "handled; now it waits for messages");
//!     assert!(clock.advance_to_next(), "to the deadline");
//!     assert_eq!(clock.now().since(Tick::ZERO), 3 * MINUTE);
//!     let failure = drain.now_or_never().ok_or("it is over")?.unwrap_err();
//!     assert_eq!((failure.error().code(), failure.report().handled()), (ErrorCode::Timeout, 1));
//!     Ok(())
//! }
//! ```
//!
//! # What chance would hide
//!
//! Some faults show only when a deadline comes between two awaits, or when one handler is slower
//! than the other. The feature `testing` (under `[dev-dependencies]`) has a deterministic executor
//! whose seed decides who runs next, a clock that jumps to the next timer, scripted sources, and a
//! ledger that tells whether every effect was committed or undone exactly once. This handler does
//! its effect before it registers the compensation, with an await in between; a thousand seeds find
//! the one that shows it, and the seed shows it again. The example `simulation` is a longer one.
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! use std::time::Duration;
//!
//! use watershed::testing::{Ledger, Simulation, explore};
//! use watershed::{BoxError, CompensationPolicy, StepContext, fan_in};
//!
//! fn scenario(simulation: &Simulation) -> Result<(), BoxError> {
//!     let world = simulation.world();
//!     let (context, ledger) = (world.context("orders"), Ledger::new());
//!     let orders = world.script("orders").scattered(1..=5);
//!     let drain = fan_in(&context, [orders], async |order, step: StepContext| {
//!         ledger.done(order);
//!         world.pause().await; // here it may be dropped
//!         let undone = ledger.clone();
//!         step.register_compensation(move || {
//!             undone.undone(order);
//!             async {}
//!         });
//!         Ok::<_, BoxError>(())
//!     });
//!     let deadline = Duration::from_micros(world.below(20_000));
//!     if simulation.run(drain.timeout(deadline).grace(Duration::ZERO))?.is_ok() {
//!         ledger.commit_open();
//!     }
//!     simulation.run(context.roll_back(&CompensationPolicy::sequential_reverse()))??;
//!     ledger.check()?;
//!     Ok(())
//! }
//!
//! let finding = explore(0..1_000, scenario).unwrap_err();
//! assert!(finding.to_string().contains("neither committed nor undone"));
//! assert!(explore([finding.seed()], scenario).is_err());
//! # }
//! ```
//!
//! Two further ways to try everything: `testing::for_every_poll` drops a future after each of its
//! polls, and `testing::for_every_fault` lets each point of a scenario fail, by an error and by a
//! panic.
