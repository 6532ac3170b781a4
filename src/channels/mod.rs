//! Streams in, one outlet: the operations over many sources.

mod fan_in;
mod live;
mod ordered;
mod select;
mod source;
mod window;

pub use fan_in::{
    Commit, FailedMessage, FanIn, FanInFuture, FanInReport, OnFailure, SourceReport, fan_in,
};
pub use live::{Ended, IncomingSources, LiveSource, LiveSources, SourceEnd, SourceHandle, live};
pub use ordered::Ordered;
pub use select::{Select, SelectRun, select};
pub use source::{Faults, Named, Source, Tuned};
pub use window::{Window, Windows, window};
