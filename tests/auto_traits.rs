//! Which threads the public types may live on: checked by the compiler.

use std::future::{Pending, Ready, pending};

use futures::stream::Iter;
use watershed::diagnostics::Snapshot;
use watershed::{
    CancellationSource, CancellationToken, Cancelled, Clock, Commit, Compensated,
    CompensationPolicy, CompensationScope, Error, ErrorCode, FailedAction, FailedMessage, FanIn,
    FanInFuture, FanInReport, Faults, Labelled, ManualClock, Named, OnFailure, Reservation,
    RetryPolicy, Rollback, RollbackFailed, RollbackReport, Sleep, SourceReport, StepContext,
    SystemClock, Tick, fan_in, run_compensation, try_async,
};

type Numbers = Iter<std::vec::IntoIter<u32>>;
type Handler = fn(u32, StepContext) -> Ready<Result<(), Error>>;
type DeadLetter = fn(FailedMessage);
type Drain = FanInFuture<Numbers, Handler, Ready<Result<(), Error>>, DeadLetter>;

fn is_send<T: Send + ?Sized>() {}
fn is_sync<T: Sync + ?Sized>() {}
fn is_unpin<T: Unpin>() {}

fn is_all<T: Send + Sync + Unpin>() {
    is_send::<T>();
    is_sync::<T>();
    is_unpin::<T>();
}

fn send_value<T: Send>(value: T) {
    drop(value);
}

// Rule 5.3
#[test]
fn values_that_are_shared_are_send_sync_and_unpin() {
    is_all::<CancellationSource>();
    is_all::<CancellationToken>();
    is_all::<Cancelled>();
    is_all::<Commit>();
    is_all::<Compensated<u32>>();
    is_all::<CompensationPolicy>();
    is_all::<CompensationScope>();
    is_all::<Error>();
    is_all::<ErrorCode>();
    is_all::<FailedAction>();
    is_all::<FailedMessage>();
    is_all::<FanInReport>();
    is_all::<ManualClock>();
    is_all::<OnFailure>();
    is_all::<Reservation>();
    is_all::<RetryPolicy>();
    is_all::<RollbackFailed>();
    is_all::<RollbackReport>();
    is_all::<Snapshot>();
    is_all::<SourceReport>();
    is_all::<StepContext>();
    is_all::<SystemClock>();
    is_all::<Tick>();
}

// Rule 5.3
#[test]
fn wrappers_are_what_they_wrap() {
    is_all::<FanIn<Numbers, Handler>>();
    is_all::<Faults<Numbers>>();
    is_all::<Labelled<fn() -> Ready<()>>>();
    is_all::<Named<Numbers>>();
}

// Rule 5.3
#[test]
fn futures_can_move_to_another_thread() {
    is_send::<Drain>();
    is_unpin::<Drain>();
    is_send::<Rollback>();
    is_unpin::<Rollback>();
    is_send::<Sleep>();
    is_unpin::<Sleep>();
    is_send::<dyn Clock>();
    is_sync::<dyn Clock>();
}

// Rule 5.3
#[test]
fn the_futures_of_async_code_are_send_as_well() {
    let context = StepContext::new("test");
    let scope = context.scope().clone();
    send_value(async move {
        let drain = fan_in(&context, [futures::stream::iter([1])], |_, step| async move {
            step.register_compensation(|| async {});
            pending::<()>().await;
            Ok::<_, Error>(())
        });
        drain.await
    });
    send_value(async move {
        let policy = CompensationPolicy::default();
        run_compensation(&policy, &scope, CancellationToken::never()).await
    });
    send_value(try_async(pending_result));
}

fn pending_result() -> Pending<Result<(), Error>> {
    pending()
}

// Rule 5.3
#[test]
fn a_scope_can_be_used_from_many_threads_at_once() {
    let scope = CompensationScope::new();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..250 {
                    scope.register_compensation(|| async {});
                }
            });
        }
    });
    assert_eq!(scope.clear(), 1000);
}
