//! Combinators within combinators: what each says is its own, and nothing is lost on the way.

use std::future::{pending, ready};
use std::time::Duration;

use crate::support::block_on;
use watershed::combinators::{retry, when_all};
use watershed::{BoxError, RetryPolicy, StepContext};

fn again(attempts: u32) -> RetryPolicy {
    RetryPolicy::fixed(attempts, Duration::ZERO)
}

// P40
#[test]
fn the_waits_of_a_retry_are_its_own_and_not_those_of_one_within_it() {
    let context = StepContext::new("t");
    let (once, thrice) = (RetryPolicy::none(), again(3));
    let retried = retry(&context, once, |step| {
        let thrice = thrice.clone();
        async move { retry(&step, thrice, |_| ready(Err::<(), _>("no"))).await }
    });
    let error = block_on(retried.into_future()).expect_err("it fails");
    assert_eq!((error.metadata("attempts"), error.metadata("waits")), (Some("1"), None));
}

// Rule 3.6
#[test]
fn the_dropped_operations_of_an_error_are_its_own_and_not_those_of_one_within_it() {
    let context = StepContext::new("t");
    let inner = |step: StepContext| async move {
        let deaf = |fails: bool| {
            move |_: StepContext| async move {
                if fails { Err::<(), BoxError>("no".into()) } else { pending().await }
            }
        };
        when_all(&step, [deaf(false), deaf(true)]).grace(Duration::ZERO).await
    };
    let error = block_on(inner(context.clone())).expect_err("one fails");
    assert_eq!(error.metadata("dropped_handlers"), Some("1"), "one was dropped there");
    let error = block_on(when_all(&context, [inner]).into_future()).expect_err("it fails");
    assert_eq!(error.metadata("dropped_handlers"), None, "and none here");
    let once = RetryPolicy::none();
    let error = block_on(retry(&context, once, inner).into_future()).expect_err("it fails");
    assert_eq!(error.metadata("dropped_handlers"), None, "and none here");
}
