//! Streams in, channels and sinks out: the operations over many sources or destinations.
//!
//! | operation | sources | goes to |
//! | --- | --- | --- |
//! | [`fan_in`](crate::fan_in) | many of one type | an async handler |
//! | [`select`](select()) | many of different types | one winner's continuation a run |
//! | [`merge`](merge()), [`merge_with_strategy`] | many of one type | a destination |
//! | [`merge`](merge()) with [`route`](route()) | many of one type | two destinations, by a predicate |
//! | [`merged`] | many of one type | a stream |
//! | [`broadcast`](broadcast()), [`fan_out`] | one | many destinations |
//! | [`window`](window()) | one | a stream of batches |
//! | [`mixed`] | many of different types | one list of them |
//! | [`live`](live()) | those that come and go | [`FanIn::incoming`](crate::FanIn::incoming) |

mod broadcast;
mod destination;
mod merge;
mod select;
mod strategy;
mod window;

pub use crate::source::{
    AnySource, Ended, IncomingSources, LiveSource, LiveSources, Mixed, SourceEnd, SourceHandle,
    Unsettled, live, mixed,
};
pub use broadcast::{
    Broadcast, BroadcastFuture, BroadcastReport, DestinationReport, OnClosed, Overflow,
    Subscribers, broadcast, fan_out,
};
pub use destination::{
    Destination, IntoDestination, Refused, Route, SenderDestination, SinkDestination, Undelivered,
    into_sink, route,
};
pub use merge::{FairTurns, Merge, MergeFuture, MergeReport, Merged, MergedSource, merge, merged};
pub use select::{Select, SelectRun, select};
pub use strategy::{
    MergeStrategy, Picked, Priority, RoundRobin, SourceState, Weighted, merge_with_strategy,
    priority, round_robin, weighted,
};
pub use window::{Window, Windows, window};
