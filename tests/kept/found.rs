//! Defects that were found, each with the smallest program that shows it.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use futures::stream;
use watershed::{BoxError, StepContext, fan_in};

/// A source that has nothing yet and asks to be polled again, as one that yields to other tasks
/// does, must not be polled again and again within one poll of its drain: the tasks it waits for
/// would never run.
#[test]
fn a_source_that_yields_gives_the_executor_its_thread_back() {
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let source = stream::poll_fn(move |cx| {
        // Without an end the test would not end either.
        if counted.fetch_add(1, Ordering::Relaxed) == 100_000 {
            return Poll::Ready(None::<u32>);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    let context = StepContext::new("yields");
    let drain = fan_in(&context, [source], async |_, _| Ok::<_, BoxError>(()));
    let mut drain = drain.into_future();
    let first = Pin::new(&mut drain).poll(&mut Context::from_waker(Waker::noop()));
    assert!(first.is_pending(), "{} polls of the source in one", polls.load(Ordering::Relaxed));
    assert!(polls.load(Ordering::Relaxed) <= 1_024, "{polls:?} polls of the source in one");
}
