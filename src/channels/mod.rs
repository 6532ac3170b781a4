//! Streams in, one outlet: the operations over many sources.

mod fan_in;
mod source;

pub use fan_in::{
    Commit, FailedMessage, FanIn, FanInFuture, FanInReport, OnFailure, SourceReport, fan_in,
};
pub use source::{Faults, Named, Source};
