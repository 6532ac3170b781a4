//! For you, if your program runs on tokio.
//!
//! A drain needs nothing of tokio, and works in any of its tasks. These things meet at the border:
//!
//! | of tokio | here |
//! | --- | --- |
//! | `mpsc::Receiver` | no `Stream`, so no source: [`ReceiverStream`](https://docs.rs/tokio-stream), or [`poll_fn`](futures::stream::poll_fn) over its `poll_recv` |
//! | `mpsc::Sender` | a [destination](crate::channels::Destination): `channels::SinkDestination::new(PollSender::new(sender))`, with `tokio_util::sync::PollSender` |
//! | `CancellationToken`, `ctrl_c`, any future that tells to stop | a task of three lines that awaits it and cancels a [`CancellationSource`](crate::CancellationSource) |
//! | `tokio::time` | your handlers go on using it; for the time of the drain see [below](#time) |
//! | `tokio::spawn` | takes a drain that is `Send`, in an `async fn` that owns what the drain borrows |
//!
//! The future of a drain is `Send` when its sources, their messages, the handler, its futures and the
//! functions of its options are: no `Rc` or `RefCell` in them, and no guard of a `std` mutex that lives
//! across an `.await`. References to what stands in the same `async fn` are fine. What must not leave
//! its thread goes to `tokio::task::spawn_local`, and its undos to [`LocalUndos`](crate::LocalUndos).
//!
//! ```
//! use std::time::Duration;
//!
//! use tokio::sync::mpsc;
//! use tokio_stream::wrappers::ReceiverStream;
//! use tokio_util::sync::{CancellationToken, DropGuard};
//! use watershed::{BoxError, CancellationSource, Commit, FanInReport, Source, StepContext, fan_in};
//!
//! /// Is cancelled when `theirs` is; dropping the guard ends the wait for that.
//! fn ours(theirs: &CancellationToken) -> (watershed::CancellationToken, DropGuard) {
//!     let (child, source) = (theirs.child_token(), CancellationSource::new());
//!     let both = (source.token(), child.clone().drop_guard());
//!     tokio::spawn(async move {
//!         child.cancelled().await;
//!         source.cancel();
//!     });
//!     both
//! }
//!
//! async fn send_mails(
//!     mails: mpsc::Receiver<u32>,
//!     sent: mpsc::UnboundedSender<u32>,
//!     stop: CancellationToken,
//! ) -> Result<FanInReport, watershed::Error> {
//!     let mails = ReceiverStream::new(mails).named("mails");
//!     let (stop, _guard) = ours(&stop);
//!     let context = StepContext::new("mails");
//!     let report = fan_in(&context, [mails], async |mail, step| {
//!         tokio::time::sleep(Duration::from_millis(1)).await; // the mail server
//!         step.register_compensation(move || async move { println!("call {mail} back") });
//!         sent.send(mail)?;
//!         Ok::<_, BoxError>(())
//!     })
//!     .commit(Commit::Message)
//!     .shutdown(stop)
//!     .finish_within(Duration::from_secs(20))
//!     .await?;
//!     Ok(report)
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), BoxError> {
//!     let (mails, queue) = mpsc::channel(16);
//!     let (sent, mut log) = mpsc::unbounded_channel();
//!     let stop = CancellationToken::new();
//!     let worker = tokio::spawn(send_mails(queue, sent, stop.clone()));
//!     for mail in 1..=3 {
//!         mails.send(mail).await?;
//!         assert_eq!(log.recv().await, Some(mail));
//!     }
//!     stop.cancel(); // `tokio::signal::ctrl_c().await`, say
//!     assert_eq!(worker.await??.handled(), 3);
//!     Ok(())
//! }
//! ```
//!
//! Aborting the task drops the drain where it is. Whoever has a clone of the context can roll back what
//! was staged.
//!
//! # Time
//!
//! By default a drain waits by [`SystemClock`](crate::SystemClock), whose timer thread tokio knows
//! nothing of. That is right in production. In tests with paused time it is not: tokio's time jumps, and
//! the deadlines of the drain do not.
//!
//! - Where handlers wait by `tokio::time`, give the context a clock over tokio's, as here.
//! - Where only the drain waits (for retries, windows, deadlines), [`ManualClock`](crate::ManualClock)
//!   needs no runtime, and moves only when you say so: [`testing`](crate::guide::testing).
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use futures::stream;
//! use tokio::sync::mpsc;
//! use tokio::time::Instant;
//! use watershed::{BoxError, Clock, ErrorCode, Sleep, StepContext, Tick, fan_in};
//!
//! /// The time of tokio, which a test can pause.
//! #[derive(Debug)]
//! struct TokioClock {
//!     origin: Instant,
//! }
//!
//! impl Clock for TokioClock {
//!     fn now(&self) -> Tick {
//!         Tick::ZERO + self.origin.elapsed()
//!     }
//!     fn sleep_until(&self, deadline: Tick) -> Sleep {
//!         if deadline == Tick::MAX {
//!             return Box::pin(std::future::pending());
//!         }
//!         Box::pin(tokio::time::sleep_until(self.origin + deadline.since(Tick::ZERO)))
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread", start_paused = true)] // `tokio::test` has it, too
//! async fn main() -> Result<(), BoxError> {
//!     let origin = Instant::now();
//!     let context = StepContext::new("quotes").with_clock(Arc::new(TokioClock { origin }));
//!     let (sender, mut receiver) = mpsc::channel(4);
//!     sender.send("EUR").await?;
//!     let quotes = stream::poll_fn(move |cx| receiver.poll_recv(cx));
//!
//!     let outcome = fan_in(&context, [quotes], async |_, _| {
//!         tokio::time::sleep(Duration::from_secs(60)).await; // the bank
//!         Ok::<_, BoxError>(())
//!     })
//!     .timeout(Duration::from_secs(3_600))
//!     .await;
//!
//!     let failure = outcome.unwrap_err(); // the sender is still there, and has nothing
//!     assert_eq!((failure.error().code(), failure.report().handled()), (ErrorCode::Timeout, 1));
//!     assert_eq!(origin.elapsed(), Duration::from_secs(3_600));
//!     context.scope().clear();
//!     Ok(())
//! }
//! ```
