//! Programs of somebody who tried to break drains with nothing but the contract and the docs. Each is
//! named after what was seen.

mod one;
mod two;

use futures::{FutureExt, Stream, StreamExt, stream};
use std::future::*;
use std::pin::Pin;
use std::sync::atomic::*;
use std::sync::{Arc, Mutex};
use std::task::*;
use std::time::Duration;
use watershed::channels::{self, SourceEnd};
use watershed::*;

use crate::support::programs::within;

const fn ns(n: u64) -> Duration {
    Duration::from_nanos(n)
}
struct Flag(AtomicBool);
impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst)
    }
}
/// Polls while woken; at most `max` times.
fn settle<F: Future + Unpin>(f: &mut F, flag: &Arc<Flag>, max: usize) -> Poll<F::Output> {
    let w = Waker::from(flag.clone());
    for _ in 0..max {
        if !flag.0.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
        if let Poll::Ready(x) = f.poll_unpin(&mut Context::from_waker(&w)) {
            return Poll::Ready(x);
        }
    }
    panic!("woken {max} times without an end");
}
fn flag() -> Arc<Flag> {
    Arc::new(Flag(AtomicBool::new(true)))
}
