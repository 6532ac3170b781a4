//! Stopping in good order.
//!
//! A [`shutdown`](crate::FanIn::shutdown) token asks a drain to finish: no further message is taken,
//! what runs is finished, and the drain *succeeds* with what it did. What was not taken is still in
//! its source. What something held (a message that waited for its next attempt or for its key, the
//! open window) goes to [`put_back`](crate::FanIn::put_back).
//!
//! [`finish_within`](crate::FanIn::finish_within) bounds it. What still runs then is told by its token,
//! has the [`grace`](crate::FanIn::grace), and the drain fails with a timeout.
//!
//! | to end a drain | running handlers | result |
//! | --- | --- | --- |
//! | [`shutdown`](crate::FanIn::shutdown) | are finished | success |
//! | [`cancellation`](crate::FanIn::cancellation), or the context's token | are told, and have the grace | `ErrorCode::Canceled` |
//! | [`timeout`](crate::FanIn::timeout) | are told, and have the grace | `ErrorCode::Timeout` |
//! | dropping its future | are dropped | none; all is staged |
//!
//! What a cancellation is for can be said where it is made:
//! [`cancel_with("version 7 is being rolled out")`](crate::CancellationSource::cancel_with). Every
//! operation that it ends has that as the cause of its error, and a handler can ask its token for the
//! [`reason`](crate::CancellationToken::reason).
//!
//! ```
//! use std::time::Duration;
//!
//! use futures::stream;
//! use watershed::{BoxError, CancellationSource, Commit, RetryPolicy, StepContext, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let sigterm = CancellationSource::new();
//!         let (sender, orders) = async_channel::unbounded();
//!         for order in ["a", "declined", "c", "d"] {
//!             sender.try_send(order)?;
//!         }
//!
//!         let context = StepContext::new("orders");
//!         let mut put_back = Vec::new();
//!         let report = fan_in(&context, [orders.clone()], async |order, _| {
//!             match order {
//!                 "declined" => return Err("the bank is closed"),
//!                 "c" => sigterm.cancel(), // a signal, while this order is being handled
//!                 _ => {}
//!             }
//!             Ok(())
//!         })
//!         .unordered()
//!         .commit(Commit::Message)
//!         .retry(RetryPolicy::fixed(3, Duration::from_secs(3_600)))
//!         .shutdown(sigterm.token())
//!         .finish_within(Duration::from_secs(20))
//!         .put_back(|_, order| put_back.push(order))
//!         .await?;
//!
//!         assert_eq!((report.handled(), report.put_back()), (2, 1));
//!         assert_eq!(put_back, ["declined"]); // it waited for the bank to open
//!         assert_eq!(orders.try_recv()?, "d"); // nobody has taken it
//!         Ok(())
//!     })
//! }
//! ```
