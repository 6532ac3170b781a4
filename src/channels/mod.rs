//! Streams in, channels and sinks out: the operations over many sources or destinations.
//!
//! | operation | sources | goes to |
//! | --- | --- | --- |
//! | [`fan_in`] | many of one type | an async handler |
//! | [`select`](select()) | many of different types | one winner's continuation a run |
//! | [`merge`](merge()), [`merge_with_strategy`] | many of one type | a destination |
//! | [`merge`](merge()) with [`route`](route()) | many of one type | two destinations, by a predicate |
//! | [`merged`] | many of one type | a stream |
//! | [`broadcast`](broadcast()), [`fan_out`] | one | many destinations |
//! | [`window`](window()) | one | a stream of batches |
//! | [`live`](live()) | those that come and go | [`FanIn::incoming`] |

mod broadcast;
mod destination;
mod fan_in;
mod live;
mod merge;
mod ordered;
mod select;
mod source;
mod strategy;
mod window;

pub use broadcast::{
    Broadcast, BroadcastFuture, BroadcastReport, DestinationReport, Missed, OnClosed, Overflow,
    broadcast, fan_out,
};
pub use destination::{
    Destination, IntoDestination, Refused, Route, SenderDestination, SinkDestination, Undelivered,
    into_sink, route,
};
pub use fan_in::{
    Commit, FailedMessage, FanIn, FanInFuture, FanInReport, OnFailure, SourceReport, fan_in,
};
pub use live::{Ended, IncomingSources, LiveSource, LiveSources, SourceEnd, SourceHandle, live};
pub use merge::{FairTurns, Merge, MergeFuture, MergeReport, Merged, MergedSource, merge, merged};
pub use ordered::Ordered;
pub use select::{CaseOutput, Select, SelectRun, select};
pub use source::{Faults, Named, Source, Tuned};
pub use strategy::{
    MergeStrategy, Picked, Priority, RoundRobin, SourceState, Weighted, merge_with_strategy,
    priority, round_robin, weighted,
};
pub use window::{Window, Windows, window};
