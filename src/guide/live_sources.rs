//! Sources that come and go while the drain runs.
//!
//! [`incoming`](crate::FanIn::incoming) takes a stream of further sources: connections that are
//! accepted, partitions that are assigned. [`channels::live`](crate::channels::live()) makes such a
//! stream together with a way to add to it, and each source that is added has a
//! [handle](crate::channels::SourceHandle): it pauses, resumes and removes the source, tells how it
//! ended, and gives back what is left of it. Every option of the drain holds for sources that come
//! later, too.
//!
//! Pausing and resuming are switches, and hold when the call returns. A removal lets the messages in
//! flight finish. A handle of a source that is gone has no effect, and says so.
//!
//! ```
//! use futures::StreamExt;
//! use watershed::channels::{self, SourceEnd};
//! use watershed::{BoxError, StepContext, fan_in};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let (live, incoming) = channels::live();
//!         let (printer, printer_jobs) = async_channel::unbounded();
//!         let (plotter, plotter_jobs) = async_channel::unbounded();
//!         for page in 1..=3 {
//!             printer.try_send(page)?;
//!             plotter.try_send(page * 100)?;
//!         }
//!         drop((printer, plotter));
//!         let printer = live.add(printer_jobs).map_err(|_| "the drain has ended")?;
//!         let plotter = live.add(plotter_jobs).map_err(|_| "the drain has ended")?;
//!         drop(live); // no further source
//!
//!         let context = StepContext::new("jobs");
//!         assert!(plotter.pause(), "it has no paper");
//!         let report = fan_in(&context, [], async |page, step: StepContext| {
//!             if page == 3 && step.source_id() == Some(printer.id()) {
//!                 // No paper came: somebody else is to have these jobs.
//!                 plotter.request_removal();
//!             }
//!             Ok::<_, BoxError>(())
//!         })
//!         .incoming(incoming)
//!         .await?;
//!
//!         assert_eq!(report.handled(), 3);
//!         assert_eq!(printer.ended().await, SourceEnd::Drained);
//!         let left = plotter.remove().await.ok_or("nothing was left")?;
//!         assert_eq!(left.collect::<Vec<_>>().await, [100, 200, 300]);
//!         assert!(!plotter.resume(), "it is gone");
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # Destinations that come and go
//!
//! A [`broadcast`](crate::channels::broadcast()) gives its [`subscribers`](crate::channels::Broadcast::subscribers):
//! a handle that adds destinations while it runs, and takes them away. One that is added gets every item
//! that enters the source from then on. One that is removed gets no further one; an item that it waited
//! for room with is counted in the report as [missed](crate::channels::DestinationReport::missed), and
//! the others go on. While nobody is there, nothing is taken: an item that the last one left behind goes
//! to the next one.
//!
//! ```
//! use std::future::IntoFuture;
//!
//! use watershed::channels::{OnClosed, broadcast};
//! use watershed::{BoxError, StepContext};
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let (prices, source) = async_channel::bounded(16);
//!         let (log, logged) = async_channel::unbounded();
//!         // A client that hangs up drops its receiver.
//!         let mut broadcast = broadcast(&StepContext::new("prices"), source, [log])
//!             .on_closed(OnClosed::Detach);
//!         let clients = broadcast.subscribers();
//!
//!         let (report, outcome) = futures::join!(broadcast.into_future(), async {
//!             let (client, connection) = async_channel::bounded(1);
//!             let number = clients.add(client).map_err(|_| "the prices have ended")?;
//!             prices.send(17).await?;
//!             assert_eq!(connection.recv().await?, 17);
//!
//!             // It does not read any more, and would hold the others up.
//!             prices.send(18).await?;
//!             prices.send(19).await?;
//!             while logged.recv().await? < 19 {}
//!             assert!(clients.remove(number));
//!             prices.close();
//!             Ok::<_, BoxError>(())
//!         });
//!         outcome?;
//!         let report = report?;
//!         assert_eq!((report.items(), report.destinations()[0].delivered()), (3, 3));
//!         assert_eq!((report.departed(), report.departed_total().missed()), (1, 1));
//!         Ok(())
//!     })
//! }
//! ```
