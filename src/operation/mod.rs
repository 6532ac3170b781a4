//! What operations share: how each is started and ended, the options that several of them have, and
//! what ends one from outside.

mod future;
mod limits;
mod options;

pub use future::OperationFuture;
pub(crate) use future::{Operation, Output};
pub(crate) use limits::{Exceeded, Limits};
pub(crate) use options::{DEFAULT_GRACE, option};
