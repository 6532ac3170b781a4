//! Work that is told to stop is undone under a token of its own. Rules 4.14, 4.5.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use watershed::combinators::{retry, when_all, when_any};
use watershed::group::Group;
use watershed::timers::{delay, with_timeout};
use watershed::{BoxError, CompensationPolicy, RetryPolicy, StepContext, with_step};

use crate::support::block_on;

/// An undo that takes some time by the step it is given, and counts.
fn slow_undo(step: &StepContext, undone: &Arc<AtomicUsize>) {
    let undone = Arc::clone(undone);
    step.register_compensation(with_step(move |step: StepContext| {
        let undone = Arc::clone(&undone);
        async move {
            delay(&step, Duration::from_millis(1)).await?;
            undone.fetch_add(1, Ordering::SeqCst);
            Ok::<_, watershed::Error>(())
        }
    }));
}

#[test]
fn what_a_timeout_cut_short_is_undone_by_actions_that_wait() {
    let (context, undone) = (StepContext::new("x"), Arc::new(AtomicUsize::new(0)));
    let error = block_on(with_timeout(&context, Duration::from_millis(5), |step| {
        slow_undo(&step, &undone);
        std::future::pending::<Result<(), BoxError>>()
    }));
    assert!(error.unwrap_err().related().is_empty());
    assert_eq!((undone.load(Ordering::SeqCst), context.scope().len()), (1, 0));
}

#[test]
fn what_a_race_stopped_is_undone_by_actions_that_wait() {
    let (context, undone) = (StepContext::new("x"), Arc::new(AtomicUsize::new(0)));
    let operations = [false, true].map(|fails| {
        let undone = Arc::clone(&undone);
        move |step: StepContext| async move {
            slow_undo(&step, &undone);
            if fails {
                return Err::<(), BoxError>("no".into());
            }
            step.cancellation().cancelled().await;
            Err("stopped".into())
        }
    });
    block_on(when_all(&context, operations).into_future()).unwrap_err();
    assert_eq!((undone.load(Ordering::SeqCst), context.scope().len()), (2, 0));

    let operations = [false, true].map(|wins| {
        let undone = Arc::clone(&undone);
        move |step: StepContext| async move {
            slow_undo(&step, &undone);
            if !wins {
                step.cancellation().cancelled().await;
            }
            if wins { Ok::<_, BoxError>(()) } else { Err("stopped".into()) }
        }
    });
    block_on(when_any(&context, operations).into_future()).unwrap();
    assert_eq!((undone.load(Ordering::SeqCst), context.scope().clear()), (3, 1));
}

#[test]
fn what_a_group_or_a_retry_stopped_is_undone_by_actions_that_wait() {
    let (context, undone) = (StepContext::new("x"), Arc::new(AtomicUsize::new(0)));
    let group = Group::new(&context).roll_back(CompensationPolicy::default());
    let own = Arc::clone(&undone);
    group
        .go("one", |step| async move {
            slow_undo(&step, &own);
            step.cancellation().cancelled().await;
            Err::<(), BoxError>("stopped".into())
        })
        .unwrap();
    group.go("two", |_| async { Err::<(), BoxError>("no".into()) }).unwrap();
    block_on(group.wait()).unwrap_err();
    assert_eq!((undone.load(Ordering::SeqCst), context.scope().len()), (1, 0));

    let policy = RetryPolicy::fixed(3, Duration::ZERO);
    block_on(
        retry(&context, policy.clone(), |step| {
            slow_undo(&step, &undone);
            async { Err::<(), BoxError>("no".into()) }
        })
        .into_future(),
    )
    .unwrap_err();
    assert_eq!((undone.load(Ordering::SeqCst), context.scope().len()), (4, 0));
}

#[test]
fn a_way_to_undo_that_is_none_is_an_error_before_anything_is_called() {
    let context = StepContext::new("x");
    let never = |_: StepContext| -> std::future::Ready<Result<(), BoxError>> { panic!("called") };
    for policy in [
        CompensationPolicy::parallel_limited(0),
        CompensationPolicy::default().retry(RetryPolicy::fixed(0, Duration::ZERO)),
    ] {
        let second = Duration::from_secs(1);
        let group = Group::new(&context).roll_back(policy.clone());
        group.go("one", never).unwrap();
        let errors = [
            block_on(with_timeout(&context, second, never).compensation(policy.clone())).err(),
            block_on(when_all(&context, [never]).compensation(policy.clone()).into_future()).err(),
            block_on(when_any(&context, [never]).compensation(policy.clone()).into_future()).err(),
            block_on(
                retry(&context, RetryPolicy::none(), never)
                    .compensation(policy.clone())
                    .into_future(),
            )
            .err(),
            block_on(group.wait()).err().map(watershed::Error::from),
            block_on(context.roll_back(&policy)).err().map(watershed::Error::from),
        ];
        for error in errors {
            assert_eq!(error.unwrap().code(), watershed::ErrorCode::Validation);
        }
    }
}
