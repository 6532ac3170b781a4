//! What the compiler says to newcomers, what it means, and the line that mends it.
//!
//! Read the first error. A second one, that a drain *is not a future* and the `.await` should go,
//! follows from it and goes with it.
//!
//! # A receiver that is no source
//!
//! ```compile_fail,E0277
//! # use watershed::{BoxError, StepContext, fan_in};
//! # use tokio::sync::mpsc::Receiver;
//! async fn work(context: StepContext, orders: Receiver<u32>) -> Result<(), watershed::Error> {
//!     fan_in(&context, [orders], async |_, _| Ok::<_, BoxError>(())).await?;
//!     Ok(())
//! }
//! ```
//! ```text
//! error[E0277]: `tokio::sync::mpsc::Receiver<u32>` is no source: it is no `futures::Stream`
//!   = note: a receiver of tokio becomes one by `tokio_stream::wrappers::ReceiverStream::new`, …
//! ```
//! ```
//! # use watershed::{BoxError, StepContext, fan_in};
//! # use tokio::sync::mpsc::Receiver;
//! # async fn work(context: StepContext, orders: Receiver<u32>) -> Result<(), watershed::Error> {
//! let orders = tokio_stream::wrappers::ReceiverStream::new(orders);
//! # fan_in(&context, [orders], async |_, _| Ok::<_, BoxError>(())).await?;
//! # Ok(()) }
//! ```
//!
//! *`Receiver<u32>` is not an iterator*: sources come as a list, `[orders]`. *Expected
//! `Configured<Receiver<u32>>`, found `Configured<Iter<…>>`*: sources of one list have one type, see
//! [`mixing`](crate::guide::mixing).
//!
//! # A token of another library
//!
//! ```compile_fail,E0308
//! # use watershed::{BoxError, StepContext, fan_in};
//! # use tokio_util::sync::CancellationToken;
//! # use async_channel::Receiver;
//! # async fn work(context: StepContext, orders: Receiver<u32>, stop: CancellationToken) {
//! let drain = fan_in(&context, [orders], async |_, _| Ok::<_, BoxError>(())).cancellation(stop);
//! # }
//! ```
//! ```text
//! error[E0308]: mismatched types
//! … expected `watershed::CancellationToken`, found `tokio_util::sync::CancellationToken`
//! ```
//!
//! Something has to wait for theirs and cancel ours. More of it is in
//! [`under_tokio`](crate::guide::under_tokio).
//!
//! ```
//! # use watershed::{BoxError, StepContext, fan_in};
//! # use tokio_util::sync::CancellationToken;
//! # use async_channel::Receiver;
//! # async fn work(context: StepContext, orders: Receiver<u32>, stop: CancellationToken) {
//! let source = watershed::CancellationSource::new();
//! let token = source.token();
//! tokio::spawn(async move {
//!     stop.cancelled().await;
//!     source.cancel();
//! });
//! let drain = fan_in(&context, [orders], async |_, _| Ok::<_, BoxError>(())).cancellation(token);
//! # }
//! ```
//!
//! # A handler's output that is none
//!
//! ```compile_fail,E0277
//! # use watershed::{StepContext, fan_in};
//! # use async_channel::Receiver;
//! # async fn work(context: StepContext, orders: Receiver<String>) -> Result<(), watershed::Error> {
//! fan_in(&context, [orders], async |order, _| order.parse::<u32>()).await?;
//! # Ok(()) }
//! ```
//! ```text
//! error[E0277]: a handler cannot return `Result<u32, ParseIntError>`
//!   = note: a handler returns `Result<(), E>`, `Result<Answer, E>` or `Result<Compensated<()>, E>`
//!   = note: leave a value out by `.map(drop)`; where nothing can fail, end with `Ok::<_, BoxError>(())`
//! ```
//!
//! Here it is `order.parse::<u32>().map(drop)`. A handler that returns nothing at all is told the same.
//! Where `?` is the only thing that makes errors, nothing says which type they are of:
//!
//! ```compile_fail,E0282
//! # use watershed::{StepContext, fan_in};
//! # use async_channel::Receiver;
//! # async fn work(context: StepContext, orders: Receiver<String>) -> Result<(), watershed::Error> {
//! fan_in(&context, [orders], async |order, _| {
//!     println!("{}", order.parse::<u32>()?);
//!     Ok(())
//! })
//! .await?;
//! # Ok(()) }
//! ```
//! ```text
//! error[E0282]: type annotations needed
//! … cannot infer type of the type parameter `E` declared on the enum `Result`
//! ```
//!
//! `Ok::<_, BoxError>(())` says it.
//!
//! *The trait bound `Declined: std::error::Error` is not satisfied*: an error of your own implements it,
//! or is a `String` or a `&str`.
//!
//! # A closure that can be called only once
//!
//! A handler is called once a message, and an action at each attempt: what one call moves away, the
//! next does not find.
//!
//! ```compile_fail,E0507
//! # use watershed::{BoxError, StepContext, fan_in};
//! # use async_channel::Receiver;
//! # async fn work(context: StepContext, orders: Receiver<u32>) -> Result<(), watershed::Error> {
//! let receipts = Vec::new();
//! fan_in(&context, [orders], async |order, _| {
//!     let mut mine = receipts;
//!     mine.push(order);
//!     Ok::<_, BoxError>(())
//! })
//! .await?;
//! # Ok(()) }
//! ```
//! ```text
//! error[E0507]: cannot move out of `receipts` which is behind a mutable reference
//! ```
//!
//! In an action it is E0525, *expected a closure that implements the `FnMut` trait*. Share what is used
//! again: behind a lock, or as a clone for each call.
//!
//! ```
//! # use watershed::{BoxError, StepContext, fan_in};
//! # use async_channel::Receiver;
//! # async fn work(context: StepContext, orders: Receiver<u32>) -> Result<(), watershed::Error> {
//! let receipts = std::sync::Mutex::new(Vec::new());
//! fan_in(&context, [orders], async |order, _| {
//!     receipts.lock().unwrap().push(order);
//!     Ok::<_, BoxError>(())
//! })
//! .await?;
//! # Ok(()) }
//! ```
//!
//! # A closure that lends from itself
//!
//! An async closure whose future borrows from the closure (it owns what it uses, by `async move`, or
//! changes what it captured) can have one future at a time. Handlers and actions may have more.
//!
//! ```compile_fail
//! # use std::sync::{Arc, Mutex};
//! # use watershed::StepContext;
//! # fn handle(step: StepContext, row: u32, table: &Arc<Mutex<Vec<u32>>>) {
//! let table = Arc::clone(table);
//! step.register_compensation(async move || table.lock().unwrap().retain(|other| *other != row));
//! # }
//! ```
//! ```text
//! error: async closure does not implement `FnMut` because it captures state from its environment
//! ```
//!
//! An action takes what it uses as a state:
//!
//! ```
//! # use std::sync::{Arc, Mutex};
//! # use watershed::StepContext;
//! # fn handle(step: StepContext, row: u32, table: &Arc<Mutex<Vec<u32>>>) {
//! let table = Arc::clone(table);
//! step.register_compensation_with((table, row), async |(table, row)| {
//!     table.lock().unwrap().retain(|other| *other != row)
//! });
//! # }
//! ```
//!
//! A handler leaves out `move`, and so captures references. What it changes is behind a lock, a `Cell`
//! or a `RefCell`; or the change is made before the future begins:
//! `|order, _| { seen.push(order); async { Ok::<_, BoxError>(()) } }`. *Captured variable cannot escape
//! `FnMut` closure body* says the same of a plain closure with an `async` block.
//!
//! # A message that cannot be cloned
//!
//! ```compile_fail,E0277
//! # use watershed::{BoxError, RetryPolicy, StepContext, fan_in};
//! struct Order(Vec<u8>);
//! # async fn work(context: StepContext, orders: async_channel::Receiver<Order>) {
//! let drain = fan_in(&context, [orders], async |_: Order, _| Ok::<_, BoxError>(()))
//!     .retry(RetryPolicy::none());
//! # }
//! ```
//! ```text
//! error[E0277]: the trait bound `Order: Clone` is not satisfied
//! ```
//!
//! Derive it, or let the source give out `Arc<Order>`: `[orders.map(Arc::new)]`.
//!
//! # A drain that cannot leave its thread
//!
//! ```compile_fail
//! # use watershed::{BoxError, StepContext, fan_in};
//! # use async_channel::Receiver;
//! # use std::{cell::Cell, rc::Rc};
//! # fn start(context: StepContext, orders: Receiver<u32>) {
//! tokio::spawn(async move {
//!     let sum = Rc::new(Cell::new(0));
//!     fan_in(&context, [orders], async |order, _| {
//!         sum.set(sum.get() + order);
//!         Ok::<_, BoxError>(())
//!     })
//!     .await
//! });
//! # }
//! ```
//! ```text
//! error: future cannot be sent between threads safely
//! … the trait `std::marker::Send` is not implemented for `Rc<Cell<u32>>`
//! ```
//!
//! Share by what threads can share; or stay on the thread, with `tokio::task::spawn_local`, and with
//! [`LocalUndos`](crate::LocalUndos) if actions undo such state.
//!
//! ```
//! # use watershed::{BoxError, StepContext, fan_in};
//! # use async_channel::Receiver;
//! # use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
//! # fn start(context: StepContext, orders: Receiver<u32>) {
//! tokio::spawn(async move {
//!     let sum = AtomicU32::new(0);
//!     fan_in(&context, [orders], async |order, _| {
//!         sum.fetch_add(order, Relaxed);
//!         Ok::<_, BoxError>(())
//!     })
//!     .await
//! });
//! # }
//! ```
