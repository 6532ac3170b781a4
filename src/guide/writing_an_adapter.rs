//! For you, if your messages come from a broker, a queue or a table that nobody has written an adapter
//! for.
//!
//! An adapter is a type that implements [`Transport`](crate::transport::Transport) for a client: it
//! fetches, settles and renews when it is asked to, and says what the transport is
//! [able](crate::transport::Able) to do. When to do what is the library's: how much is fetched ahead,
//! when a lease is renewed, what goes into one batch, what is sent again after a refusal, in which order
//! a position moves, and what becomes of all of it at the end. An adapter has no task, no timer and no
//! state of messages.
//!
//! This one keeps a directory of files: one message a file, leased by renaming it.
//!
//! ```
//! use std::fs;
//! use std::io;
//! use std::path::{Path, PathBuf};
//!
//! use watershed::transport::{
//!     Able, Facts, Fetched, Link, Received, Settled, Transport, Trouble, Verdict, Want,
//! };
//! use watershed::{BoxError, Error, ErrorCode, Source, StepContext, fan_in};
//!
//! /// Files that end in `.msg`; one that is out ends in `.out`.
//! struct Spool(PathBuf);
//!
//! fn error(error: io::Error) -> Error {
//!     Error::from_error(ErrorCode::Source, error)
//! }
//!
//! impl Spool {
//!     fn next(&self) -> io::Result<Option<PathBuf>> {
//!         let files = fs::read_dir(&self.0)?.collect::<Result<Vec<_>, _>>()?;
//!         let waiting = files.iter().map(|file| file.path());
//!         Ok(waiting.filter(|path| path.extension().is_some_and(|it| it == "msg")).min())
//!     }
//!
//!     fn settle_one(out: &Path, verdict: &Verdict) -> Settled {
//!         let settled = match verdict {
//!             Verdict::Accept => fs::remove_file(out),
//!             Verdict::Release { .. } => fs::rename(out, out.with_extension("msg")),
//!             _ => fs::rename(out, out.with_extension("bad")),
//!         };
//!         match settled {
//!             Ok(()) => Settled::Confirmed,
//!             // Somebody else has it, or has settled it: the receipt is no longer ours.
//!             Err(gone) if gone.kind() == io::ErrorKind::NotFound => Settled::Lost(error(gone)),
//!             // Certainly not applied: it is tried again.
//!             Err(refused) => Settled::Refused(error(refused)),
//!         }
//!     }
//! }
//!
//! impl Transport for Spool {
//!     type Message = Vec<u8>;
//!     type Receipt = PathBuf; // where the message is while it is out
//!
//!     fn able(&self) -> Able {
//!         // A name can be renamed once: a stale receipt is refused by itself, and `.bad` keeps rejects.
//!         Able::each().fences().rejects().batches_of(16).prefetches(4)
//!     }
//!
//!     async fn fetch(&self, want: Want) -> Fetched<Vec<u8>, PathBuf> {
//!         let mut fetched = Vec::new();
//!         while fetched.len() < want.at_most {
//!             // A directory that cannot be read today may be there tomorrow; a client knows better
//!             // which of its errors last.
//!             let Some(path) = self.next().map_err(|e| Trouble::Passes(error(e)))? else { break };
//!             let out = path.with_extension("out");
//!             if fs::rename(&path, &out).is_err() {
//!                 continue; // somebody else was faster
//!             }
//!             let body = fs::read(&out).map_err(|e| Trouble::Passes(error(e)))?;
//!             let id = out.file_stem().map(|stem| stem.to_string_lossy().into());
//!             let facts = Facts { id, ..Facts::default() };
//!             fetched.push(Received::new(body, out).with_facts(facts));
//!         }
//!         // Nothing is no end: the source asks again. This one is read until it is empty, and says so.
//!         Ok((!fetched.is_empty()).then_some(fetched))
//!     }
//!
//!     async fn settle(&self, batch: Vec<(PathBuf, Verdict)>) -> Vec<Settled> {
//!         batch.iter().map(|(out, verdict)| Self::settle_one(out, verdict)).collect()
//!     }
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     let folder = std::env::temp_dir().join(format!("spool-{}", std::process::id()));
//!     fs::create_dir_all(&folder)?;
//!     for number in ["1", "2", "three"] {
//!         fs::write(folder.join(number).with_extension("msg"), number)?;
//!     }
//!
//!     let spool = Link::new(Spool(folder.clone()));
//!     let numbers = spool.source().named("spool").decoded(|body: Vec<u8>| {
//!         Ok::<_, BoxError>(String::from_utf8(body)?.parse::<u32>()?)
//!     });
//!     let drain = fan_in(&StepContext::new("numbers"), [numbers], async |number, _| {
//!         assert!(number < 3);
//!         Ok::<_, BoxError>(())
//!     });
//!     let report = futures::executor::block_on(drain.into_future())?;
//!     // "three" is no number: the spool keeps what is rejected, so the drain goes on.
//!     assert_eq!((report.accepted(), report.rejected()), (2, 1));
//!     assert!(folder.join("three.bad").exists());
//!     fs::remove_dir_all(&folder)?;
//!     Ok(())
//! }
//! ```
//!
//! # What each answer means
//!
//! Choose the one that is true, not the one that is likely.
//!
//! - [`Confirmed`](crate::transport::Settled::Confirmed): the transport said so. What the handler did
//!   becomes final.
//! - [`Sent`](crate::transport::Settled::Sent): it was sent, and this transport never says more.
//! - [`Refused`](crate::transport::Settled::Refused): certainly not applied, and still ours. It is sent
//!   again; in the end, an accept that was refused is *undone*. Never say it of a request that may have
//!   arrived.
//! - [`Lost`](crate::transport::Settled::Lost): the receipt is no longer ours: a token that does not
//!   match, a generation that is over.
//! - [`Unknown`](crate::transport::Settled::Unknown): the connection broke behind the request, or a time
//!   limit passed. When in doubt, this one.
//!
//! # Leases
//!
//! Say how long a message is ours ([`leased_for`](crate::transport::Received::leased_for)); it is counted
//! from when `fetch` was *called*, since nobody knows when the transport began to count. A client that
//! [renews](crate::transport::Able::renews) is asked to from a third of the term on, until the verdict is
//! handed over. One that cannot needs a [`message_timeout`](crate::FanIn::message_timeout). Do not wait in
//! `fetch` for longer than [`Want::wait`](crate::transport::Want): what arrives late arrives expired.
//!
//! # Order
//!
//! [`Able::prefix`](crate::transport::Able::prefix) is for logs: an accept of a message covers those of its
//! partition before it, a release moves the position back to it, and both come one at a time for each
//! partition. Partitions that come and go are told by
//! [`Able::assigns`](crate::transport::Able::assigns) and [`Notices::tell`](crate::transport::Notices::tell), from any thread: a
//! [`Revocation`](crate::transport::Revocation) is a question that is answered when nothing of the
//! partition is open any more. Give the receipt the generation of its assignment, and refuse what is of
//! an older one, also where the broker would not.
//!
//! # Once or again
//!
//! One drain after another may use a [`Link`](crate::transport::Link). A client that is gone for good with
//! [`close`](crate::transport::Transport::close) says so in [`open`](crate::transport::Transport::open),
//! which each drain asks first.
//!
//! # Blocking clients
//!
//! A client that blocks has a thread of the adapter's, and a channel to it: a transport that blocks in
//! `fetch` or `settle` blocks every handler of the drain.
