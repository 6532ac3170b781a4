//! Where messages come from that are settled: brokers, queues, leased rows, logs with offsets.
//!
//! An adapter implements [`Transport`] for its client: plain async functions that fetch, settle and
//! renew. A [`Link`] makes sources of it, which a drain takes like any other; the drain then settles
//! each message by what became of its handler. Nothing here has a task or a thread: everything goes on
//! while the drain is polled, by the clock of its context.
//!
//! | of a handler that | the message is |
//! | --- | --- |
//! | returns `Ok` | accepted, and its compensations are cleared when that is confirmed |
//! | fails, with attempts left | undone, and tried again |
//! | fails for good, and there are dead letters | undone, stored there, and rejected |
//! | fails for good otherwise, is cancelled or shut down | undone, and released |
//! | has not begun when the drain ends | released |
//!
//! ```
//! # futures::executor::block_on(async {
//! use std::sync::Mutex;
//! use watershed::transport::{Able, Fetched, Link, Received, Settled, Transport, Verdict, Want};
//! use watershed::{BoxError, StepContext, fan_in};
//!
//! /// The numbers from 1 to 3, which are forgotten when they are accepted.
//! struct Numbers(Mutex<Vec<u32>>);
//!
//! impl Transport for Numbers {
//!     type Message = u32;
//!     type Receipt = u32;
//!
//!     fn able(&self) -> Able {
//!         Able::each()
//!     }
//!
//!     async fn fetch(&self, _: Want) -> Fetched<u32, u32> {
//!         let next = self.0.lock().unwrap().pop();
//!         Ok(next.map(|number| vec![Received::new(number, number)]))
//!     }
//!
//!     async fn settle(&self, batch: Vec<(u32, Verdict)>) -> Vec<Settled> {
//!         for (number, verdict) in &batch {
//!             if let Verdict::Release { .. } = verdict {
//!                 self.0.lock().unwrap().push(*number);
//!             }
//!         }
//!         batch.iter().map(|_| Settled::Confirmed).collect()
//!     }
//! }
//!
//! let link = Link::new(Numbers(Mutex::new(vec![1, 2, 3])));
//! let report = fan_in(&StepContext::new("numbers"), [link.source()], async |_, _| {
//!     Ok::<_, BoxError>(())
//! })
//! .await?;
//! assert_eq!((report.handled(), report.accepted()), (3, 3));
//! # Ok::<_, BoxError>(()) }).unwrap();
//! ```

// - `received`: what a transport is asked for and what it brings; `events`: what it tells unasked
// - `link`: a transport that is connected, and its sources; `options`: what can be said of it
// - `hub`: a transport as its drain sees it; `accepts`: what it takes in with its lock, `aside`: what it does when its lock is free
// - `state`, `entries`, `part`, `partitions`, `prefix`, `groups`, `lost`: the receipts, and the sources they came by;
//   `ends`, `in_order`, `losing`, `by_hand`: how they end; `room`, `slowing`: who may take one
// - `driver`, with `in_flight` and `seat`: `fetching`, `leases`, `calls` with `sending`, `revoking`: what
//   goes on meanwhile

mod accepts;
mod aside;
mod by_hand;
mod calls;
mod driver;
mod ends;
mod entries;
mod events;
mod fetching;
mod groups;
mod hub;
mod in_flight;
mod in_order;
mod leases;
mod link;
mod losing;
mod lost;
mod options;
mod part;
mod partitions;
mod prefix;
mod received;
mod revoking;
mod room;
mod seat;
mod sending;
mod slowing;
mod source;
mod state;

use std::future::Future;

pub use crate::settlement::{Able, Assignment, Facts, Settled, Settling, Ticket, Verdict};
pub use crate::source::mixed_settling as mixed;
pub use events::{Event, Notices, Revocation};
pub use link::Link;
pub use received::{Fetched, Received, Renewed, Trouble, Want};
pub use source::TransportSource;

use crate::error::Error;

/// What an adapter implements for its client.
///
/// The futures of `settle`, `renew` and `close` are polled to their end or to
/// [`settle_within`](Link::settle_within), unless the drain itself is dropped, or the budget of its end
/// is used up before that ([`grace`](crate::FanIn::grace), [`finish_within`](crate::FanIn::finish_within)):
/// then the transport is not closed. So is that of `fetch`, which is told by [`Want::stop`] to return
/// early. All of them are polled by the drain's own task.
///
/// See the chapter [`guide`](crate::guide).
pub trait Transport: Send + Sync + 'static {
    /// A message as the client has it; [`Source::decoded`](crate::Source::decoded) makes the user's of
    /// it.
    type Message: Send + Sync + 'static;

    /// What the client settles a message by. It carries whatever tells one generation from the next.
    type Receipt: Clone + Send + Sync + 'static;

    /// What the transport can do. Asked once, when it is [linked](Link::new).
    fn able(&self) -> Able;

    /// Where the transport leaves what happens without being asked for. Asked once; by default nothing
    /// does.
    fn notices(&self) -> Notices {
        Notices::new()
    }

    /// A drain begins: asked before anything is fetched. By default there is nothing to be said.
    ///
    /// # Errors
    ///
    /// What the drain ends with: it was [closed](Self::close), and cannot be used again, say.
    fn open(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Up to [`Want::at_most`] messages, as soon as there is one; none if there is none within
    /// [`Want::wait`]. `None` where the source has ended and that was asked for: read until empty.
    ///
    /// In prefix order a fetch that is dropped before it returns has not moved the position: the drain
    /// was dropped with it, or gave it up because it took too long.
    ///
    /// # Errors
    ///
    /// [`Trouble`], which says whether it passes.
    fn fetch(
        &self,
        want: Want,
    ) -> impl Future<Output = Fetched<Self::Message, Self::Receipt>> + Send;

    /// Settles a batch of at most as many as the transport [takes](Able::batches_of). One outcome for
    /// each, in the same order; a missing one is unknown.
    fn settle(
        &self,
        batch: Vec<(Self::Receipt, Verdict)>,
    ) -> impl Future<Output = Vec<Settled>> + Send;

    /// Renews leases. One answer for each, in the same order; a missing one has failed. Called only
    /// where the transport [renews](Able::renews).
    fn renew(&self, batch: Vec<Self::Receipt>) -> impl Future<Output = Vec<Renewed>> + Send {
        std::future::ready(batch.iter().map(|_| Renewed::AtMaximum).collect())
    }

    /// Gives back what the client itself holds, and closes it: at the end of the drain that has its
    /// last source.
    ///
    /// # Errors
    ///
    /// What the drain is to fail with.
    fn close(&self) -> impl Future<Output = Result<(), Error>> + Send {
        std::future::ready(Ok(()))
    }
}
