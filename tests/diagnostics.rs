//! Rule 6.3: each result is counted once. One test, so that nothing else counts beside it.

mod support;

use std::time::Duration;

use support::{block_on, filled, poll_times};
use watershed::{
    BoxError, CancellationSource, CompensationPolicy, CompensationScope, OnFailure, RetryPolicy,
    StepContext, channels, combinators, diagnostics, fan_in, group::Group, timers,
};

#[test]
fn each_result_is_counted_once() {
    let context = StepContext::new("t");
    let before = diagnostics::Snapshot::now();
    let handler = |message: u32, step: StepContext| async move {
        step.register_compensation(|| async {});
        if message == 13 { Err("unlucky") } else { Ok(()) }
    };
    block_on(fan_in(&context, [filled([1, 2])], handler)).expect("it succeeds");
    block_on(fan_in(&context, [filled([1, 13])], handler)).expect_err("it fails");
    let zero = fan_in(&context, [filled([1])], handler).timeout(Duration::ZERO);
    block_on(zero).expect_err("it times out");
    let stop = CancellationSource::new();
    stop.cancel();
    let cancelled = fan_in(&context, [filled([1])], handler).cancellation(stop.token());
    block_on(cancelled).expect_err("it is cancelled");
    let (_sender, silent) = async_channel::unbounded::<u32>();
    let mut dropped =
        fan_in(&context, [silent], |_, _| async { Ok::<_, BoxError>(()) }).into_future();
    assert!(poll_times(&mut dropped, 1).is_none());
    drop(dropped);

    context.register_compensation(|| async { Err("stuck") });
    let policy = CompensationPolicy::default();
    let rollback = context.scope().roll_back(&policy);
    block_on(rollback).expect_err("one is stuck");
    context.scope().clear();
    let lost = CompensationScope::new();
    lost.register_compensation(|| async {});
    drop(lost);

    let mut select =
        channels::Select::new(&context).pass(filled([1])).timeout(Duration::from_secs(60));
    block_on(select.run()).expect("one is ready");
    block_on(select.run()).expect_err("all have ended");
    let mut late = channels::Select::new(&context).pass(filled([1])).timeout(Duration::ZERO);
    block_on(late.run()).expect_err("it times out");
    let mut cancelled =
        channels::Select::new(&context).pass(filled([1])).cancellation(stop.token());
    block_on(cancelled.run()).expect_err("it is cancelled");

    let group = Group::new(&context).on_failure(OnFailure::Continue);
    for fails in [false, true, false] {
        let work = move |_| async move { if fails { Err("no") } else { Ok(()) } };
        group.go(None, work).expect("the group is there");
    }
    block_on(group.wait()).expect_err("one fails");

    for fails in [false, true] {
        let work = move |_: StepContext| async move { if fails { Err("no") } else { Ok(()) } };
        assert_eq!(
            block_on(Box::pin(combinators::when_all(&context, [work]).into_future())).is_err(),
            fails
        );
        assert_eq!(
            block_on(Box::pin(combinators::when_any(&context, [work]).into_future())).is_err(),
            fails
        );
        let policy = RetryPolicy::none();
        let retried = combinators::retry(&context, policy, work);
        assert_eq!(block_on(Box::pin(retried.into_future())).is_err(), fails);
        let tiers = combinators::Fallback::new(&context).strategy("only", work);
        assert_eq!(block_on(Box::pin(tiers.into_future())).is_err(), fails);
        let timed = timers::with_timeout(&context, Duration::MAX, work);
        assert_eq!(block_on(timed).is_err(), fails);
        let (sender, receiver) = async_channel::unbounded();
        let (other, others) = async_channel::unbounded();
        if fails {
            receiver.close();
            others.close();
        }
        assert_eq!(block_on(channels::merge_into(&context, [filled([1])], sender)).is_err(), fails);
        assert_eq!(block_on(channels::broadcast(&context, filled([1]), [other])).is_err(), fails);
    }

    let counted = diagnostics::Snapshot::now().since(&before);
    assert_eq!((counted.operations_succeeded, counted.operations_failed), (7, 7));
    assert_eq!(counted.selects_succeeded, 1);
    assert_eq!((counted.selects_failed, counted.selects_timed_out), (1, 1));
    assert_eq!(counted.selects_cancelled, 1);
    assert_eq!((counted.tasks_added, counted.tasks_succeeded), (3, 2));
    assert_eq!((counted.tasks_failed, counted.tasks_dropped), (1, 0));
    assert_eq!(counted.drains_started, 5);
    assert_eq!(counted.drains_succeeded, 1);
    assert_eq!(counted.drains_failed, 1);
    assert_eq!(counted.drains_timed_out, 1);
    assert_eq!(counted.drains_cancelled, 1);
    assert_eq!(counted.drains_dropped, 1);
    assert_eq!(counted.messages_succeeded, 3);
    assert_eq!(counted.messages_failed, 1);
    assert_eq!(counted.compensations_run, 2);
    assert_eq!(counted.compensations_failed, 1);
    assert_eq!(counted.compensations_cleared, 2 + 1);
    assert_eq!(counted.compensations_lost, 1);
    assert_eq!(counted.contained_panics, 0);
}
