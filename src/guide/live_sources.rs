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
