//! For people who come from the .NET original.
//!
//! | .NET | here |
//! | --- | --- |
//! | `ResultPipelineStepContext` | [`StepContext`](crate::StepContext) |
//! | `CompensationScope`, `HasActions`, `Clear`, `Absorb` | [`CompensationScope`](crate::CompensationScope), `has_actions`, `clear`, `absorb` |
//! | `RegisterCompensation(fn)`, `(state, fn)`, `TryRegisterCompensation` | `register_compensation`, `register_compensation_with`, `try_register_compensation` |
//! | `TimeProvider`, `FakeTimeProvider` | [`Clock`](crate::Clock), [`ManualClock`](crate::ManualClock) |
//! | `CancellationToken`, linked source | [`CancellationToken`](crate::CancellationToken), `linked` |
//! | `Result.RunCompensationAsync` | [`StepContext::roll_back`](crate::StepContext::roll_back), [`CompensationScope::roll_back`](crate::CompensationScope::roll_back) |
//! | `Result<T>`, `Error`, `Unit` | `Result<T, Error>`, [`Error`](crate::Error), `()` |
//! | `ResultPipelineChannels.FanInAsync` | [`fan_in`](crate::fan_in) |
//! | `SelectAsync`, `Select` | [`Select`](crate::channels::Select) |
//! | `MergeAsync`, `MergeWithStrategyAsync` | [`channels::merge_into`](crate::channels::merge_into) and its [`strategy`](crate::channels::MergeInto::strategy) |
//! | `BroadcastAsync`, `FanOut` | [`channels::broadcast`](crate::channels::broadcast()), [`channels::fan_out`](crate::channels::fan_out) |
//! | `WindowAsync` | [`Window`](crate::channels::Window) |
//! | `Partition` | [`channels::merge_into`](crate::channels::merge_into) with [`Route`](crate::channels::Route) |
//! | `MapStream`, `FlatMapStream`, `FilterStream`, `ForEach`, `TapFailureEach`, `CollectErrors` | [`streams`](crate::streams): `map_step`, `flat_map_step`, `filter_map_step`, `for_each_step`, `tap_err_step`, `collect_all` |
//! | `TapSuccessEach` | `map_step` that returns its item |
//! | `ForEachLinkedCancellation` | `for_each_step`: every item has a token of its own |
//! | `ReadAll`, `ToChannel` | a receiver is a stream; `lifted` and [`channels::merge_into`](crate::channels::merge_into) |
//! | `TryAsync` | [`try_async`](crate::try_async) |
//! | `WithTimeoutAsync` | [`timers::with_timeout`](crate::timers::with_timeout) |
//! | the saga builder | steps over a `StepContext`: the example `saga` |
//! | `channel.depth` | not here: a stream does not tell how much is in it |
//! | `ResultPipelineTimers` | [`timers`](crate::timers) |
//! | `ErrGroup.Go` | [`Group::go`](crate::group::Group::go) |
//! | `WaitGroup.Go` | the same, the group with [`OnFailure::Continue`](crate::OnFailure::Continue) |
//! | `WhenAll`, `WhenAny`, `RetryWithPolicyAsync`, `TieredFallbackAsync` | [`combinators`](crate::combinators) |
//! | `GoDiagnostics` | [`diagnostics`](crate::diagnostics) |
//!
//! ```csharp
//! var result = await ResultPipelineChannels.FanInAsync(
//!     context, readers,
//!     async (order, step, ct) => {
//!         await seats.ReserveAsync(order, ct);
//!         step.RegisterCompensation(_ => seats.FreeAsync(order));
//!         return Result.Ok(Unit.Value);
//!     },
//!     timeout: TimeSpan.FromSeconds(60));
//! if (result.IsFailure)
//!     await Result.RunCompensationAsync(ResultCompensationPolicy.SequentialReverse, context.Scope);
//! ```
//!
//! ```
//! use std::time::Duration;
//! use futures::stream;
//! use watershed::{BoxError, CompensationPolicy, StepContext, fan_in};
//!
//! # async fn reserve(_: u32) -> Result<(), BoxError> { Ok(()) }
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let (context, readers) = (StepContext::new("orders"), [stream::iter(1..=3)]);
//!         let outcome = fan_in(&context, readers, async |order, step| {
//!             reserve(order).await?;
//!             step.register_compensation(move || async move { println!("free {order}") });
//!             Ok::<_, BoxError>(())
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
//! # What is different on purpose
//!
//! - A drain that succeeds clears what its messages staged, and only that.
//! - Compensations run in the reverse of registration over any nesting; absorbing a scope does not
//!   turn its order round.
//! - A compensation that fails keeps no other from running, and stays staged; cancelling or
//!   dropping a rollback loses nothing; the policy `none` keeps everything.
//! - The deadline and the cancellation are heeded while a handler runs, not between messages only.
//! - A failed attempt of a retry is undone, not forgotten; so is the operation that failed in
//!   `when_all` and the losers of `when_any`.
//! - A drain that fails tells what it did: the error comes with the report.
//! - A message can be tried again, put aside or handled later without ending the drain.
//! - Nothing is prefetched, windows and merges have backpressure, ready sources are served fairly.
