//! Rule 5.2: the same suite passes under every executor.

#[macro_use]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use support::{Ledger, filled, yields};
use watershed::{BoxError, CancellationSource, CompensationPolicy, ErrorCode, StepContext, fan_in};

// Rules 3.1, 4.3, 5.2
async fn success_drains_all_and_clears() {
    let context = StepContext::new("suite");
    let ledger = Ledger::default();
    let sources = [filled([1, 2, 3]), filled([4, 5]), filled([])];
    let four = 4;
    let report = fan_in(&context, sources, |message, step| {
        let ledger = ledger.clone();
        async move {
            ledger.apply(&step, message);
            yields(3).await;
            Ok::<_, BoxError>(())
        }
    })
    .concurrency(four)
    .await
    .expect("the drain succeeds");
    assert_eq!(report.handled(), 5);
    assert!(context.scope().is_empty());
    assert_eq!(ledger.undone(), []);
}

// Rules 3.2, 4.2, 5.2
async fn failure_is_rolled_back_in_reverse() {
    let context = StepContext::new("suite");
    let ledger = Ledger::default();
    let sources = [filled([1, 2, 3]), filled([4, 5, 13]), filled([6])];
    let error = fan_in(&context, sources, |message, step| {
        let ledger = ledger.clone();
        async move {
            ledger.apply(&step, message);
            yields(message as usize % 3).await;
            if message == 13 { Err("unlucky") } else { Ok(()) }
        }
    })
    .concurrency(3)
    .await
    .expect_err("the drain fails")
    .into_error();
    assert_eq!(error.code(), ErrorCode::Handler);
    let policy = CompensationPolicy::sequential_reverse();
    context.scope().roll_back(&policy).await.expect("the rollback succeeds");
    ledger.assert_undone_in_reverse();
}

// Rules 3.3, 3.6, 5.2
async fn timeout_ends_a_handler_that_never_does() {
    let context = StepContext::new("suite");
    let error =
        fan_in(&context, [filled([1])], |_, _| futures::future::pending::<Result<(), BoxError>>())
            .timeout(Duration::from_millis(5))
            .grace(Duration::ZERO)
            .await
            .expect_err("the drain times out")
            .into_error();
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert_eq!(error.metadata("dropped_handlers"), Some("1"));
}

// Rules 3.5, 5.2
async fn cancellation_from_another_thread_ends_the_drain() {
    let stop = CancellationSource::new();
    let context = StepContext::new("suite").with_cancellation(stop.token());
    let (sender, receiver) = async_channel::unbounded::<u32>();
    let canceller = std::thread::spawn(move || stop.cancel());
    let error = fan_in(&context, [receiver], |_, _| async { Ok::<_, BoxError>(()) })
        .await
        .expect_err("the drain is cancelled")
        .into_error();
    assert_eq!(error.code(), ErrorCode::Canceled);
    canceller.join().expect("the thread ends");
    drop(sender);
}

// Rules 2.2, 2.5, 5.2
async fn handlers_that_yield_overlap_up_to_the_concurrency() {
    let context = StepContext::new("suite");
    let running = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    let sources: Vec<_> = (0..5).map(|_| filled(0..20_usize)).collect();
    let report = fan_in(&context, sources, |message, _| {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            yields(1 + message % 3).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, BoxError>(())
        }
    })
    .concurrency(3)
    .await
    .expect("the drain succeeds");
    assert_eq!((report.handled(), most.load(Ordering::Relaxed)), (100, 3));
}

// Rules 2.2, 5.2
async fn live_producers_on_other_threads_are_drained() {
    let (left, from_left) = async_channel::bounded(2);
    let (right, from_right) = async_channel::bounded(2);
    let producers = [left, right].map(|sender| {
        std::thread::spawn(move || (0..500_u32).all(|n| sender.send_blocking(n).is_ok()))
    });
    let sum = Arc::new(AtomicU32::new(0));
    let context = StepContext::new("suite");
    let report = fan_in(&context, [from_left, from_right], |message, _| {
        let sum = Arc::clone(&sum);
        async move {
            sum.fetch_add(message, Ordering::Relaxed);
            Ok::<_, BoxError>(())
        }
    })
    .await
    .expect("the drain succeeds");
    assert_eq!(report.handled(), 1000);
    assert_eq!(sum.load(Ordering::Relaxed), 2 * (0..500).sum::<u32>());
    for producer in producers {
        assert!(producer.join().expect("the thread ends"));
    }
}

on_every_executor! {
    success_drains_all_and_clears,
    failure_is_rolled_back_in_reverse,
    timeout_ends_a_handler_that_never_does,
    cancellation_from_another_thread_ends_the_drain,
    handlers_that_yield_overlap_up_to_the_concurrency,
    live_producers_on_other_threads_are_drained,
}
