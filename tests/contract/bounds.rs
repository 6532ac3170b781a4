//! What is gathered has a bound. Rules 6.4, 4.12.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use futures::task::{FutureObj, Spawn, SpawnError};
use watershed::combinators::{Fallback, retry, when_all, when_any};
use watershed::group::Group;
use watershed::{BoxError, Error, ErrorCode, OnFailure, RetryPolicy, StepContext};

/// How many related errors are kept, as the docs say.
const KEPT: usize = 32;

fn numbered(number: usize) -> Error {
    Error::validation(format!("row {number}"))
}

/// Runs a task where it is spawned.
struct AtOnce;

impl Spawn for AtOnce {
    fn spawn_obj(&self, task: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        block_on(task);
        Ok(())
    }
}

/// An error of which it can be counted how many are alive.
#[derive(Debug)]
struct Counted(#[allow(dead_code, reason = "it is counted")] Arc<()>, u32);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {}", self.1)
    }
}

impl std::error::Error for Counted {}

// Rule 6.4
#[test]
fn an_error_keeps_the_first_related_ones_and_counts_every_one() {
    let mut error = Error::validation("the import").with_related((0..20).map(numbered));
    assert_eq!((error.related().len(), error.related_total()), (20, 20));
    for number in 20..10_000 {
        error = error.with_related([numbered(number)]);
    }
    assert_eq!((error.related().len(), error.related_total()), (KEPT, 10_000));
    for (number, related) in error.related().iter().enumerate() {
        assert_eq!(related.to_string(), format!("row {number}"));
    }
}

// Rule 6.4
#[test]
fn related_errors_of_related_errors_are_bounded_too() {
    fn held(error: &Error) -> usize {
        error.related().iter().map(|related| 1 + held(related)).sum()
    }
    let mut error = Error::validation("level 0");
    for _ in 0..6 {
        let below = error.clone();
        error = Error::validation("above").with_related((0..100).map(|_| below.clone()));
        assert_eq!((error.related().len(), error.related_total()), (KEPT, 100));
        assert!(held(&error) <= 2 * KEPT, "{}", held(&error));
    }
    // What had to be given up is seen by the counts.
    let trimmed = error.related().last().unwrap();
    assert_eq!((trimmed.related().len(), trimmed.related_total()), (0, 100));
    // One that is small enough is kept as it is.
    let small = Error::validation("two").with_related((0..2).map(numbered));
    let error = Error::validation("one").with_related([small]);
    assert_eq!(error.related()[0].related()[1].to_string(), "row 1");
}

// Rule 4.12
#[test]
fn dropping_errors_never_panics_whatever_their_causes_do() {
    #[derive(Debug)]
    struct Bomb;
    impl fmt::Display for Bomb {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("tick")
        }
    }
    impl std::error::Error for Bomb {}
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the destructor of an error");
        }
    }
    let bomb = || Error::from_error(ErrorCode::Handler, Bomb);
    let before = watershed::diagnostics::Snapshot::now();
    // Two that panic within one value would abort.
    drop(bomb().with_related([bomb(), bomb()]));
    drop(Error::validation("x").with_related((0..100).map(|_| bomb())));
    drop(bomb().with_source("another cause"));
    let contained = watershed::diagnostics::Snapshot::now().since(&before).contained_panics;
    assert!(contained >= 104, "{contained}");
}

// Rule 6.4; fault d22
#[test]
fn a_retry_without_end_keeps_the_first_errors_and_counts_the_rest() {
    let (context, alive) = (StepContext::new("orders"), Arc::new(()));
    let policy = RetryPolicy::fixed(5_000, Duration::ZERO);
    let (mut attempts, mut most) = (0, 0);
    let retry = retry(&context, policy.clone(), |_| {
        attempts += 1;
        most = most.max(Arc::strong_count(&alive));
        std::future::ready(Err::<(), _>(Counted(Arc::clone(&alive), attempts)))
    })
    .into_future();
    let error = block_on(retry).unwrap_err();
    assert!(most < 2 * KEPT, "{most} errors are kept");
    assert_eq!(error.downcast_ref::<Counted>().map(|last| last.1), Some(5_000));
    assert_eq!(error.metadata("attempts"), Some("5000"));
    assert_eq!(error.related_total(), 4_999);
    let first: Vec<_> = error.related().iter().map(|error| format!("{error:#}")).collect();
    assert_eq!(first[0], "the operation failed: attempt 1");
    assert_eq!(first[30], "the operation failed: attempt 31");
    assert!(error.metadata("waits").unwrap().len() < 1_000);
}

// Rule 6.4
#[test]
fn many_operations_that_fail_keep_the_first_errors_and_that_of_the_rollback() {
    let context = StepContext::new("orders");
    let operations = |stuck: bool| {
        (0..1_000).map(move |number| {
            move |step: StepContext| async move {
                if stuck && number == 0 {
                    step.register_compensation(|| async { Err("cannot be undone") });
                }
                Err::<(), BoxError>(Box::new(numbered(number)))
            }
        })
    };
    let error = block_on(when_any(&context, operations(true)).into_future()).unwrap_err();
    assert_eq!((error.code(), error.related_total()), (ErrorCode::Aggregate, 1_001));
    assert_eq!(error.related()[3].to_string(), "row 3");
    assert_eq!(error.related().last().unwrap().code(), ErrorCode::Compensation);
    context.scope().clear();

    let error = block_on(when_all(&context, operations(false)).into_future()).unwrap_err();
    assert_eq!(error.to_string(), "row 0");
    assert!(error.related().len() <= KEPT);

    let mut tiers = Fallback::<()>::new(&context);
    for tier in 0..100 {
        tiers = tiers.tier(format!("tier {tier}"));
        tiers = tiers.strategy("only", |_| async { Err::<(), BoxError>("down".into()) });
    }
    let error = block_on(tiers.into_future()).unwrap_err();
    assert_eq!((error.related_total(), error.related().len()), (100, KEPT - 1));
    assert_eq!(error.related()[30].metadata("tier"), Some("tier 30"));
}

// Rule 6.4; fault d21
#[test]
fn a_group_that_lives_long_keeps_the_first_errors_and_counts_the_rest() {
    let group = Group::new(&StepContext::new("orders")).on_failure(OnFailure::Continue);
    let alive = Arc::new(());
    for number in (1..=2_000).rev() {
        let error = Counted(Arc::clone(&alive), number);
        group.go_on(&AtOnce, None, |_| async { Err::<(), _>(error) }).unwrap();
        assert!(Arc::strong_count(&alive) < 2 * KEPT);
    }
    let (error, report) = block_on(group.wait()).unwrap_err().into_parts();
    // Those of the tasks that were added first.
    assert_eq!(error.downcast_ref::<Counted>().map(|first| first.1), Some(2_000));
    assert_eq!(format!("{:#}", error.related()[0]), "the handler failed: attempt 1999");
    assert_eq!((report.failed(), error.related_total()), (2_000, 1_999));
}
