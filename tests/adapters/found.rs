//! What somebody has found who had only the contract and the docs.

use std::future::IntoFuture;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::{FutureExt, Stream, StreamExt, stream};
use watershed::channels::{
    Destination, IntoDestination, Refused, Window, broadcast, live, merge, merge_into,
};
use watershed::{CancellationSource, CancellationToken, Error, StepContext};

use crate::support::neighbours::Bomb;
use crate::support::{Gate, Hand, timed};

/// What a destination does with an item.
#[derive(Clone, Copy)]
enum Does {
    Take,
    Panic,
    /// It fails, and the item is gone.
    Fail,
}

impl Destination for Does {
    type Message = u32;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn try_send(self: Pin<&mut Self>, _: &mut Context<'_>, _: u32) -> Result<(), Refused<u32>> {
        match *self {
            Self::Take => Ok(()),
            Self::Panic => panic!("broken"),
            Self::Fail => Err(Refused::Failed(Error::validation("broken"), None)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn the_item_that_some_have_missed_is_given_to_the_callback_whoever_was_last() {
    use Does::{Fail, Panic, Take};
    for all in [[Panic, Take], [Fail, Take], [Take, Panic], [Take, Fail], [Panic, Fail]] {
        let mut undelivered = None;
        let context = StepContext::new("t");
        let broadcast = broadcast(&context, stream::iter([7]), all);
        let broadcast = broadcast.undelivered(|item| undelivered = item.into_message().ok());
        let failure = Hand::new(broadcast.into_future()).finish().unwrap_err();
        assert!(!failure.report().missed_by().is_empty());
        assert_eq!(undelivered, Some(7));
    }
}

fn with_a_bomb() -> impl Stream<Item = u32> + Unpin {
    let bomb = Bomb;
    stream::pending::<u32>().inspect(move |_| {
        let _bomb = &bomb;
    })
}

// Rule 3.7
#[test]
fn a_destructor_that_panics_is_contained_wherever_a_source_is_dropped() {
    let context = StepContext::new("t");
    let merged = merge(&context, [with_a_bomb()]);
    let window = Window::new(&context, with_a_bomb()).count(2);
    let windows = Window::new(&context, with_a_bomb()).count(2).stream().unwrap();
    let open = Window::new(&context, stream::iter([Bomb, Bomb]).chain(stream::pending())).count(3);
    let mut open = Box::pin(open.stream().unwrap());
    assert!(open.next().now_or_never().is_none());
    let (live, incoming) = live();
    let handle = live.add(with_a_bomb()).ok().unwrap();
    drop(incoming);
    let dropped = [
        catch_unwind(AssertUnwindSafe(|| drop(merged))),
        catch_unwind(AssertUnwindSafe(|| drop(window))),
        catch_unwind(AssertUnwindSafe(|| drop(windows))),
        catch_unwind(AssertUnwindSafe(|| drop(open))),
        catch_unwind(AssertUnwindSafe(|| drop(handle))),
    ];
    assert!(dropped.iter().all(Result::is_ok), "{dropped:?}");
}

/// Full until it is broken: then it fails, or panics, and is not to be asked again.
struct Breaks {
    panics: bool,
    is_broken: Arc<AtomicBool>,
    has_ended: bool,
    asked: Arc<AtomicUsize>,
}

impl Breaks {
    fn asked(&self) {
        self.asked.fetch_add(usize::from(self.has_ended), Ordering::SeqCst);
    }
}

impl Destination for Breaks {
    type Message = u32;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.asked();
        Poll::Ready(Ok(()))
    }

    fn try_send(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        message: u32,
    ) -> Result<(), Refused<u32>> {
        self.asked();
        if !self.is_broken.load(Ordering::SeqCst) {
            return Err(Refused::Full(message));
        }
        self.has_ended = true;
        assert!(!self.panics, "broken");
        Err(Refused::Failed(Error::validation("broken"), Some(message)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.asked();
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.asked();
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_destination_that_ends_in_the_last_try_is_not_asked_again() {
    for (panics, drops) in [(true, true), (true, false), (false, true), (false, false)] {
        let (stop, is_broken) = (CancellationSource::new(), Arc::new(AtomicBool::new(false)));
        let asked = Arc::new(AtomicUsize::new(0));
        let destination = Breaks {
            panics,
            is_broken: Arc::clone(&is_broken),
            has_ended: false,
            asked: Arc::clone(&asked),
        };
        let context = StepContext::new("t").with_cancellation(stop.token());
        let merge = merge_into(&context, [stream::iter([1])], destination);
        let mut undelivered = 0;
        let mut merge = Hand::new(merge.undelivered(|_| undelivered += 1).into_future());
        assert!(merge.run().is_pending());
        is_broken.store(true, Ordering::SeqCst);
        if !drops {
            stop.cancel();
            assert!(matches!(merge.run(), Poll::Ready(Err(_))));
        }
        drop(merge);
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        assert_eq!(undelivered, usize::from(!panics));
    }
}

#[test]
fn a_chain_of_links_does_not_keep_sources_that_are_gone() {
    let chain = |links: usize| {
        let first = CancellationSource::new();
        let (mut token, mut kept) = (first.token(), Vec::new());
        for _ in 0..links {
            token = CancellationToken::linked([token, CancellationSource::new().token()]);
            kept.push(token.clone());
        }
        assert!(!token.is_cancelled());
        first.cancel();
        assert!(kept.iter().all(CancellationToken::is_cancelled));
    };
    let ((), few) = timed(|| chain(10_000));
    let ((), many) = timed(|| chain(100_000));
    assert!(many < 40 * few + std::time::Duration::from_secs(1), "{few:?} and {many:?}");
}

#[test]
fn a_source_that_is_gone_counts_where_it_was_cancelled_or_has_a_clone() {
    let source = CancellationSource::new();
    let (clone, token) = (source.clone(), source.token());
    drop(source);
    let linked = CancellationToken::linked([token.clone()]);
    clone.cancel();
    drop(clone);
    assert!(linked.is_cancelled());
    assert!(CancellationToken::linked([token]).is_cancelled(), "it was cancelled before");
}

/// Takes items while its gate is open, and counts what it is asked.
struct Counts {
    gate: Gate,
    waits: Option<Pin<Box<dyn Future<Output = ()>>>>,
    calls: Arc<AtomicUsize>,
}

impl Destination for Counts {
    type Message = u32;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.clone();
        let waits = self.waits.get_or_insert_with(|| Box::pin(async move { gate.wait().await }));
        let polled = waits.as_mut().poll(cx);
        if polled.is_ready() {
            self.waits = None;
        }
        polled.map(Ok)
    }

    fn try_send(self: Pin<&mut Self>, _: &mut Context<'_>, _: u32) -> Result<(), Refused<u32>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }
}

#[test]
fn destinations_that_get_room_one_after_another_are_asked_a_few_times_each() {
    let (gates, calls): (Vec<_>, _) =
        ((0..1_000).map(|_| Gate::default()).collect(), Arc::new(AtomicUsize::new(0)));
    let destination =
        |gate: &Gate| Counts { gate: gate.clone(), waits: None, calls: Arc::clone(&calls) };
    let all: Vec<_> = gates.iter().map(destination).collect();
    let context = StepContext::new("t");
    let mut broadcast = Hand::new(broadcast(&context, stream::iter([1]), all).into_future());
    let mut ended = broadcast.run();
    for gate in &gates {
        assert!(ended.is_pending());
        gate.open();
        ended = broadcast.run();
    }
    assert!(matches!(ended, Poll::Ready(Ok(_))));
    let calls = calls.load(Ordering::SeqCst);
    assert!(calls <= 8 * gates.len(), "{calls} calls");
}

#[test]
fn a_destination_may_be_behind_a_reference_to_one_of_any_type() {
    let (sender, receiver) = async_channel::unbounded();
    let mut own = sender.into_destination();
    let any: &mut (dyn Destination<Message = u32> + Unpin) = &mut own;
    let context = StepContext::new("t");
    Hand::new(merge_into(&context, [stream::iter([1, 2])], any).into_future()).finish().unwrap();
    assert_eq!(receiver.len(), 2);
}
