//! Messages of a broker, a queue or a log: what becomes of them, and what that means for a handler.
//!
//! A stream yields a message and forgets it. A [transport](crate::transport) waits to hear what became
//! of it: until then the message is ours for a time, and comes again if nobody speaks. A drain gives
//! that verdict: [`Ok`] accepts the message, a failure undoes it and gives it back or, behind a dead
//! letter, rejects it. What a handler stages is kept until the accept has its answer, because an accept
//! that is refused for certain is undone. Nothing is to be switched on: a source of a
//! [`Link`](crate::transport::Link) brings its transport with it.
//!
//! # The token, and why it belongs into the transaction of the effect
//!
//! Every transport delivers a message *at least* once. A process may die behind its effect and before
//! its accept; the answer of an accept may be lost; a lease may run out while a handler is slow. Then
//! the message comes again, and only the handler can tell: by an *idempotency token*, a row that says
//! that this message was done. Written in the same transaction as the effect, it is there exactly when
//! the effect is. Written before it, a crash in between loses the effect; written behind it, a crash
//! doubles it.
//!
//! # Undoing what this delivery did
//!
//! What is undone after a lease was lost may meet the next owner of the message, who found the token
//! there, did nothing, and accepted. Two things together keep it from taking away what was accepted:
//!
//! - An undo removes only what *its* delivery has written. [`step.undo_key()`](crate::StepContext::undo_key)
//!   is a text that no other delivery has: it goes into the row, and the undo deletes `where undo_key = …`.
//! - A delivery that finds the rows of an earlier one of *its own* message takes them over: it writes its
//!   key into them. One that only looks leaves them to the undo of the earlier delivery, which comes late.
//!
//! A delivery that goes on although a later one has begun must not take the rows back: where that can
//! happen before it is cancelled, write the [count of deliveries](crate::transport::Facts) beside the key,
//! and take over only what is older. The example `high_volume_fan_in` does all three, in its `effect`.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::collections::btree_map::Entry;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use watershed::transport::{
//!     Able, Facts, Fetched, Link, Received, Settled, Transport, Verdict, Want,
//! };
//! use watershed::{BoxError, Letter, RetryPolicy, Source, StepContext, fan_in};
//!
//! /// A table of messages, and those of them that are out.
//! #[derive(Default)]
//! struct Table {
//!     rows: Mutex<Vec<(u32, &'static str)>>,
//!     out: Mutex<BTreeMap<u32, &'static str>>,
//! }
//!
//! impl Transport for Table {
//!     type Message = &'static str;
//!     type Receipt = u32;
//!
//!     fn able(&self) -> Able {
//!         Able::each().fences().counts().batches_of(100).prefetches(10)
//!     }
//!
//!     async fn fetch(&self, want: Want) -> Fetched<&'static str, u32> {
//!         let mut rows = self.rows.lock().unwrap();
//!         if rows.is_empty() {
//!             return Ok(None); // read until empty
//!         }
//!         let most = want.at_most.min(rows.len());
//!         let fetched = rows.drain(..most).map(|(id, body)| {
//!             self.out.lock().unwrap().insert(id, body);
//!             let facts = Facts { id: Some(id.to_string().into()), ..Facts::default() };
//!             Received::new(body, id).with_facts(facts)
//!         });
//!         Ok(Some(fetched.collect()))
//!     }
//!
//!     async fn settle(&self, batch: Vec<(u32, Verdict)>) -> Vec<Settled> {
//!         let settle = |(id, verdict)| {
//!             let body = self.out.lock().unwrap().remove(&id);
//!             match (body, verdict) {
//!                 (Some(body), Verdict::Release { .. }) => self.rows.lock().unwrap().push((id, body)),
//!                 (Some(_), _) => {}
//!                 (None, _) => return Settled::Lost(watershed::Error::validation("no such row")),
//!             }
//!             Settled::Confirmed
//!         };
//!         batch.into_iter().map(settle).collect()
//!     }
//! }
//!
//! /// What a transaction of the database's would change at once: the effect, and whose it is.
//! struct Row {
//!     message: Option<Arc<str>>,
//!     undo_key: String,
//!     count: u32,
//! }
//!
//! type Shipped = Arc<Mutex<BTreeMap<String, Row>>>; // by token
//!
//! fn main() -> Result<(), BoxError> {
//!     let table = Table::default();
//!     let orders = [(1, "tea 2"), (2, "rum 5"), (3, "tea 2"), (4, "gold"), (5, "ice 1")];
//!     table.rows.lock().unwrap().extend(orders);
//!     let queue = Link::new(table).max_deliveries(5).settle_within(Duration::from_secs(10));
//!
//!     let (shipped, letters) = (Shipped::default(), Mutex::new(Vec::new()));
//!     let orders = queue.source().named("orders").decoded(|text: &str| {
//!         let (what, count) = text.split_once(' ').ok_or("there is no count")?;
//!         Ok::<_, BoxError>((what.to_owned(), count.parse::<u32>()?))
//!     });
//!     let drain = fan_in(&StepContext::new("orders"), [orders], async |(what, count), step| {
//!         let key = step.undo_key().ok_or("no transport")?;
//!         let message = step.deliveries()[0].id.clone();
//!         match shipped.lock().unwrap().entry(what.clone()) {
//!             // Another message has shipped it: this one is accepted, and nothing is done.
//!             Entry::Occupied(row) if row.get().message != message => return Ok(()),
//!             // An earlier delivery of this one has: its undo finds nothing from now on.
//!             Entry::Occupied(mut row) => row.get_mut().undo_key = key.clone(),
//!             Entry::Vacant(row) => {
//!                 row.insert(Row { message, undo_key: key.clone(), count });
//!             }
//!         }
//!         step.register_compensation_with(
//!             (Arc::clone(&shipped), what.clone(), key),
//!             async |(shipped, what, key)| {
//!                 // Only what this delivery did.
//!                 shipped.lock().unwrap().retain(|token, row| *token != what || row.undo_key != key);
//!             },
//!         );
//!         if what == "rum" { Err::<(), BoxError>("the bank declined".into()) } else { Ok(()) }
//!     });
//!     let report = futures::executor::block_on(
//!         drain
//!             .retry(RetryPolicy::fixed(2, Duration::from_millis(1)))
//!             .dead_letters(async |letter: Letter<(String, u32)>| {
//!                 // One that could not be decoded is there as it was.
//!                 let what = letter.message().map(|order| order.0.as_str());
//!                 let what = what.or_else(|| letter.raw::<&str>().copied());
//!                 letters.lock().unwrap().push(what.unwrap_or_default().to_owned());
//!             })
//!             .into_future(),
//!     )?;
//!
//!     assert_eq!((report.fetched(), report.accepted(), report.rejected()), (5, 3, 2));
//!     let shipped = shipped.lock().unwrap();
//!     assert!(shipped.iter().map(|(what, row)| (what.as_str(), row.count)).eq([("ice", 1), ("tea", 2)]));
//!     assert_eq!(letters.into_inner()?, ["rum", "gold"]);
//!     Ok(())
//! }
//! ```
//!
//! # What the outcomes mean
//!
//! | the report says | the transport | what the handler did | comes again |
//! | --- | --- | --- | --- |
//! | [`accepted`](crate::FanInReport::accepted) | has forgotten it | stays | no |
//! | [`rejected`](crate::FanInReport::rejected) | has forgotten it, or put it aside | is undone | no |
//! | [`released`](crate::FanInReport::released) | has it back | is undone | yes |
//! | [`lost`](crate::FanInReport::lost) | had given it to somebody else | is undone; stays where its handler was done | yes |
//! | [`unknown`](crate::FanInReport::unknown) | may have forgotten it | stays | perhaps |
//! | [`abandoned`](crate::FanInReport::abandoned) | heard nothing | is staged on the scope | yes, when its lease runs out |
//!
//! Every receipt that was [fetched](crate::FanInReport::fetched) is in exactly one of them. *Unknown*
//! and *lost* keep the effects of a handler that was done: a message that is done twice is recognised by
//! its token, and one that is undone although it was accepted is gone for good.
//!
//! # In a transaction of your own
//!
//! Where the queue is a table of the database that the effect is written to, the accept can be a part
//! of the same transaction, and there is nothing left to recognise. The handler says so *before* it
//! commits, by [`step.settling()`](crate::StepContext::settling), deletes the row with
//! [`step.receipt::<R>(0)`](crate::StepContext::receipt), and says how it went. A handler that is dropped
//! in between leaves an outcome that is *unknown*, and nothing of it is undone.
//!
//! # Poison
//!
//! - A message that cannot be [decoded](crate::Source::decoded) goes to the dead letters as it was, and
//!   its handler is not called.
//! - One that was delivered more than [`max_deliveries`](crate::transport::Link::max_deliveries) times
//!   does, too: it may be what kills the process.
//! - Without [`dead_letters`](crate::FanIn::dead_letters) such a message ends the drain, unless the
//!   transport keeps what is [rejected](crate::transport::Able::rejects) or puts aside by itself what
//!   [comes too often](crate::transport::Able::redrives).
//! - When a dependency is broken, everything is poison: after ten failures in a row, a source is
//!   [slowed down](crate::transport::Link::slow_down_after) until a message is handled again.
//!
//! # The end
//!
//! A [shutdown](crate::guide::shutdown) takes nothing more, finishes what runs within
//! [`finish_within`](crate::FanIn::finish_within), undoes and releases what is not done by then, releases
//! what was fetched and not begun, waits for the answers, and closes the transport. A drain that is
//! *dropped* sends nothing: what its messages did is on the context's scope, and behind it, as the last
//! action of each message, its release.
