//! Runs one future on one thread of a model.
//!
//! A thread that waits sleeps until its waker is called. So a wake-up that gets lost is a deadlock,
//! which the checkers report.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::{Condvar, Mutex};

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let bell = Arc::new(Bell { rung: Mutex::new(false), sleeper: Condvar::new() });
    let waker = Waker::from(Arc::clone(&bell));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        bell.sleep();
    }
}

/// The same with another waker for each poll: who left an older one somewhere wakes nobody.
pub(crate) fn block_on_by_changing_wakers<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        let bell = Arc::new(Bell { rung: Mutex::new(false), sleeper: Condvar::new() });
        let waker = Waker::from(Arc::clone(&bell));
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        bell.sleep();
    }
}

struct Bell {
    rung: Mutex<bool>,
    sleeper: Condvar,
}

impl Bell {
    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !std::mem::take(&mut *rung) {
            rung = self.sleeper.wait(rung).unwrap();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.sleeper.notify_one();
    }
}

/// Polls a future once, for a caller that does not come back to it.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls a future so many times and then drops it, unless it has its output before.
pub(crate) async fn polls<F: Future + Unpin>(mut future: F, most: usize) -> Option<F::Output> {
    let mut left = most;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        Pin::new(&mut future).poll(cx).map(Some)
    })
    .await
}

/// Gives the thread back once.
pub(crate) async fn give_way() {
    let mut given = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
