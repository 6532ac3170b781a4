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
//! let shutdown = CancellationSource::new();
//! let context = StepContext::new("orders").with_cancellation(shutdown.token());
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
//! async fn handle(order: u32, tokens: Tokens, step: StepContext) -> Result<(), BoxError> {
//!     if !tokens.lock().map_err(|_| "tokens are gone")?.insert(order) {
//!         return Ok(()); // done before
//!     }
//!     step.register_compensation_with((tokens, order), |(tokens, order)| async move {
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
//! # futures::executor::block_on(handle(7, tokens, step.clone())).unwrap();
//! # step.scope().clear();
//! ```
//!
//! **4. The drain.** [`fan_in`] handles every message of every source, and ends with a report or
//! with the first error, further errors attached.
//!
//! **5. The rollback.** On failure [`run_compensation`] undoes what the messages did.
//!
//! ```
//! # use std::collections::BTreeSet;
//! # use std::sync::{Arc, Mutex};
//! # futures::executor::block_on(async {
//! use std::num::NonZeroUsize;
//! use std::time::Duration;
//! use futures::stream;
//! use watershed::{
//!     BoxError, CancellationToken, CompensationPolicy, Source, StepContext, fan_in,
//!     run_compensation,
//! };
//!
//! let tokens = Arc::new(Mutex::new(BTreeSet::new()));
//! let context = StepContext::new("orders");
//! let sources = [stream::iter([1, 2]).named("web"), stream::iter([3, 13]).named("phone")];
//!
//! let outcome = fan_in(&context, sources, |order, step| {
//!     let tokens = Arc::clone(&tokens);
//!     async move {
//!         tokens.lock().unwrap().insert(order);
//!         step.register_compensation_with(tokens, move |tokens| async move {
//!             tokens.lock().unwrap().remove(&order);
//!         });
//!         if order == 13 { Err("the payment was declined") } else { Ok(()) }
//!     }
//! })
//! .timeout(Duration::from_secs(60))
//! .concurrency(NonZeroUsize::MIN)
//! .await;
//!
//! let error = outcome.unwrap_err();
//! assert_eq!(error.to_string(), "the handler failed (message 2 of source `phone`)");
//!
//! let policy = CompensationPolicy::sequential_reverse();
//! let report = run_compensation(&policy, context.scope(), CancellationToken::never()).await?;
//! assert_eq!(report.succeeded(), 4);
//! assert!(tokens.lock().unwrap().is_empty());
//! # Ok::<_, BoxError>(()) }).unwrap();
//! ```
//!
//! The [`guide`] has a chapter for each kind of work, and pages for those who come from .NET, from
//! `futures` alone, and from Go.
//!
//! # What may be relied on
//!
//! - **Order.** Within a source, messages are handled in their order. Compensations run in the
//!   reverse of the order of registration, over all messages, also when handlers ran concurrently.
//! - **Nothing is prefetched.** A message is taken when its handler is about to be called. After
//!   any end of the drain, every message whose handler was not called is still in its source.
//! - **Commit.** [`Commit::Pipeline`] keeps compensations until the whole drain has succeeded;
//!   [`Commit::Message`] until the message has, in constant memory; [`Commit::Never`] leaves it to
//!   the caller.
//! - **Drop.** Dropping a drain or a rollback at any await point loses no compensation: what has
//!   not run is still staged.
//! - **Idempotency.** A compensation may run more than once, because a rollback can be interrupted
//!   or retried. Write it so that a second run does no harm.
//! - **Memory.** Compensations live in memory. A process that dies takes them with it; what must
//!   survive that belongs into a database, beside the effect.
//!
//! [`guide::reliability`] says how each of these is tested, with which numbers, and what is not
//! promised.
//!
//! # Time and executors
//!
//! Nothing is spawned and no executor is needed: a drain is a future like any other. All time comes
//! from the [`Clock`] of the context: [`SystemClock`] waits by a timer thread that works anywhere,
//! [`ManualClock`] stands still until a test advances it.
//!
//! # The order of the modules
//!
//! Each uses only what stands before it: `sync`, `origin`, `lock`, `waiters` and `chance`; `error`;
//! `diagnostics`; `panics`; `clock`, `cancellation` and `retry`; `limits` and `compensation`;
//! `outcome` and `execution`; `context`; `channels`, `timers`, `group`, `combinators` and
//! `streams`; `testing`.

mod cancellation;
mod chance;
pub mod channels;
mod clock;
pub mod combinators;
mod compensation;
mod context;
pub mod diagnostics;
mod error;
mod execution;
pub mod group;
pub mod guide;
mod limits;
mod lock;
mod origin;
mod outcome;
mod panics;
#[cfg(all(test, any(watershed_loom, watershed_shuttle)))]
mod proof;
mod retry;
pub mod streams;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timers;
mod waiters;

pub use cancellation::{CancellationSource, CancellationToken, Cancelled};
pub use channels::{
    Commit, FailedMessage, FanIn, FanInFuture, FanInReport, Faults, Named, OnFailure, Source,
    SourceReport, Tuned, fan_in,
};
pub use clock::{Clock, ManualClock, Sleep, SystemClock, Tick};
pub use compensation::{
    Action, ActionOutput, CompensationPolicy, CompensationScope, FailedAction, Labelled,
    Reservation, Rollback, RollbackFailed, RollbackReport, labelled, run_compensation,
};
pub use context::StepContext;
pub use error::{BoxError, Error, ErrorCode};
pub use execution::ExecutionPolicy;
pub use outcome::{Compensated, HandlerOutput, try_async};
pub use retry::RetryPolicy;
