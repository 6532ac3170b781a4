//! What an error says, and what it keeps to itself. Rules 6.1, 6.2.

use std::error::Error as StdError;
use std::fmt;

use std::time::Duration;

use futures::executor::block_on;
use watershed::channels::broadcast;
use watershed::combinators::retry;
use watershed::group::Group;
use watershed::{
    BoxError, CompensationPolicy, CompensationScope, Error, ErrorCode, Failure, RetryPolicy,
    Source, StepContext, fan_in, labelled,
};

use crate::support::filled;

/// An error of the user's that has a cause.
#[derive(Debug)]
struct Caused(&'static str, Option<BoxError>);

impl fmt::Display for Caused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl StdError for Caused {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.1.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

fn caused(text: &'static str, cause: impl Into<BoxError>) -> BoxError {
    Box::new(Caused(text, Some(cause.into())))
}

// Rule 6.1
#[test]
fn the_codes_are_stable_strings() {
    let codes = [
        (ErrorCode::Clock, "error.clock"),
        (ErrorCode::ChannelFull, "error.channel.full"),
        (ErrorCode::Destination, "error.destination"),
        (ErrorCode::Timeout, "error.timeout"),
        (ErrorCode::SelectDrained, "error.select.drained"),
    ];
    for (code, text) in codes {
        assert_eq!(code.as_str(), text);
        assert_eq!(code.to_string(), text);
    }
}

// Rule 6.1
#[test]
fn the_short_text_is_what_failed_and_the_long_one_ends_with_the_users_words() {
    let error = Error::from_error(ErrorCode::Handler, "the card was declined");
    assert_eq!(format!("{error}"), "the handler failed");
    assert_eq!(format!("{error:#}"), "the handler failed: the card was declined");
}

// Rule 6.1
#[test]
fn the_long_text_has_every_cause_between_colons() {
    let cause = caused("the invoice was not sent", caused("no connection", "refused by host"));
    let error = Error::validation("order 17 is not complete").with_source(cause);
    assert_eq!(
        format!("{error:#}"),
        "order 17 is not complete: the invoice was not sent: no connection: refused by host"
    );
}

// Rule 6.1
#[test]
fn an_error_within_an_error_is_a_cause_like_any_other() {
    let inner = Error::from_error(ErrorCode::Handler, "the card was declined");
    let outer = Error::new(ErrorCode::Unspecified, "the step failed").with_source(inner);
    assert_eq!(format!("{outer:#}"), "the step failed: the handler failed: the card was declined");
}

// Rule 6.1
#[test]
fn the_long_text_says_nothing_twice() {
    // As error types do that print their own cause.
    let cause = caused("not stored: disk full", "disk full");
    let error = Error::from_error(ErrorCode::Handler, cause);
    assert_eq!(format!("{error:#}"), "the handler failed: not stored: disk full");
    // As transparent wrappers do.
    let cause = caused("disk full", caused("disk full", "disk full"));
    let error = Error::from_error(ErrorCode::Handler, cause);
    assert_eq!(format!("{error:#}"), "the handler failed: disk full");
    // Words that another word only happens to end with are no repetition.
    let error = Error::validation("unfull").with_source("full");
    assert_eq!(format!("{error:#}"), "unfull: full");
}

// Rule 6.1
#[test]
fn a_chain_of_causes_without_end_is_printed_and_searched_all_the_same() {
    #[derive(Debug)]
    struct Endless;
    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("again")
        }
    }
    impl StdError for Endless {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(self)
        }
    }
    let error = Error::from_error(ErrorCode::Handler, Endless);
    assert_eq!(format!("{error:#}"), "the handler failed: again");
    assert!(error.downcast_ref::<fmt::Error>().is_none());
}

// Rule 6.1
#[test]
fn a_failure_is_one_pointer_that_prints_as_its_error_and_becomes_it() {
    let pointer = size_of::<usize>();
    assert_eq!(size_of::<Failure<[u64; 64]>>(), pointer);
    assert_eq!(size_of::<Result<(), Failure<[u64; 64]>>>(), pointer);

    let error = Error::from_error(ErrorCode::Timeout, "no answer").with_metadata("attempts", 3);
    let failure = Failure::new(error, vec![1, 2, 3]);
    assert_eq!(failure.to_string(), "the operation failed");
    assert_eq!(format!("{failure:#}"), "the operation failed: no answer");
    assert_eq!(StdError::source(&failure).map(ToString::to_string).as_deref(), Some("no answer"));
    assert_eq!(failure.report(), &[1, 2, 3]);
    assert_eq!(failure.error().metadata("attempts"), Some("3"));

    fn asked(failure: Failure<Vec<u32>>) -> Result<(), Error> {
        Err(failure)?
    }
    fn boxed(failure: Failure<Vec<u32>>) -> Result<(), BoxError> {
        Err(failure)?
    }
    let error = asked(failure.clone()).unwrap_err();
    assert_eq!((error.code(), error.metadata("attempts")), (ErrorCode::Timeout, Some("3")));
    let error = boxed(failure.clone()).unwrap_err();
    assert_eq!(format!("{error:#}"), format!("{failure:#}"));
    let (error, report) = failure.into_parts();
    assert_eq!((error.code(), report), (ErrorCode::Timeout, vec![1, 2, 3]));
}

/// What an operation fails with, as the error of a function that has many kinds of them, and back.
fn through_a_box<E: Into<BoxError>>(failed: Result<impl fmt::Debug, E>) -> Error {
    fn boxed<E: Into<BoxError>>(failed: Result<impl fmt::Debug, E>) -> Result<(), BoxError> {
        failed.map_err(Into::into).map(drop)
    }
    Error::from(boxed(failed).expect_err("it fails"))
}

/// A drain whose second message fails: with `declined`, and what an operation gives to that.
async fn declines<F, E>(operation: impl Fn(StepContext) -> F) -> Error
where
    F: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let context = StepContext::new("orders");
    let queue = Source::named(filled([1, 2]), "web");
    let handler = async |order: u32, step: StepContext| {
        if order == 2 { operation(step).await.map_err(Into::into) } else { Ok(()) }
    };
    let failed = fan_in(&context, [queue], handler).await;
    through_a_box(failed)
}

const DECLINED: ErrorCode = ErrorCode::Custom("billing.declined");

fn declined() -> Error {
    Error::new(DECLINED, "the card was declined").with_metadata("card", 17)
}

#[track_caller]
fn assert_declined(error: &Error, origin: Option<(&str, u64)>) {
    assert_eq!((error.code(), error.metadata("card")), (DECLINED, Some("17")), "{error:#}");
    assert_eq!(error.source_name().zip(error.message_number()), origin, "{error:#}");
}

// Rule 6.1
#[test]
fn what_an_operation_fails_with_keeps_code_origin_and_metadata_in_a_box() {
    // Alone; an error without a cause has them as well.
    assert_declined(&through_a_box(Err::<(), _>(declined())), None);
    assert_declined(&through_a_box(Err::<(), _>(Failure::new(declined(), ()))), None);
    let failure = Failure::new(declined().with_source("no money"), vec![1]);
    let error = through_a_box(Err::<(), _>(failure));
    assert_declined(&error, None);
    assert_eq!(format!("{error:#}"), "the card was declined: no money");
    // Shared, and boxed before.
    let failure = Failure::new(declined(), [7_u64; 9]);
    assert_declined(&through_a_box(Err::<(), _>(Box::new(failure.clone()))), None);
    assert_declined(&through_a_box(Err::<(), _>(std::sync::Arc::new(failure))), None);

    block_on(async {
        let web = Some(("web", 2));
        assert_declined(&declines(async |_| Err(declined())).await, web);
        let error = declines(async |_| Err(Failure::new(declined(), "a report of the user's")));
        assert_declined(&error.await, web);
        // What is within an operation of another kind.
        let error = declines(async |step| {
            let queues = [Source::named(filled([0, 0, 2]), "phone")];
            let order = async |order, _| if order == 2 { Err(declined()) } else { Ok(()) };
            fan_in(&step, queues, order).await.map(drop)
        });
        assert_declined(&error.await, Some(("phone", 3)));
        let error = declines(async |step| {
            let group = Group::collecting(&step);
            group.go("a value", async |_| Ok::<_, Error>(String::from("17")))?;
            group.go("none", async |_| Err::<String, _>(declined()))?;
            group.wait().await.map(drop).map_err(BoxError::from)
        });
        assert_declined(&error.await, web);
        let error = declines(async |step| {
            retry(&step, RetryPolicy::fixed(2, Duration::ZERO), async |_| {
                Err::<(), _>(Failure::new(declined(), vec!["tried"]))
            })
            .await
        });
        assert_declined(&error.await, web);
    });
}

// Rules 4.4, 6.1
#[test]
fn what_a_rollback_and_a_broadcast_fail_with_keeps_code_and_metadata_in_a_box() {
    block_on(async {
        let scope = CompensationScope::new();
        scope.register_compensation(labelled("refund", async || Err(declined())));
        let failed = scope.roll_back(&CompensationPolicy::default()).await;
        let expected = failed.as_ref().expect_err("it fails").error().clone();
        let error = through_a_box(failed);
        assert_eq!((error.code(), error.to_string()), (expected.code(), expected.to_string()));
        assert_eq!(error.related()[0].metadata("label"), Some("refund"));
        scope.clear();

        let (sender, receiver) = async_channel::bounded::<u32>(1);
        drop(receiver);
        let failed = broadcast(&StepContext::new("news"), filled([1]), [sender]).await;
        let expected = failed.as_ref().expect_err("nobody hears it").error().clone();
        let error = through_a_box(failed);
        assert_eq!((error.code(), error.to_string()), (expected.code(), expected.to_string()));
    });
}

// Rule 6.1
#[test]
fn an_error_that_only_has_one_of_the_librarys_as_its_cause_is_a_foreign_one() {
    for cause in [BoxError::from(declined()), BoxError::from(Failure::new(declined(), ()))] {
        let error = Error::from(caused("the order failed", cause));
        assert_eq!(error.code(), ErrorCode::Unspecified);
        let text = "the operation failed: the order failed: the card was declined";
        assert_eq!(format!("{error:#}"), text);
    }
}

// Rule 6.1
#[test]
fn a_failure_is_sent_and_shared_where_its_report_is() {
    fn sent_and_shared<T: Send + Sync + 'static>() {}
    sent_and_shared::<Failure<Vec<u32>>>();
    sent_and_shared::<Error>();
}

// Rule 6.2
#[test]
fn no_attempt_and_no_concurrency_are_refused_before_anything_is_called() {
    use watershed::combinators::when_all;

    let context = StepContext::new("orders");
    let never = |_: StepContext| -> std::future::Ready<Result<(), BoxError>> {
        panic!("it must not be called")
    };
    for policy in [
        RetryPolicy::fixed(0, Duration::ZERO),
        RetryPolicy::exponential(0, Duration::from_secs(1)).cap(Duration::MAX).full_jitter(7),
    ] {
        let error = block_on(retry(&context, policy, never).into_future()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Validation, "{error:#}");
    }
    let all = when_all(&context, [never]).concurrency(0).into_future();
    assert_eq!(block_on(all).unwrap_err().code(), ErrorCode::Validation);
}
