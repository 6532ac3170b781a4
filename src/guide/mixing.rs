//! For you, if your messages come from sources of different kinds, and your worker must stop in good
//! order.
//!
//! | you have | it becomes |
//! | --- | --- |
//! | sources of different types | one list by [`mixed`](crate::channels::mixed), from a tuple |
//! | as many as turn out at run time | a list of [`erased`](crate::Source::erased) ones, as `mixed` makes it |
//! | messages of different types | one type: an enum, or what they have in common, by [`map`](futures::StreamExt::map) |
//! | a stream of results | messages, and faults that end the drain, by [`faults`](crate::Source::faults) |
//! | many small messages | batches by [`Window`](crate::channels::Window), whose messages are `Vec`s |
//!
//! [`map`](futures::StreamExt::map) is a function of streams: it goes before
//! [`faults`](crate::Source::faults), [`named`](crate::Source::named) and the window. A source that the
//! drain is given belongs to it. To go on with what was not taken, give it `&mut` the stream
//! ([`by_ref`](futures::StreamExt::by_ref)) or the clone of a receiver.
//!
//! A key says what must not be handled at once: here all moves of one shop, whichever source they come
//! from ([`ordered_across_sources_by`](crate::FanIn::ordered_across_sources_by)). When the signal comes,
//! what runs is finished. What the drain had taken and not handled (the open window, the message that
//! waits for its next attempt or its key) comes to [`put_back`](crate::FanIn::put_back) with the id of
//! its source, whose name is in the [report](crate::FanInReport::sources).
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use futures::{StreamExt, stream};
//! use watershed::channels::{Window, mixed};
//! use watershed::{BoxError, CancellationSource, Commit, RetryPolicy, Source, StepContext, fan_in};
//!
//! /// So many pieces came to a shop, or left it.
//! type Move = (&'static str, i32);
//!
//! fn parse(line: &'static str) -> Result<Vec<Move>, BoxError> {
//!     let (shop, pieces) = line.split_once(' ').ok_or("no number of pieces")?;
//!     Ok(vec![(shop, pieces.parse()?)])
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     futures::executor::block_on(async {
//!         let (context, sigterm) = (StepContext::new("stock"), CancellationSource::new());
//!
//!         // The till of one shop, two sales at once; it goes on selling.
//!         let (till, sales) = async_channel::unbounded();
//!         for pieces in [-1, -2, -4] {
//!             till.try_send(("oslo", pieces))?;
//!         }
//!         let sales = Window::new(&context, sales).count(2).every(Duration::from_secs(60));
//!         // What trucks bring, line by line. A line that is none ends the drain.
//!         let mut file = stream::iter(["rome 50", "oslo 10", "rome 20"]);
//!         let trucks = file.by_ref().map(parse).faults();
//!
//!         // What was left over yesterday: no source, or one.
//!         let left_over = Some(stream::iter([vec![("rome", 5)]]));
//!         let left_over = left_over.map(|moves| moves.named("yesterday").erased());
//!         let others = mixed((sales.named("till"), trucks.named("trucks")));
//!         let sources = left_over.into_iter().chain(others);
//!
//!         let stock = Arc::new(Mutex::new(BTreeMap::<_, i32>::new()));
//!         let mut put_back = Vec::new();
//!         let drain = fan_in(&context, sources, async |moves: Vec<Move>, step| {
//!             let (shop, pieces) = (moves[0].0, moves.iter().map(|(_, pieces)| pieces).sum::<i32>());
//!             if pieces == 50 {
//!                 return Err("the ramp is occupied");
//!             }
//!             *stock.lock().unwrap().entry(shop).or_default() += pieces;
//!             let undo = (Arc::clone(&stock), shop, pieces);
//!             step.register_compensation_with(undo, async |(stock, shop, pieces)| {
//!                 *stock.lock().unwrap().entry(shop).or_default() -= pieces;
//!             });
//!             if pieces == 10 {
//!                 sigterm.cancel(); // a signal, while this truck is being unloaded
//!             }
//!             Ok(())
//!         });
//!         let report = drain
//!             .concurrency(4)
//!             .ordered_across_sources_by(|moves| moves[0].0) // a shop's, wherever they come from
//!             .commit(Commit::Message)
//!             .retry(RetryPolicy::fixed(3, Duration::from_secs(600)))
//!             .shutdown(sigterm.token())
//!             .finish_within(Duration::from_secs(20))
//!             .put_back(|source, moves| put_back.push((source, moves)))
//!             .await?;
//!
//!         assert_eq!((report.handled(), report.put_back()), (3, 2));
//!         assert_eq!(*stock.lock().unwrap(), BTreeMap::from([("oslo", 7), ("rome", 5)]));
//!         let row = |id| report.sources().iter().find(|row| row.id() == id);
//!         for (source, moves) in put_back {
//!             match row(source).ok_or("a source has no row")?.name() {
//!                 "till" => assert_eq!(moves, [("oslo", -4)]), // was in the open window
//!                 _ => assert_eq!(moves, [("rome", 50)]),      // waited for its next attempt
//!             }
//!         }
//!         assert_eq!(file.next().await, Some("rome 20")); // nobody has taken it
//!         Ok(())
//!     })
//! }
//! ```
//!
//! A place for `put_back` is whatever can be read at the next start: a table, a file, the queue itself
//! where its producer is at hand. [`life`](crate::guide::life) goes on with them.
