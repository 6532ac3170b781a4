//! For people who come from Go.
//!
//! | Go | here |
//! | --- | --- |
//! | `chan T` | an `async_channel`, or any stream |
//! | `for v := range merge(a, b)` | [`fan_in`](crate::fan_in) |
//! | `select { case … default: … }` | [`Select`](crate::channels::Select) |
//! | `for v := range ch { g.Go(…) }` with `g.SetLimit(n)` | [`unordered`](crate::FanIn::unordered) and [`concurrency`](crate::FanIn::concurrency) |
//! | `context.Context` | [`StepContext`](crate::StepContext): clock, cancellation, and what to undo |
//! | `context.WithCancelCause`, `context.Cause` | [`cancel_with`](crate::CancellationSource::cancel_with), [`reason`](crate::CancellationToken::reason) |
//! | `defer cancel()` | [`drop_guard`](crate::CancellationSource::drop_guard) |
//! | `context.WithTimeout` | [`timers::with_timeout`](crate::timers::with_timeout) |
//! | `time.After`, `time.NewTicker`, `time.Tick` | [`timers`](crate::timers) |
//! | `errgroup.Group` | [`Group`](crate::group::Group), which keeps what the tasks return as well |
//! | `sync.WaitGroup` | the same with [`OnFailure::Continue`](crate::OnFailure::Continue) |
//! | `SetLimit`, `TryGo` | [`concurrency`](crate::group::Group::concurrency), [`try_go`](crate::group::Group::try_go) |
//! | `defer undo()` | [`register_compensation`](crate::StepContext::register_compensation): runs on failure only, over all messages, in reverse |
//! | `go f()` | [`go_on`](crate::group::Group::go_on) with your executor; nothing is spawned by itself |
//!
//! ```go
//! for {
//!     select {
//!     case alarm := <-alarms:
//!         ring(alarm)
//!     case n := <-numbers:
//!         sum += n
//!     case <-time.After(time.Second):
//!         return errors.New("nothing came")
//!     }
//! }
//! ```
//!
//! ```
//! use std::time::Duration;
//! use futures::stream;
//! use watershed::{BoxError, ErrorCode, StepContext, channels};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let (alarms, numbers) = (stream::iter(["fire"]), stream::iter([1, 2, 3]));
//!         let context = StepContext::new("desk");
//!         let mut select = channels::Select::new(&context)
//!             .case(alarms, async |alarm, _| {
//!                 println!("{alarm}!");
//!                 Ok::<_, BoxError>(0)
//!             })
//!             .pass(numbers)
//!             .timeout(Duration::from_secs(1));
//!         let mut sum = 0;
//!         loop {
//!             match select.run().await {
//!                 Ok(number) => sum += number,
//!                 // A receive from closed channels never blocks in Go; here it says so.
//!                 Err(error) if error.code() == ErrorCode::SelectDrained => break,
//!                 Err(error) => return Err(error.into()),
//!             }
//!         }
//!         assert_eq!(sum, 6);
//!         Ok(())
//!     })
//! }
//! ```
