#![doc = include_str!("../README.md")]

// - `consumer`: what the user has, and the library's `Transport` for it
// - `setup`: what of the client's configuration is the adapter's, and what the user may say
// - `partition`: one assigned partition: reading it without waiting, and being woken
// - `member`: the thread that is in the group; `rebalance`: partitions that come and go;
//   `positions`: where a partition starts; `settling`: seeks
// - `ours`: what may be committed; `committing`: the thread that commits
// - `group`: what the client calls; `errors`: what its errors mean
// - `dead_letters`: a topic for what was given up

mod committing;
mod consumer;
mod dead_letters;
mod errors;
mod group;
mod member;
mod ours;
mod partition;
mod positions;
mod rebalance;
mod settling;
mod setup;

#[doc = include_str!("coming_from.md")]
pub mod coming_from {}

pub use consumer::{Consumer, Receipt};
pub use dead_letters::DeadLetters;

/// The client, in the version that this crate's signatures are of.
pub use rdkafka;
pub use setup::Start;
