//! What an error says, and what it keeps to itself. Rules 6.1, 6.2.

use std::error::Error as StdError;
use std::fmt;

use futures::executor::block_on;
use watershed::combinators::retry;
use watershed::{BoxError, Error, ErrorCode, Failure, RetryPolicy, StepContext};

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
    use std::time::Duration;
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
