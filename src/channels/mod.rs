//! Streams in, channels and sinks out: the operations over many sources or destinations.

mod broadcast;
mod destination;
mod fan_in;
mod merge;
mod source;
mod strategy;

pub use broadcast::{
    Broadcast, BroadcastFuture, BroadcastReport, DestinationReport, Missed, OnClosed, Overflow,
    broadcast, fan_out,
};
pub use destination::{
    Destination, IntoDestination, Refused, SenderDestination, SinkDestination, Undelivered,
    into_sink,
};
pub use fan_in::{
    Commit, FailedMessage, FanIn, FanInFuture, FanInReport, OnFailure, SourceReport, fan_in,
};
pub use merge::{FairTurns, Merge, MergeFuture, MergeReport, Merged, MergedSource, merge, merged};
pub use source::{Faults, Named, Source};
pub use strategy::{
    MergeStrategy, Picked, Priority, RoundRobin, SourceState, Weighted, merge_with_strategy,
    priority, round_robin, weighted,
};
