//! The error type: codes, the chain of causes, metadata; and `try_async`.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::num::ParseIntError;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::executor::block_on;
use watershed::{BoxError, Error, ErrorCode, try_async};

fn parse_error() -> ParseIntError {
    "x".parse::<u32>().unwrap_err()
}

/// The messages of an error and of all its causes.
fn chain(error: &Error) -> Vec<String> {
    let mut messages = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        messages.push(error.to_string());
        cause = error.source();
    }
    messages
}

/// An error of the user's that wraps another.
#[derive(Debug)]
struct Wrapping(Error);

impl fmt::Display for Wrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the order failed")
    }
}

impl StdError for Wrapping {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

// Rule 6.1
#[test]
fn codes_have_stable_strings() {
    let codes = [
        (ErrorCode::Timeout, "error.timeout"),
        (ErrorCode::Canceled, "error.canceled"),
        (ErrorCode::Panic, "error.panic"),
        (ErrorCode::Source, "error.source"),
        (ErrorCode::Handler, "error.handler"),
        (ErrorCode::Validation, "error.validation"),
        (ErrorCode::Aggregate, "error.aggregate"),
        (ErrorCode::Compensation, "error.compensation"),
        (ErrorCode::ChannelCompleted, "error.channel.completed"),
        (ErrorCode::SelectDrained, "error.select.drained"),
        (ErrorCode::Unspecified, "error.unspecified"),
        (ErrorCode::Custom("orders.declined"), "orders.declined"),
    ];
    for (code, text) in codes {
        assert_eq!(code.as_str(), text);
        assert_eq!(code.to_string(), text);
        assert_eq!(Error::new(code, "x").code(), code);
    }
}

// Rule 6.1
#[test]
fn the_display_is_the_message_alone() {
    let error = Error::validation("a quantity is missing")
        .with_source(parse_error())
        .with_metadata("order", 17)
        .with_related([Error::new(ErrorCode::Timeout, "late")]);
    assert_eq!(error.to_string(), "a quantity is missing");
    assert_eq!(error.code(), ErrorCode::Validation);
}

// Rule 6.1
#[test]
fn the_chain_of_causes_says_each_thing_once() {
    let inner = Error::from_error(ErrorCode::Handler, parse_error());
    let outer = Error::new(ErrorCode::Unspecified, "the step failed").with_source(inner);
    let parse = "invalid digit found in string";
    assert_eq!(chain(&outer), ["the step failed", "the handler failed", parse]);
}

// Rule 6.1
#[test]
fn each_code_of_a_wrapped_error_has_its_own_message() {
    let expected = [
        (ErrorCode::Handler, "the handler failed"),
        (ErrorCode::Source, "the source failed"),
        (ErrorCode::Compensation, "the compensation failed"),
        (ErrorCode::Unspecified, "the operation failed"),
    ];
    for (code, message) in expected {
        let error = Error::from_error(code, "no connection");
        assert_eq!(chain(&error), [message, "no connection"]);
    }
}

// Rule 6.1
#[test]
fn an_error_without_a_cause_ends_the_chain() {
    let error = Error::new(ErrorCode::Timeout, "late");
    assert!(error.source().is_none());
    assert!(error.downcast_ref::<ParseIntError>().is_none());
    assert!(error.related().is_empty());
    assert_eq!((error.source_name(), error.message_number()), (None, None));
}

// Rule 6.1
#[test]
fn metadata_is_replaced_by_key() {
    let error = Error::validation("x").with_metadata("a", 1).with_metadata("b", 2);
    let changed = error.clone().with_metadata("a", "three");
    assert_eq!((changed.metadata("a"), changed.metadata("b")), (Some("three"), Some("2")));
    assert_eq!(error.metadata("a"), Some("1"), "a clone is on its own");
    assert_eq!(error.metadata("c"), None);
    assert_eq!(format!("{changed:?}").matches("\"a\"").count(), 1);
}

// Rule 6.1
#[test]
fn downcast_finds_the_users_error_through_nested_errors() {
    let mut error = Error::from_error(ErrorCode::Handler, parse_error());
    for _ in 0..10 {
        error = Error::new(ErrorCode::Unspecified, "wrapped").with_source(error);
        error = Error::from_error(ErrorCode::Handler, Wrapping(error));
    }
    assert_eq!(error.downcast_ref::<ParseIntError>(), Some(&parse_error()));
    assert!(error.downcast_ref::<Wrapping>().is_some());
    assert!(error.downcast_ref::<Error>().is_some());
    assert!(error.downcast_ref::<fmt::Error>().is_none());
}

// Rule 6.1
#[test]
fn a_boxed_error_comes_out_as_it_went_in() {
    let error = Error::new(ErrorCode::Custom("orders.declined"), "declined")
        .with_metadata("order", 17)
        .with_source(parse_error());
    let boxed: BoxError = Box::new(error);
    let error = Error::from(boxed);
    assert_eq!(error.code(), ErrorCode::Custom("orders.declined"));
    assert_eq!(error.metadata("order"), Some("17"));
    assert_eq!(chain(&error), ["declined", "invalid digit found in string"]);
    let error = Error::from_error(ErrorCode::Handler, error);
    assert_eq!(error.code(), ErrorCode::Custom("orders.declined"), "nor is it wrapped");
}

// Rule 6.1
#[test]
fn a_foreign_boxed_error_is_unspecified_and_wrapped() {
    let error = Error::from(BoxError::from(parse_error()));
    assert_eq!(error.code(), ErrorCode::Unspecified);
    assert_eq!(chain(&error), ["the operation failed", "invalid digit found in string"]);
}

// Rule 6.1
#[test]
fn related_errors_are_kept_in_order() {
    let late = |number| Error::new(ErrorCode::Timeout, format!("late {number}"));
    let error = Error::validation("x").with_related([late(1), late(2)]).with_related([late(3)]);
    let related: Vec<_> = error.related().iter().map(Error::to_string).collect();
    assert_eq!(related, ["late 1", "late 2", "late 3"]);
}

// Rule 6.1
#[test]
fn the_question_mark_works_in_both_directions() {
    fn outer() -> Result<(), BoxError> {
        Err(Error::validation("x"))?;
        Ok(())
    }
    let error = Error::from(outer().unwrap_err());
    assert_eq!(error.code(), ErrorCode::Validation);
}

/// Counts its destruction, and panics in it.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        assert!(std::thread::panicking(), "a destructor went wrong");
    }
}

/// A future written by hand, so that its state lives until the future itself is dropped.
struct ByHand<T> {
    _bomb: Bomb,
    poll: fn() -> Poll<T>,
}

impl<T> Future for ByHand<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        (self.poll)()
    }
}

// Rule 6.1
#[test]
fn try_async_passes_a_value_through() {
    let value = block_on(try_async(|| async { Ok::<_, ParseIntError>(17) }));
    assert_eq!(value.unwrap(), 17);
}

// Rule 6.1
#[test]
fn try_async_wraps_a_foreign_error_and_keeps_an_error() {
    let error = block_on(try_async(|| async { Err::<(), _>(parse_error()) })).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unspecified);
    assert_eq!(error.downcast_ref(), Some(&parse_error()));
    let own = || async { Err::<(), _>(Error::validation("x")) };
    let error = block_on(try_async(own)).unwrap_err();
    assert_eq!((error.code(), error.to_string()), (ErrorCode::Validation, "x".to_owned()));
}

fn panics_in_the_call() -> std::future::Ready<Result<(), Error>> {
    panic!("called")
}

// Rule 6.1
#[test]
fn try_async_contains_a_panic_in_the_call() {
    let error = block_on(try_async(panics_in_the_call)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Panic);
    assert_eq!(error.to_string(), "the operation panicked: called");
}

// Rule 6.1
#[test]
fn try_async_contains_a_panic_in_a_poll() {
    let operation = || async {
        futures::pending!();
        let number = 17;
        assert_eq!(number, 18, "polled");
        Ok::<_, Error>(())
    };
    let mut running = Box::pin(try_async(operation));
    assert!((&mut running).now_or_never().is_none());
    let error = running.now_or_never().unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Panic);
    assert!(error.to_string().contains("polled"), "{error}");
}

// Rule 6.1
#[test]
fn try_async_contains_a_panic_whose_payload_is_not_text() {
    let operation = || async {
        std::panic::panic_any(17_u32);
        #[allow(unreachable_code, reason = "it says the type")]
        Ok::<_, Error>(())
    };
    let error = block_on(try_async(operation)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Panic);
}

// Rule 6.1, Rule 4.12
#[test]
fn try_async_contains_a_panicking_destructor_after_a_value() {
    let drops = Arc::new(AtomicUsize::new(0));
    let bomb = Bomb(Arc::clone(&drops));
    let poll: fn() -> Poll<Result<u32, Error>> = || Poll::Ready(Ok(17));
    let error = block_on(try_async(|| ByHand { _bomb: bomb, poll })).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Panic);
    assert_eq!(error.to_string(), "the operation panicked: a destructor went wrong");
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

// Rule 6.1, Rule 4.12
#[test]
fn try_async_keeps_the_first_failure_when_a_destructor_panics_as_well() {
    let drops = Arc::new(AtomicUsize::new(0));
    let bomb = Bomb(Arc::clone(&drops));
    let poll: fn() -> Poll<Result<u32, Error>> = || Poll::Ready(Err(Error::validation("x")));
    let error = block_on(try_async(|| ByHand { _bomb: bomb, poll })).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Validation);
    let bomb = Bomb(Arc::clone(&drops));
    let poll: fn() -> Poll<Result<u32, Error>> = || panic!("polled");
    let error = block_on(try_async(|| ByHand { _bomb: bomb, poll })).unwrap_err();
    assert_eq!(error.to_string(), "the operation panicked: polled");
    assert_eq!(drops.load(Ordering::SeqCst), 2);
}

// Rule 6.1
#[test]
fn dropping_try_async_drops_the_operation_where_it_is() {
    let held = Arc::new(());
    let inner = Arc::clone(&held);
    let mut running = Box::pin(try_async(|| async move {
        futures::pending!();
        drop(inner);
        Ok::<_, Error>(())
    }));
    assert!((&mut running).now_or_never().is_none());
    assert_eq!(Arc::strong_count(&held), 2);
    drop(running);
    assert_eq!(Arc::strong_count(&held), 1);
}
