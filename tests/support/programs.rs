//! What the programs of those who tried to break the library share: polling by hand, and a limit.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use watershed::CompensationPolicy;

pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    futures::executor::block_on(future.into_future())
}

/// Fails when the work takes longer than so many seconds; its thread is left behind.
pub fn within<T: Send + 'static>(seconds: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
    let caught = move || std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    match super::within(Duration::from_secs(seconds), caught) {
        Some(Ok(value)) => value,
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        None => panic!("it hangs: not done within {seconds} s"),
    }
}

/// Counts wake-ups.
#[derive(Default)]
pub struct Flag(pub AtomicUsize);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

pub fn flag() -> (Arc<Flag>, Waker) {
    let flag = Arc::new(Flag::default());
    (Arc::clone(&flag), Waker::from(flag))
}

pub fn poll1<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pollw(future, Waker::noop())
}

pub fn pollw<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Polls as long as it is woken, at most 1,000 times.
///
/// # Errors
///
/// Why it did not end.
pub fn drive<F: Future + Unpin>(future: &mut F) -> Result<F::Output, String> {
    let (flag, waker) = flag();
    for polls in 1..=1_000 {
        let before = flag.0.load(SeqCst);
        if let Poll::Ready(value) = pollw(future, &waker) {
            return Ok(value);
        }
        if flag.0.load(SeqCst) == before {
            return Err(format!("pending and not woken after {polls} polls"));
        }
    }
    Err("still waking itself after 1,000 polls".into())
}

pub fn seq() -> CompensationPolicy {
    CompensationPolicy::sequential_reverse()
}
