#![doc = include_str!("../README.md")]
#![allow(clippy::doc_markdown, reason = "PostgreSQL is a name on that page, and no code")]

// - `queue`: its options, its tables, what is put into it; `names`: as the user chose them
// - `transport`: claiming, settling, renewing; `statements`: with what words
// - `lease`: the receipt, and its accept in the user's own transaction
// - `connection`: what is run on the pool's connections, and what their errors mean; `held`: the one that
//   is held for receipts; `hint`: listening

mod connection;
mod held;
mod hint;
mod lease;
mod names;
mod queue;
mod statements;
mod transport;

#[doc = include_str!("coming_from.md")]
pub mod coming_from {}

pub use lease::Lease;
pub use queue::{LeasedRows, NewRow};
