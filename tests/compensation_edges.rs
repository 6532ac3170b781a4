//! Compensations at their edges: nested drains, shared scopes, reservations that moved, destructors.

use std::future::{Future, IntoFuture, poll_fn};
use std::num::{NonZeroU32, NonZeroUsize};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::executor::block_on;
use futures::stream;
use watershed::{
    Action, CancellationToken, Commit, Compensated, CompensationPolicy, CompensationScope, Error,
    ErrorCode, ManualClock, RetryPolicy, RollbackFailed, RollbackReport, StepContext, fan_in,
    labelled,
};

type Log = Arc<Mutex<Vec<u32>>>;

fn take(log: &Log) -> Vec<u32> {
    std::mem::take(&mut log.lock().unwrap())
}

/// An action that writes its number down.
fn undo(log: &Log, number: u32) -> impl Action + use<> {
    let log = Arc::clone(log);
    move || {
        let log = Arc::clone(&log);
        async move { log.lock().unwrap().push(number) }
    }
}

fn run(scope: &CompensationScope, policy: &CompensationPolicy) -> Result<RollbackReport, Error> {
    block_on(scope.run_compensation(policy, CancellationToken::never()))
}

fn roll_back(scope: &CompensationScope) -> Result<RollbackReport, Error> {
    run(scope, &CompensationPolicy::sequential_reverse())
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

// Rule 4.2
#[test]
fn a_nested_drain_in_a_handler_keeps_the_order() {
    let (context, log) = (StepContext::new("test"), Log::default());
    let drain = fan_in(&context, [stream::iter([1, 2])], |outer, step| {
        let log = log.clone();
        async move {
            step.register_compensation(undo(&log, outer * 10));
            let inner = fan_in(&step, [stream::iter([1, 2])], |inner, step| {
                step.register_compensation(undo(&log, outer * 10 + inner));
                async { Ok::<_, Error>(()) }
            });
            inner.commit(Commit::Never).await?;
            step.register_compensation(undo(&log, outer * 10 + 3));
            Ok::<_, Error>(())
        }
    });
    block_on(drain.commit(Commit::Never).into_future()).unwrap();
    roll_back(context.scope()).unwrap();
    assert_eq!(take(&log), [23, 22, 21, 20, 13, 12, 11, 10]);
}

// Rule 4.3
#[test]
fn pipeline_commit_keeps_what_others_registered_before_during_and_after() {
    let (context, log) = (StepContext::new("test"), Log::default());
    let other = context.scope().clone();
    other.register_compensation(undo(&log, 1));
    let drain = fan_in(&context, [stream::iter([10, 20])], |message, step| {
        step.register_compensation(undo(&log, message));
        other.register_compensation(undo(&log, message + 1));
        let result = Compensated::new(()).with_compensation(undo(&log, message + 2));
        async { Ok::<_, Error>(result) }
    });
    block_on(drain.into_future()).unwrap();
    other.register_compensation(undo(&log, 30));
    assert_eq!(roll_back(&other).unwrap().succeeded(), 4);
    assert_eq!(take(&log), [30, 21, 11, 1]);
}

// Rule 4.8
#[test]
fn two_drains_of_one_scope_clear_their_own_whichever_ends_first() {
    for first in [0, 1] {
        let (context, log) = (StepContext::new("test"), Log::default());
        let channels = [(); 2].map(|()| async_channel::unbounded());
        let mut drains = Vec::new();
        for (_, receiver) in &channels {
            let drain = fan_in(&context, [receiver.clone()], |message, step: StepContext| {
                step.register_compensation(undo(&log, message));
                async { Ok::<_, Error>(()) }
            });
            drains.push(Box::pin(drain.into_future()));
        }
        for message in [1, 2, 11, 12, 13] {
            channels[usize::from(message > 10)].0.try_send(message).unwrap();
        }
        assert!(drains.iter_mut().all(|drain| poll(drain).is_pending()));
        assert_eq!(context.scope().len(), 5);
        channels[first].0.close();
        let Poll::Ready(Ok(_)) = poll(&mut drains[first]) else { panic!("the first to end") };
        assert_eq!(context.scope().len(), [3, 2][first]);
        channels[1 - first].0.close();
        let Poll::Ready(Ok(_)) = poll(&mut drains[1 - first]) else { panic!("the other") };
        assert!(context.scope().is_empty());
    }
}

// Rule 4.4
#[test]
fn the_place_is_the_users_for_every_way_of_registering() {
    let context = StepContext::new("test");
    let fail = || async { Err::<(), _>("no") };
    let from = line!();
    context.register_compensation(fail);
    context.register_compensation_with((), |()| async { Err::<(), _>("no") });
    context.try_register_compensation(true, fail);
    drop(context.reserve(fail));
    context.scope().register_compensation(fail);
    context.scope().register_compensation_with((), |()| async { Err::<(), _>("no") });
    context.scope().try_register_compensation(true, fail);
    drop(context.scope().reserve(labelled("the last", fail)));
    Compensated::new(()).with_compensation(fail).absorb_into(context.scope());
    let error = roll_back(context.scope()).unwrap_err();
    let failures = error.downcast_ref::<RollbackFailed>().unwrap().report().failures();
    let lines: Vec<_> = failures.iter().map(|f| f.registered_at().line() - from).collect();
    assert_eq!(lines, [9, 8, 7, 6, 5, 4, 3, 2, 1]);
    assert!(failures.iter().all(|failure| failure.registered_at().file() == file!()));
    assert_eq!(failures[1].label(), Some("the last"));
    assert_eq!(context.scope().clear(), 9);
}

// Rule 4.5, Rule 5.4
#[test]
fn a_rollback_dropped_while_it_waits_for_a_retry_keeps_the_action_and_forgets_the_wait() {
    for policy in [CompensationPolicy::default(), CompensationPolicy::parallel()] {
        let (scope, clock) = (CompensationScope::new(), ManualClock::new());
        scope.register_compensation(|| async { Err("no connection") });
        let retry = RetryPolicy::fixed(NonZeroU32::MAX, Duration::from_secs(1));
        let policy = policy.retry(retry).clock(Arc::new(clock.clone()));
        let mut rollback = scope.run_compensation(&policy, CancellationToken::never());
        assert!(poll(&mut rollback).is_pending());
        assert_eq!((scope.len(), clock.sleepers()), (1, 1));
        drop(rollback);
        assert_eq!((scope.clear(), clock.sleepers()), (1, 0));
    }
}

// Rule 4.6
#[test]
fn as_many_actions_run_at_once_as_the_limit_allows() {
    let limited = |limit| CompensationPolicy::parallel_limited(NonZeroUsize::new(limit).unwrap());
    let cases = [
        (CompensationPolicy::sequential_reverse(), 1),
        (limited(1), 1),
        (limited(3), 3),
        (limited(usize::MAX), 20),
        (CompensationPolicy::parallel(), 20),
    ];
    for (policy, expected) in cases {
        let scope = CompensationScope::new();
        let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        for _ in 0..20 {
            scope.register_compensation_with(Arc::clone(&running), |running| async move {
                let now = running.0.fetch_add(1, Ordering::SeqCst) + 1;
                running.1.fetch_max(now, Ordering::SeqCst);
                for _ in 0..30 {
                    yield_now().await;
                }
                running.0.fetch_sub(1, Ordering::SeqCst);
            });
        }
        assert_eq!(run(&scope, &policy).unwrap().succeeded(), 20);
        assert_eq!(running.1.load(Ordering::SeqCst), expected, "{policy:?}");
    }
}

// Rule 4.9
#[test]
fn a_reservation_disarmed_after_its_action_moved_does_nothing_when_it_runs() {
    let (context, log) = (StepContext::new("test"), Log::default());
    let kept = Mutex::new(Vec::new());
    let drain = fan_in(&context, [stream::iter([1, 2])], |message, step| {
        kept.lock().unwrap().push(step.reserve(undo(&log, message)));
        async { Ok::<_, Error>(()) }
    });
    block_on(drain.commit(Commit::Never).into_future()).unwrap();
    let child = CompensationScope::new();
    let absorbed = child.reserve(undo(&log, 3));
    context.scope().absorb(&child);
    assert_eq!(context.scope().len(), 3);
    kept.lock().unwrap().remove(0).disarm();
    absorbed.disarm();
    roll_back(context.scope()).unwrap();
    assert_eq!(take(&log), [2]);
}

/// Counts its destruction, and panics in it.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        assert!(std::thread::panicking(), "a destructor went wrong");
    }
}

/// An action that does nothing but hold its state.
fn holding<T: Send + Sync + 'static>(state: T) -> impl Action {
    move || {
        let _held = &state;
        async {}
    }
}

// Rule 3.7, Rule 4.12
#[test]
fn panicking_destructors_between_neighbours_are_all_run_once_in_a_commit() {
    for commit in [Commit::Pipeline, Commit::Message] {
        let context = StepContext::new("test");
        let (drops, neighbour) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let drain = fan_in(&context, [stream::iter([1])], |_, step| {
            for _ in 0..5 {
                step.register_compensation(holding(Arc::clone(&neighbour)));
                step.register_compensation(holding(Bomb(Arc::clone(&drops))));
                step.register_compensation(holding(Arc::clone(&neighbour)));
            }
            async { Ok::<_, Error>(()) }
        });
        let error = block_on(drain.commit(commit).into_future()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Panic, "{commit:?}");
        assert_eq!(drops.load(Ordering::SeqCst), 5);
        assert_eq!(Arc::strong_count(&neighbour), 1);
    }
}

// Rules 4.4, 4.9, 4.12
#[test]
fn an_attempt_whose_destructor_panics_behind_its_success_has_succeeded_reserved_or_not() {
    let (scope, runs) = (CompensationScope::new(), Arc::new(AtomicUsize::new(0)));
    let action = |runs: &Arc<AtomicUsize>| {
        let runs = Arc::clone(runs);
        move || {
            let bomb = Bomb(Arc::clone(&runs));
            poll_fn(move |_| {
                let _held = &bomb;
                Poll::Ready(())
            })
        }
    };
    scope.register_compensation(action(&runs));
    drop(scope.reserve(action(&runs)));
    assert_eq!(roll_back(&scope).unwrap().succeeded(), 2);
    assert_eq!((scope.len(), runs.load(Ordering::SeqCst)), (0, 2), "each has run once");
}

/// Asks and changes a scope while it is destroyed.
struct Curious(CompensationScope, Arc<AtomicUsize>);

impl Drop for Curious {
    fn drop(&mut self) {
        self.0.register_compensation(|| async {});
        assert!(self.0.len() < 100);
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

// Rule 4.1, Rule 4.12
#[test]
fn a_destructor_may_stage_on_the_scopes_of_its_drain_while_it_commits() {
    for commit in [Commit::Pipeline, Commit::Message] {
        let (context, drops) = (StepContext::new("test"), Arc::new(AtomicUsize::new(0)));
        let parent = context.scope().clone();
        let drain = fan_in(&context, [stream::iter([1, 2])], |_, step| {
            let curious = |scope: &CompensationScope| Curious(scope.clone(), Arc::clone(&drops));
            step.register_compensation(holding(curious(&parent)));
            step.register_compensation(holding(curious(step.scope())));
            async { Ok::<_, Error>(()) }
        });
        block_on(drain.commit(commit).into_future()).unwrap();
        assert_eq!(drops.load(Ordering::SeqCst), 4, "{commit:?}");
        assert_eq!(parent.clear(), 4, "{commit:?}");
    }
}
