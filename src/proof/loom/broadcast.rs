//! Destinations that come to a broadcast, and go, on other threads.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream;

use super::super::executor::block_on;
use super::every_schedule;
use crate::channels::{Destination, Refused, broadcast};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::thread;
use crate::{Error, ErrorCode, StepContext};

/// Counts what it gets, and whether it was closed.
struct Count(Arc<(AtomicUsize, AtomicUsize)>);

impl Destination for Count {
    type Message = u32;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn try_send(self: Pin<&mut Self>, _: &mut Context<'_>, _: u32) -> Result<(), Refused<u32>> {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.1.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

fn counts() -> (Count, Arc<(AtomicUsize, AtomicUsize)>) {
    let counts = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    (Count(Arc::clone(&counts)), counts)
}

// A broadcast that waits for a destination hears of the one that comes.
#[test]
fn a_broadcast_without_destinations_hears_of_the_first() {
    every_schedule("a destination that comes to a broadcast", None, || {
        let mut news = broadcast(&StepContext::new("model"), stream::iter([1]), None::<Count>);
        let subscribers = news.subscribers();
        let (destination, counts) = counts();
        let adder = thread::spawn(move || subscribers.add(destination).is_ok());
        let report = block_on(async { news.await }).unwrap();
        assert!(adder.join().unwrap());
        assert_eq!((report.items(), counts.0.load(Ordering::Relaxed)), (1, 1));
        assert_eq!(counts.1.load(Ordering::Relaxed), 1, "it was closed");
    });
}

// A removal and the last handle, while the broadcast waits for items.
#[test]
fn a_broadcast_hears_of_a_removal_and_of_its_last_handle() {
    every_schedule("a destination that is removed from a broadcast", None, || {
        let (destination, counts) = counts();
        let source = stream::pending::<u32>();
        let mut news = broadcast(&StepContext::new("model"), source, [destination]);
        let subscribers = news.subscribers();
        let remover = thread::spawn(move || subscribers.remove(0));
        let error = block_on(async { news.await }).unwrap_err().into_error();
        assert!(remover.join().unwrap());
        assert_eq!(error.code(), ErrorCode::ChannelCompleted);
        assert_eq!(counts.1.load(Ordering::Relaxed), 1, "it was closed");
    });
}
