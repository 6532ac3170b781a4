//! Drain many streams through one async handler, and undo what was done when something fails half
//! way. On any executor, without one of its own.
//!
//! A worker reads from many sources at once: partitions, queues, leased rows, sockets. For each
//! message its handler causes a few effects, and registers for each effect a *compensation* that
//! undoes it. When all goes well the compensations are cleared; when something fails they run in
//! the reverse order of their registration, each exactly once, none forgotten. Errors, panics,
//! timeouts, cancellation and dropped futures all end at the same place.
//!
//! # The walk through a worker, in five steps
//!
//! **1. Sources.** Every [`futures::Stream`] is a [`Source`]; an `async_channel` receiver is one as
//! it is. Sources of different types are boxed, and a source can carry a name.
//!
//! ```
//! use futures::{StreamExt, stream};
//! use watershed::Source;
//!
//! let (sender, queue) = async_channel::bounded::<u32>(16);
//! # drop(sender);
//! let sources = vec![queue.boxed().named("queue"), stream::iter([7, 8]).boxed().named("backlog")];
//! # drop(sources);
//! ```
//!
//! **2. A context.** It carries the name of the step, the clock, the cancellation token, and the
//! scope that collects compensations.
//!
//! ```
//! use watershed::{CancellationSource, StepContext};
//!
//! let stop = CancellationSource::new();
//! let context = StepContext::new("orders").with_cancellation(stop.token());
//! # drop(context);
//! ```
//!
//! **3. A handler.** It is called once a message, with the message and a context of its own, and
//! registers a compensation behind each effect. Where an effect may have happened although its call
//! failed, [`StepContext::reserve`] stages the compensation first.
//!
//! ```
//! use std::collections::BTreeSet;
//! use std::sync::{Arc, Mutex};
//! use watershed::{BoxError, StepContext};
//!
//! type Tokens = Arc<Mutex<BTreeSet<u32>>>;
//!
//! async fn handle(order: u32, tokens: &Tokens, step: StepContext) -> Result<(), BoxError> {
//!     if !tokens.lock().map_err(|_| "tokens are gone")?.insert(order) {
//!         return Ok(()); // done before
//!     }
//!     step.register_compensation_with((Arc::clone(tokens), order), async |(tokens, order)| {
//!         if let Ok(mut tokens) = tokens.lock() {
//!             tokens.remove(&order);
//!         }
//!     });
//!     if order == 13 {
//!         return Err("the payment was declined".into());
//!     }
//!     Ok(())
//! }
//! # let tokens = Tokens::default();
//! # let step = StepContext::new("orders");
//! # futures::executor::block_on(handle(7, &tokens, step.clone())).unwrap();
//! # step.scope().clear();
//! ```
//!
//! **4. The drain.** [`fan_in`] handles every message of every source, and ends with a report, or
//! with the first error and the report of what was done: a [`Failure`].
//!
//! **5. The rollback.** On failure [`StepContext::roll_back`] undoes what the messages did.
//!
//! ```
//! # use std::collections::BTreeSet;
//! # use std::sync::{Arc, Mutex};
//! # futures::executor::block_on(async {
//! use std::time::Duration;
//! use futures::stream;
//! use watershed::{BoxError, CompensationPolicy, Source, StepContext, fan_in};
//!
//! let tokens = Arc::new(Mutex::new(BTreeSet::new()));
//! let context = StepContext::new("orders");
//! let sources = [stream::iter([1, 2]).named("web"), stream::iter([3, 13]).named("phone")];
//!
//! let outcome = fan_in(&context, sources, async |order, step| {
//!     tokens.lock().unwrap().insert(order);
//!     step.register_compensation_with((Arc::clone(&tokens), order), async |(tokens, order)| {
//!         tokens.lock().unwrap().remove(&order);
//!     });
//!     if order == 13 { Err("the payment was declined") } else { Ok(()) }
//! })
//! .concurrency(2)
//! .timeout(Duration::from_secs(60))
//! .await;
//!
//! let failure = outcome.unwrap_err();
//! let what = "the handler failed (message 2 of source `phone`): the payment was declined";
//! assert_eq!(format!("{failure:#}"), what);
//! assert_eq!(failure.report().failed(), 1);
//!
//! let report = context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
//! assert_eq!(report.succeeded() as u64, failure.report().taken());
//! assert!(tokens.lock().unwrap().is_empty());
//! # Ok::<_, BoxError>(()) }).unwrap();
//! ```
//!
//! What a worker in production adds is one option each: [`retry`](FanIn::retry),
//! [`dead_letters`](FanIn::dead_letters), [`shutdown`](FanIn::shutdown),
//! [`progress`](FanIn::progress). The [`guide`] has a chapter for each kind of work, and pages for
//! those who come from .NET, from `futures` alone, and from Go. A worker's whole life, from its start
//! over a stop to the next start, is one program in [`guide::life`]. On tokio, read
//! [`guide::under_tokio`]; with a loop of your own and no threads, [`guide::embedded`]; with sources
//! of different kinds, [`guide::mixing`]; for a library on this one, [`guide::embedding`]; and when the
//! compiler refuses a handler, [`guide::compile_errors`].
//!
//! # What may be relied on
//!
//! - **Order.** Within a source, messages are handled in their order, or in that of a key, or in any:
//!   as you say. Compensations run in the reverse of the order of registration, over all messages,
//!   also when handlers ran concurrently.
//! - **Nothing is prefetched.** A message is taken when its handler is about to be called. After
//!   any end of the drain, every message whose handler was not called is still in its source. What
//!   must hold messages (a window, a key that is busy, the wait for another attempt) gives them to
//!   [`put_back`](FanIn::put_back). A [transport] fetches ahead, and gives back what was not begun.
//! - **Settlement.** What comes from a [transport] is accepted when it was handled, and given back or
//!   rejected when it was not, behind its undo; each receipt is counted in exactly one end.
//! - **Fairness.** Between two turns of one ready source, every other ready source has one; neither
//!   a busy source nor a weight keeps the deadline, the cancellation or the executor waiting.
//! - **Commit.** [`Commit::Pipeline`] keeps compensations until the whole drain has succeeded;
//!   [`Commit::Message`] until the message has, in constant memory; [`Commit::Never`] leaves it to
//!   the caller.
//! - **Drop.** Dropping a drain or a rollback at any await point loses no compensation: what has
//!   not run is still staged.
//! - **Panics.** A panic of a handler, a source, an action or a destructor becomes an error, and costs
//!   no neighbour.
//! - **Idempotency.** A compensation may run more than once, because a rollback can be interrupted
//!   or retried. Write it so that a second run does no harm.
//! - **Memory.** Compensations live in memory. A process that dies takes them with it; what must
//!   survive that belongs into a database, beside the effect, or comes again from a [transport]: see
//!   [`guide::acknowledging`].
//!
//! [`guide::reliability`] says how each of these is tested, and what is not promised.
//!
//! # Time and executors
//!
//! Nothing is spawned and no executor is needed: a drain is a future like any other. All time comes
//! from the [`Clock`] of the context: [`SystemClock`] waits by a timer thread that works anywhere,
//! [`ManualClock`] stands still until a test advances it.

// The order of the modules. Each uses only what stands before it: `sync`, `origin`, `lock`, `waiters`
// and `chance`; `error`, `diagnostics` and `panics`, which know each other; `clock`, `cancellation` and
// `retry`; `operation`, `ready` and `undo`; `outcome`; `step`; `settlement`; `source`; `drain`, `transport`; `channels`, `timers`,
// `group`, `combinators` and `streams`; `testing`.

mod cancellation;
mod chance;
pub mod channels;
mod clock;
pub mod combinators;
pub mod diagnostics;
mod drain;
mod error;
pub mod group;
pub mod guide;
mod lock;
mod operation;
mod origin;
mod outcome;
mod panics;
#[cfg(all(test, any(watershed_loom, watershed_shuttle)))]
mod proof;
mod ready;
mod retry;
mod settlement;
mod source;
mod step;
pub mod streams;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timers;
pub mod transport;
mod undo;
mod waiters;

pub use cancellation::{CancellationSource, CancellationToken, Cancelled, DropGuard};
pub use clock::{Clock, ManualClock, Sleep, SystemClock, Tick};
pub use drain::{
    Commit, FanIn, FanInReport, Letter, OnFailure, Progress, SourceReport, Warning, fan_in,
};
pub use error::{BoxError, Error, ErrorCode, Failure};
pub use operation::OperationFuture;
pub use origin::SourceId;
pub use outcome::{Answer, Compensated, HandlerOutput, try_async};
pub use retry::RetryPolicy;
pub use source::{Changed, Configured, Faults, Source};
pub use step::{StepContext, with_step};
pub use undo::{
    Action, ActionOutput, CompensationPolicy, CompensationScope, FailedAction, LocalAction,
    LocalUndos, Reservation, Rollback, RollbackReport, Undoing, labelled,
};

/// The program in the README is compiled and run as it is printed.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
