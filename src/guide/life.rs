//! For you, if you want to see a worker's whole life in one program: start, stop, and start again.
//!
//! An order is shipped once: its number is kept beside the effect, as an *idempotency token*, and an
//! order whose token is there was shipped before. In the first run
//!
//! - tea comes twice, and is shipped once,
//! - gold is declined by the bank. The undo of its shipment fails as well, so that there is no second
//!   attempt: it goes to the [dead letters](crate::guide::dead_letters), and its undo stays staged until
//!   the rollback at the end of the run,
//! - rum is to come [later](crate::Answer::Later), and waits,
//! - while ice is shipped, a [signal](crate::guide::shutdown) comes. Ice is finished, rum put back, and
//!   salt is still in the queue.
//!
//! The second run has both. Salt fails once, and is [tried again](crate::guide::retries).
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use futures::stream;
//! use watershed::channels::{AnySource, mixed};
//! use watershed::{
//!     Answer, BoxError, CancellationSource, Commit, CompensationPolicy, FanInReport, Letter,
//!     Progress, RetryPolicy, Source, StepContext, fan_in,
//! };
//!
//! type Order = (u32, &'static str);
//!
//! /// What outlives the process.
//! #[derive(Default)]
//! struct Shop {
//!     shipped: Mutex<BTreeMap<u32, &'static str>>, // by number: the idempotency token
//!     letters: Mutex<Vec<(u32, String)>>,
//!     left_over: Mutex<Vec<Order>>,
//!     truck_is_back: AtomicBool,
//! }
//!
//! async fn ship(order: Order, step: StepContext, shop: &Arc<Shop>) -> Result<Answer, BoxError> {
//!     let (number, what) = order;
//!     if what == "rum" && !shop.truck_is_back.load(Relaxed) {
//!         return Ok(Answer::Later(Duration::from_secs(3_600)));
//!     }
//!     if shop.shipped.lock().unwrap().contains_key(&number) {
//!         return Ok(Answer::Done); // it was delivered twice, or done before the last stop
//!     }
//!     shop.shipped.lock().unwrap().insert(number, what);
//!     step.register_compensation_with((Arc::clone(shop), number), async |(shop, number)| {
//!         if !shop.truck_is_back.load(Relaxed) {
//!             return Err("it is on the truck");
//!         }
//!         shop.shipped.lock().unwrap().remove(&number);
//!         Ok(())
//!     });
//!     match (what, step.attempt()) {
//!         ("gold", _) => Err("the bank declined".into()),
//!         ("salt", 1) => Err("the bank is busy".into()),
//!         _ => Ok(Answer::Done),
//!     }
//! }
//!
//! /// One run of the worker.
//! async fn work(
//!     shop: &Arc<Shop>,
//!     orders: Vec<AnySource<'_, Order>>,
//!     sigterm: CancellationSource,
//! ) -> Result<FanInReport, BoxError> {
//!     let (context, progress) = (StepContext::new("orders"), Progress::new());
//!     let outcome = fan_in(&context, orders, async |order: Order, step| {
//!         if order.1 == "ice" {
//!             let now = progress.report();
//!             assert_eq!((now.handled(), now.failed(), now.waiting()), (2, 1, 1));
//!             sigterm.cancel(); // while this one is being handled
//!         }
//!         ship(order, step, shop).await
//!     })
//!     .concurrency(4)
//!     .ordered_by(|(number, _)| *number) // the same order is never shipped twice at once
//!     .commit(Commit::Message)
//!     .retry(RetryPolicy::exponential(3, Duration::from_millis(1)))
//!     .dead_letters(async |letter: Letter<Order>| {
//!         let number = letter.message().ok_or("no message")?.0;
//!         shop.letters.lock().unwrap().push((number, format!("{:#}", letter.error())));
//!         Ok::<_, BoxError>(())
//!     })
//!     .progress(&progress)
//!     .shutdown(sigterm.token())
//!     .finish_within(Duration::from_secs(20))
//!     .put_back(|_, order| shop.left_over.lock().unwrap().push(order))
//!     .await;
//!
//!     // However it ended: what could not be undone at the time is undone now.
//!     shop.truck_is_back.store(true, Relaxed);
//!     context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
//!     Ok(outcome?)
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let shop = Arc::new(Shop::default());
//!         let (shopper, queue) = async_channel::unbounded();
//!         for order in [(1, "tea"), (1, "tea"), (2, "gold"), (3, "rum"), (4, "ice"), (5, "salt")] {
//!             shopper.send(order).await?;
//!         }
//!         let orders = vec![queue.clone().named("queue").erased()];
//!         let report = work(&shop, orders, CancellationSource::new()).await?;
//!         assert_eq!((report.handled(), report.failed(), report.put_back()), (3, 1, 1));
//!         assert!(shop.shipped.lock().unwrap().keys().eq(&[1, 4]));
//!         assert_eq!(shop.letters.lock().unwrap()[0].0, 2);
//!
//!         // The process starts again, and goes on where it stopped.
//!         drop(shopper);
//!         let left = std::mem::take(&mut *shop.left_over.lock().unwrap());
//!         assert_eq!(left, [(3, "rum")]);
//!         let orders = mixed((stream::iter(left).named("left over"), queue.named("queue")));
//!         let report = work(&shop, orders.into(), CancellationSource::new()).await?;
//!         assert_eq!((report.handled(), report.attempts()), (2, 3));
//!         assert!(shop.shipped.lock().unwrap().keys().eq(&[1, 3, 4, 5]));
//!         Ok(())
//!     })
//! }
//! ```
//!
//! A handler that is still running when [`finish_within`](crate::FanIn::finish_within) and the
//! [`grace`](crate::FanIn::grace) have passed is dropped. The rollback undoes what it did, the report
//! counts its message as [unfinished](crate::FanInReport::unfinished), and nobody puts that one back: what
//! must survive this, and the death of the process, is in a queue with acknowledgements, or in a table
//! of orders of which the next run reads those without a token.
