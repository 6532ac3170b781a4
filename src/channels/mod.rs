//! Streams in, channels and sinks out: the operations over many sources or destinations.
//!
//! | operation | sources | goes to |
//! | --- | --- | --- |
//! | [`fan_in`](crate::fan_in) | many of one type | an async handler |
//! | [`Select`] | many of different types | one winner's continuation a run |
//! | [`merge_into`] | many of one type | a destination |
//! | [`merge_into`] with [`Route`] | many of one type | two destinations, by a predicate |
//! | [`merge`](merge()) | many of one type | a stream |
//! | [`broadcast`](broadcast()), [`fan_out`] | one | many destinations |
//! | [`Window`] | one | a stream of batches |
//! | [`mixed`] | many of different types | one list of them |
//! | [`live`](live()) | those that come and go | [`FanIn::incoming`](crate::FanIn::incoming) |

mod broadcast;
mod destination;
mod merge;
mod merge_into;
mod select;
mod window;

pub use crate::source::{
    AnySource, Ended, IncomingSources, LiveSource, LiveSources, Mixed, SourceEnd, SourceHandle,
    Unsettled, live, mixed,
};
pub use broadcast::{
    Broadcast, BroadcastReport, DestinationReport, OnClosed, Overflow, Subscribers, broadcast,
    fan_out,
};
pub use destination::{
    Destination, IntoDestination, Refused, Route, SenderDestination, SinkDestination, Undelivered,
};
pub use merge::{Merge, SourceState, merge};
pub use merge_into::{MergeInto, MergeReport, MergedSource, merge_into};
pub use select::Select;
pub use window::{Window, Windows};
