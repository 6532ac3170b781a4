//! What may be sent, shared and moved.

use watershed::channels::*;
use watershed::*;

fn send<T: Send>() {}
fn sync<T: Sync>() {}
fn unpin<T: Unpin>() {}

macro_rules! assert_traits {
    ($($check:ident: $($type:ty),+;)+) => { $($($check::<$type>();)+)+ };
}

#[test]
fn public_types_are_send_sync_and_unpin_where_they_can_be() {
    assert_traits! {
        send: Error, ErrorCode, BoxError, Tick, Sleep, SystemClock, ManualClock, CancellationSource,
            CancellationToken, Cancelled, DropGuard, CompensationScope, CompensationPolicy, Rollback,
            RollbackReport, FailedAction, Failure<RollbackReport>, Reservation, StepContext,
            FanInReport, SourceReport, Failure<FanInReport>, Letter<u8>, Progress, Warning, Answer,
            Commit, OnFailure, RetryPolicy, Compensated<u8>,
            Named<u8>, Faults<u8>, diagnostics::Snapshot, SenderDestination<u8>,
            SinkDestination<u8, u8>, Undelivered<u8>, Refused<u8>, MergeReport, MergedSource,
            Priority, RoundRobin, Weighted, SourceState, BroadcastReport, DestinationReport,
            Subscribers<SenderDestination<u8>>, Overflow, OnClosed;
        sync: Error, ErrorCode, BoxError, Tick, SystemClock, ManualClock, CancellationSource,
            CancellationToken, DropGuard, CompensationScope, CompensationPolicy, RollbackReport,
            FailedAction, Failure<RollbackReport>, Reservation, StepContext, FanInReport,
            SourceReport, Failure<FanInReport>, Letter<u8>, Progress, Warning, Answer, Commit, OnFailure, RetryPolicy, Compensated<u8>, Named<u8>, Faults<u8>,
            diagnostics::Snapshot, Refused<u8>, MergeReport, MergedSource, Priority, RoundRobin,
            Weighted, SourceState, BroadcastReport, DestinationReport, Subscribers<SenderDestination<u8>>, Overflow,
            OnClosed;
        unpin: Sleep, Cancelled, Rollback, StepContext, Reservation, CompensationScope,
            SenderDestination<u8>, Undelivered<u8>, Merged<futures::stream::Pending<u8>>;
    }
}

#[test]
fn timers_and_groups_are_send_sync_and_unpin_where_they_can_be() {
    use group::{Group, GroupReport};
    use timers::{After, Delay, MissedTicks, Ticker, Ticks, WithTimeout};
    assert_traits! {
        send: Delay, After, Ticker, Ticks, MissedTicks, WithTimeout<u8>, Group<'static>,
            Group<'static, u8>, GroupReport<u8>;
        sync: MissedTicks, WithTimeout<u8>, Group<'static>, Group<'static, u8>, GroupReport<u8>;
        unpin: Delay, After, Ticker, Ticks, WithTimeout<u8>, Group<'static>;
    }
}

#[test]
fn live_sources_selects_and_windows_are_send_sync_and_unpin_where_they_can_be() {
    use futures::stream::Pending;
    use streams::{CollectAll, Lifted};
    assert_traits! {
        send: LiveSources<Pending<u8>>, IncomingSources<Pending<u8>>, LiveSource<Pending<u8>>,
            SourceHandle<Pending<u8>>, Ended<Pending<u8>>, SourceEnd, Tuned<u8>,
            Select<'static, u8>, SelectRun<'static, 'static, u8>, Window<Pending<u8>>,
            Windows<Pending<u8>>, AnySource<'static, u8>, SourceId, Lifted<Pending<Result<u8, Error>>>,
            CollectAll<Pending<Result<u8, Error>>>;
        sync: LiveSources<Pending<u8>>, SourceHandle<Pending<u8>>, SourceEnd, SourceId, Tuned<u8>;
        unpin: LiveSources<Pending<u8>>, LiveSource<Pending<u8>>, SourceHandle<Pending<u8>>,
            Ended<Pending<u8>>, Select<'static, u8>, SelectRun<'static, 'static, u8>,
            Window<Pending<u8>>, Windows<Pending<u8>>, AnySource<'static, u8>;
    }
}

#[test]
fn policies_and_combinators_are_send_sync_and_unpin_where_they_can_be() {
    use combinators::{Fallback, Raced, Reached, WhenAll, WhenAny};
    assert_traits! {
        send: ExecutionPolicy, WhenAll<u8>, WhenAny<u8>, Fallback<'static, u8>, Raced<u8>,
            Reached<u8>;
        sync: ExecutionPolicy, WhenAll<u8>, WhenAny<u8>, Raced<u8>, Reached<u8>;
        unpin: ExecutionPolicy, WhenAll<u8>, WhenAny<u8>, Fallback<'static, u8>, Raced<u8>,
            Reached<u8>;
    }
}

#[cfg(feature = "testing")]
#[test]
fn what_tests_share_with_handlers_is_send_sync_and_unpin() {
    use testing::{
        Entry, Event, FaultPoints, Finding, Ledger, Pause, Script, Spawner, Stopped, World,
    };
    assert_traits! {
        send: Entry<u8>, Event, FaultPoints, Finding, Ledger<u8>, Pause, Script<u8>, Spawner,
            Stopped, World;
        sync: Entry<u8>, Event, FaultPoints, Finding, Ledger<u8>, Script<u8>, Spawner, Stopped,
            World;
        unpin: Pause, Script<u8>, World;
    }
}
