//! Models of what threads share, run by a model checker; see `sync` for what they put in its place.
//!
//! - `counted`, `local`, `once`, `waker`: primitives that the checkers lack
//! - `executor`: runs one future on one thread of a model
//! - `effects`: counts what was done and undone
//! - `loom`: every schedule, with the orderings of the atomics, of small scenes
//! - `shuttle`: very many random schedules of larger ones

pub(crate) mod counted;
#[allow(dead_code, reason = "each checker needs a part of it")]
mod effects;
#[allow(dead_code, reason = "each checker needs a part of it")]
pub(crate) mod executor;
pub(crate) mod local;
#[cfg(watershed_loom)]
pub(crate) mod loom;
pub(crate) mod once;
#[cfg(watershed_shuttle)]
mod shuttle;
pub(crate) mod waker;
