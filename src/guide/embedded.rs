//! For you, if your program has a loop of its own: a game that polls once a frame, a device, a page of a
//! browser.
//!
//! A drain is a future and nothing else: whoever polls it runs it. It starts no thread and no task.
//! State that stays on its thread (an `Rc`, a `RefCell`) may be borrowed by the handler as it is; the
//! drain is not `Send` then, which nobody asks of it. Only what *undoes* effects on such state has a
//! place of its own, [`LocalUndos`](crate::LocalUndos), because a scope may be used by any thread: see
//! [`local_undos`](crate::guide::local_undos).
//!
//! The one thing that would need a thread is time. [`ManualClock`](crate::ManualClock) is not for tests
//! alone: a game moves it by one frame a frame.
//!
//! ```
//! use std::cell::RefCell;
//! use std::pin::pin;
//! use std::rc::Rc;
//! use std::sync::Arc;
//! use std::task::{Context, Poll, Waker};
//! use std::time::Duration;
//!
//! use futures::stream;
//! use watershed::{
//!     BoxError, CompensationPolicy, LocalUndos, ManualClock, StepContext, fan_in, timers,
//! };
//!
//! /// The loop of the game: one poll a frame, and no thread.
//! fn play<F: IntoFuture>(time: &ManualClock, work: F) -> F::Output {
//!     let mut work = pin!(work.into_future());
//!     let mut cx = Context::from_waker(Waker::noop());
//!     loop {
//!         if let Poll::Ready(output) = work.as_mut().poll(&mut cx) {
//!             return output;
//!         }
//!         time.advance(Duration::from_micros(16_667)); // draw, and wait for the next frame
//!     }
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     let town = Rc::new(RefCell::new(Vec::new()));
//!     let (time, undos) = (ManualClock::new(), LocalUndos::new());
//!     let context = StepContext::new("town").with_clock(Arc::new(time.clone()));
//!
//!     let plan = stream::iter([("mill", 40), ("inn", 50), ("castle", 900)]);
//!     let build = fan_in(&context, [plan], async |(house, gold), step: StepContext| {
//!         let spent: u32 = town.borrow().iter().map(|(_, gold)| gold).sum();
//!         if spent + gold > 100 {
//!             return Err("there is not enough gold".into());
//!         }
//!         town.borrow_mut().push((house, gold));
//!         let undone = Rc::clone(&town);
//!         undos.register(&step, move || {
//!             let undone = Rc::clone(&undone);
//!             async move { undone.borrow_mut().retain(|(other, _)| *other != house) }
//!         });
//!         timers::delay(&step, Duration::from_secs(2)).await?; // 120 frames
//!         Ok::<_, BoxError>(())
//!     });
//!     let failure = play(&time, build.local_undos(&undos)).unwrap_err();
//!     assert!(format!("{failure:#}").ends_with("there is not enough gold"));
//!     assert_eq!(*town.borrow(), [("mill", 40), ("inn", 50)]);
//!
//!     let policy = CompensationPolicy::sequential_reverse();
//!     play(&time, context.roll_back(&policy).local(&undos))?;
//!     assert!(town.borrow().is_empty());
//!     Ok(())
//! }
//! ```
//!
//! A handler must not hold the guard of a `RefCell` across an `.await`: another one may run there.
//!
//! # A clock of your own
//!
//! A [`Clock`](crate::Clock) tells the time and hands out waits. Where no alarm can be set, a wait asks
//! to be polled again until it is over. [`check`](crate::Clock::check) says what is missing, and is
//! asked by whatever may have to wait, before it begins. That of [`SystemClock`](crate::SystemClock)
//! fails where the process can start no thread, or the platform (`wasm32-unknown-unknown`) does not
//! tell the time.
//!
//! ```
//! use std::future::poll_fn;
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
//! use std::task::{Context, Poll, Waker};
//! use std::time::Duration;
//!
//! use futures::FutureExt;
//! use watershed::{BoxError, Clock, Error, ErrorCode, Sleep, StepContext, Tick, fan_in};
//!
//! /// Milliseconds, counted by an interrupt; 0 while the oscillator does not run.
//! #[derive(Clone, Debug, Default)]
//! struct Uptime(Arc<AtomicU64>);
//!
//! impl Clock for Uptime {
//!     fn now(&self) -> Tick {
//!         Tick::ZERO + Duration::from_millis(self.0.load(Relaxed))
//!     }
//!     fn sleep_until(&self, deadline: Tick) -> Sleep {
//!         let clock = self.clone();
//!         Box::pin(poll_fn(move |cx| {
//!             if clock.now() >= deadline {
//!                 return Poll::Ready(());
//!             }
//!             cx.waker().wake_by_ref(); // no alarm will come: poll it again
//!             Poll::Pending
//!         }))
//!     }
//!     fn check(&self) -> Result<(), Error> {
//!         match self.0.load(Relaxed) {
//!             0 => Err(Error::new(ErrorCode::Clock, "the oscillator does not run")),
//!             _ => Ok(()),
//!         }
//!     }
//! }
//!
//! fn main() {
//!     let (uptime, mut cx) = (Uptime::default(), Context::from_waker(Waker::noop()));
//!     let context = StepContext::new("probes").with_clock(Arc::new(uptime.clone()));
//!     let (_probe, values) = async_channel::bounded::<u32>(4);
//!     for ends_with in [ErrorCode::Clock, ErrorCode::Timeout] {
//!         let drain = fan_in(&context, [values.clone()], async |_, _| Ok::<_, BoxError>(()));
//!         let mut drain = drain.timeout(Duration::from_millis(50)).into_future();
//!         let outcome = loop {
//!             match drain.poll_unpin(&mut cx) {
//!                 Poll::Ready(outcome) => break outcome,
//!                 Poll::Pending => uptime.0.fetch_add(1, Relaxed), // the interrupt
//!             };
//!         };
//!         assert_eq!(outcome.unwrap_err().error().code(), ends_with);
//!         uptime.0.store(1, Relaxed); // from now on it runs
//!     }
//! }
//! ```
