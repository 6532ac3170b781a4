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
            CancellationToken, Cancelled, CompensationScope, CompensationPolicy, Rollback,
            RollbackReport, FailedAction, Failure<RollbackReport>, Reservation, StepContext,
            FanInReport, SourceReport, Failure<FanInReport>, Letter<u8>, Progress, Warning, Answer,
            Commit, OnFailure, RetryPolicy, Compensated<u8>,
            Configured<u8>, Faults<u8>, diagnostics::Snapshot, SenderDestination<u8>,
            SinkDestination<u8, u8>, Undelivered<u8>, Refused<u8>, MergeReport, MergedSource,
            SourceState, BroadcastReport, DestinationReport,
            Missed<u8>, Overflow, OnClosed;
        sync: Error, ErrorCode, BoxError, Tick, SystemClock, ManualClock, CancellationSource,
            CancellationToken, CompensationScope, CompensationPolicy, RollbackReport,
            FailedAction, Failure<RollbackReport>, Reservation, StepContext, FanInReport,
            SourceReport, Failure<FanInReport>, Letter<u8>, Progress, Warning, Answer, Commit, OnFailure, RetryPolicy, Compensated<u8>, Configured<u8>, Faults<u8>,
            diagnostics::Snapshot, Refused<u8>, MergeReport, MergedSource, SourceState, BroadcastReport, DestinationReport, Missed<u8>, Overflow,
            OnClosed;
        unpin: Sleep, Cancelled, Rollback, StepContext, Reservation, CompensationScope,
            SenderDestination<u8>, Undelivered<u8>, Merge<futures::stream::Pending<u8>>;
    }
}

#[test]
fn timers_and_groups_are_send_sync_and_unpin_where_they_can_be() {
    use group::{ErrGroup, GroupReport, GroupWait, WaitGroup};
    use timers::{Delay, MissedTicks, Ticker, WithTimeout};
    assert_traits! {
        send: Delay, Ticker, MissedTicks, WithTimeout<u8>, WaitGroup<'static>,
            ErrGroup<'static>, GroupWait<'static, 'static>, GroupReport;
        sync: MissedTicks, WithTimeout<u8>, WaitGroup<'static>, ErrGroup<'static>, GroupReport;
        unpin: Delay, Ticker, WithTimeout<u8>, WaitGroup<'static>,
            ErrGroup<'static>, GroupWait<'static, 'static>;
    }
}

#[test]
fn live_sources_selects_and_windows_are_send_sync_and_unpin_where_they_can_be() {
    use futures::stream::Pending;
    use streams::{CollectAll, Lifted};
    assert_traits! {
        send: LiveSources<Pending<u8>>, IncomingSources<Pending<u8>>, LiveSource<Pending<u8>>,
            SourceHandle<Pending<u8>>, Ended<Pending<u8>>, SourceEnd, Configured<u8>,
            Select<'static, u8>,  Window<Pending<u8>>,
            Windows<Pending<u8>>, AnySource<'static, u8>, SourceId, Lifted<Pending<Result<u8, Error>>>,
            CollectAll<Pending<Result<u8, Error>>>;
        sync: LiveSources<Pending<u8>>, SourceHandle<Pending<u8>>, SourceEnd, SourceId, Configured<u8>;
        unpin: LiveSources<Pending<u8>>, LiveSource<Pending<u8>>, SourceHandle<Pending<u8>>,
            Ended<Pending<u8>>, Select<'static, u8>,
            Window<Pending<u8>>, Windows<Pending<u8>>, AnySource<'static, u8>;
    }
}

#[test]
fn policies_and_combinators_are_send_sync_and_unpin_where_they_can_be() {
    use combinators::{Fallback, Retry, WhenAll, WhenAny, Winner};
    assert_traits! {
        send: Retry<u8>, WhenAll<u8>, WhenAny<u8>, Fallback<'static, u8>, Winner<u8>;
        sync: Retry<u8>, WhenAll<u8>, WhenAny<u8>, Winner<u8>;
        unpin: Retry<u8>, WhenAll<u8>, WhenAny<u8>, Fallback<'static, u8>, Winner<u8>;
    }
}

/// What an executor with several threads wants of a task.
fn spawned<F: Future + Send + 'static>(task: F) {
    drop(task);
}

// Rule 5.3: in the future of an `async fn`, the compiler cannot ask what a closure's signature is
#[test]
fn a_task_may_await_every_operation_with_closures_that_borrow() {
    use combinators::{Fallback, retry, when_all, when_any};
    use streams::StepStreamExt;

    struct Db;
    impl Db {
        async fn store(&self, row: &str) -> Result<usize, BoxError> {
            std::future::ready(()).await;
            Ok(row.len())
        }
    }
    spawned(async move {
        let context = StepContext::new("orders");
        let db = &Db;
        let second = std::time::Duration::from_secs(1);
        let (sender, rows) = async_channel::bounded::<String>(4);
        fan_in(&context, [rows.clone()], async |row, _| db.store(&row).await.map(drop))
            .unordered()
            .dead_letters(async |letter| {
                drop(db.store(letter.message().map_or("", String::as_str)).await);
            })
            .await?;
        timers::with_timeout(&context, second, async |_| db.store("a").await).await?;
        let both = ["a", "b"].map(|row| move |_: StepContext| async move { db.store(row).await });
        when_all(&context, both).concurrency(1).await?;
        when_any(&context, both).await?;
        when_any(&context, [async |_: StepContext| db.store("a").await]).await?;
        retry(&context, RetryPolicy::none(), async |_| db.store("a").await).await?;
        Fallback::new(&context).strategy("a", async move |_| db.store("a").await).await?;
        let items = futures::stream::iter([Ok::<_, BoxError>("a")]);
        items.for_each_step(&context, async |row, _| db.store(row).await.map(drop)).await?;
        let last = |states: &[SourceState]| states.iter().rposition(|state| state.is_ready());
        merge_into(&context, [rows.clone()], sender).strategy(last).undelivered(drop).await?;
        let mut merged = merge(&context, [rows.clone()]).strategy(last);
        futures::StreamExt::next(&mut merged).await;
        let mut select = Select::new(&context).case(rows, async |row, _| db.store(&row).await);
        select.run().await?;
        Ok::<_, BoxError>(())
    });
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
