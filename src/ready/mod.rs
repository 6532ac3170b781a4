//! Which places of a bank are to be polled.
//!
//! A bank drives many things from one task: its sources, and the handlers that run. Each of them is
//! a *place* with a number and a waker of its own, so that a wake-up costs the same beside any
//! number of idle places.
//!
//! - `words`: a set of numbers that grows, and that every thread may add to
//! - `inbox`: what wakers write; `local`: wake-ups on the bank's own thread
//! - `queue`: the order in which places are polled, in rounds, each a `line`

mod inbox;
mod line;
mod local;
mod queue;
#[cfg(all(test, not(any(watershed_loom, watershed_shuttle))))]
mod tests;
mod words;

pub(crate) use inbox::{Inbox, Node, notify};
pub(crate) use queue::ReadyQueue;
